"""The harness of a bundle: the target's own, with the modules of rdd-edge that it runs on."""

from __future__ import annotations

import shutil
from pathlib import Path

from .. import targets

__all__ = ["SHARED", "add_harness"]

PACKAGE = Path(__file__).parent.parent
# Standard library and NumPy alone: a board has no more. Noise and timing are not written a second time.
SHARED = ("__init__.py", "errors.py", "noise.py", "sensors.py", "timing.py")


def add_harness(target: str, bundle: Path) -> None:
    """Put the harness into bundle/harness where the target has one."""
    for folder in targets.__path__:
        source = Path(folder) / target / "harness"
        if source.is_dir():
            shutil.copytree(source, bundle / "harness", ignore=shutil.ignore_patterns("__pycache__"))
            (bundle / "harness" / "rdd_edge").mkdir()
            for name in SHARED:
                shutil.copyfile(PACKAGE / name, bundle / "harness" / "rdd_edge" / name)
