"""Write the JSON Schemas and the golden documents anew: python -m rdd_edge.schemas"""

from ..files import write_bytes
from . import FOLDER, SCHEMAS, schema_text
from .golden import GOLDEN, golden_text

for name, kind in SCHEMAS.items():
    write_bytes(FOLDER / f"{name}.json", schema_text(kind).encode())
for name in GOLDEN:
    write_bytes(FOLDER / "golden" / f"{name}.json", golden_text(name).encode())
