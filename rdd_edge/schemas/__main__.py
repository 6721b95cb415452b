"""Write the JSON Schemas anew: python -m rdd_edge.schemas"""

from ..files import write_bytes
from . import FOLDER, SCHEMAS, schema_text

for name, kind in SCHEMAS.items():
    write_bytes(FOLDER / f"{name}.json", schema_text(kind).encode())
