"""Found by child processes of the tests through PYTHONPATH: adds the fake targets to discovery."""

from pathlib import Path

import rdd_edge.targets

rdd_edge.targets.__path__.append(str(Path(__file__).parent / "targets"))
