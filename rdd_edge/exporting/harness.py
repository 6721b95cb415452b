"""The harness of a bundle: the target's files, with the modules of rdd-edge that they import."""

from __future__ import annotations

import shutil
from pathlib import Path

from .. import targets

__all__ = ["add_harness"]

PACKAGE = Path(__file__).parent.parent
SHARED = ("__init__.py", "errors.py", "portable")  # need the standard library and NumPy only


def add_harness(target: str, bundle: Path) -> None:
    """Copy the harness to bundle/harness, if the target has one that runs from there: one with a bench.py.

    An app's sources are no such harness, since one installation runs any bundle.
    """
    without_bytecode = shutil.ignore_patterns("__pycache__")
    for folder in targets.__path__:
        source = Path(folder) / target / "harness"
        if (source / "bench.py").is_file():
            shutil.copytree(source, bundle / "harness", ignore=without_bytecode)
            package = bundle / "harness" / PACKAGE.name
            package.mkdir()
            for name in SHARED:
                if (PACKAGE / name).is_dir():
                    shutil.copytree(PACKAGE / name, package / name, ignore=without_bytecode)
                else:
                    shutil.copyfile(PACKAGE / name, package / name)
