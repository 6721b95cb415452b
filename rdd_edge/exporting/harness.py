"""The harness of a bundle, the target's files with the modules of rdd-edge that they import, and its contract."""

from __future__ import annotations

import shutil
from pathlib import Path

from .. import targets
from ..portable.golden import CHECKS

PACKAGE = Path(__file__).parent.parent
SCHEMAS = ("plan", "record", "error")
BOARD = ("harness", "board")  # folders of a target; on a phone the harness is an app, and a board has its own
SHARED = ("__init__.py", "errors.py", "portable")  # need the standard library and NumPy only


def add_contract(bundle: Path) -> None:
    """Copy to bundle/contract what any harness needs: golden vectors, and the schemas of what it reads and writes."""
    schemas, contract = PACKAGE / "schemas", bundle / "contract"
    contract.mkdir()
    for name in SCHEMAS:
        shutil.copyfile(schemas / f"{name}.json", contract / f"{name}.schema.json")
    for name in CHECKS:
        shutil.copyfile(schemas / "golden" / f"{name}.json", contract / f"{name}.json")


def add_harness(target: str, bundle: Path) -> None:
    """Copy what runs the bundle on a board to bundle/harness, if the target has such a program.

    The apps of phones are not copied, since one installation of an app runs any bundle.
    """
    for source in (Path(folder) / target / name for folder in targets.__path__ for name in BOARD):
        if (source / "bench.py").is_file():
            shutil.copytree(source, bundle / "harness", ignore=_left_out)
            shutil.copytree(PACKAGE, bundle / "harness" / PACKAGE.name, ignore=_left_out)


def _left_out(folder: str, names: list[str]) -> list[str]:
    """Bytecode, and what a harness does not import of the package."""
    in_package = Path(folder) == PACKAGE
    return [name for name in names if name == "__pycache__" or (in_package and name not in SHARED)]
