"""Files from outside are parsed in rdd_edge/reading alone, where their limits are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import rdd_edge

PACKAGE = Path(rdd_edge.__file__).parent
PARSERS = {
    "json.load", "json.loads", "tomllib", "tomli", "pydantic_core.from_json", "safetensors.safe_open",
    "safetensors.torch.load_file",
    "safetensors.torch.load", "torch.load", "numpy.load", "numpy.lib.format", "tarfile", "zipfile", "gzip", "pickle",
    "PIL.Image.open", "pyarrow",
}  # fmt: skip
METHODS = {"model_validate_json"}
# These run on a device without the package, or write what the name suggests that they read.
EXCEPTED = {
    "portable": "stands alone on a device",
    "targets/jetson/harness": "stands alone on a board",
    "benchmarking/ssh.py": "writes the tar of a bundle",
}


def used(tree: ast.AST) -> Iterator[str]:
    """The parsers that a module names, imported under whatever alias, and methods that parse."""
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names if alias.asname}
            aliases |= {name: name for alias in node.names if not alias.asname for name in [alias.name.split(".")[0]]}
            yield from (found for alias in node.names for found in [parser(alias.name)] if found)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            yield from (p for alias in node.names for p in [parser(f"{node.module}.{alias.name}")] if p)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_or_explain":
            yield from (p for value in node.args[:1] for p in [parser(str(getattr(value, "value", "")))] if p)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if node.attr in METHODS:
                yield node.attr
            dotted = ast.unparse(node)
            root, _, rest = dotted.partition(".")
            if root in aliases and (found := parser(f"{aliases[root]}.{rest}")):
                yield found


def parser(name: str) -> str | None:
    return next((one for one in PARSERS if name == one or name.startswith(f"{one}.")), None)


def offenders(package: Path) -> list[tuple[str, str]]:
    found = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if not name.startswith(("reading/", *(f"{one}" for one in EXCEPTED))):
            found += [(name, parser) for parser in used(ast.parse(path.read_text()))]
    return found


def test_no_other_module_parses_a_file() -> None:
    assert offenders(PACKAGE) == []


@pytest.mark.parametrize(
    "line",
    ["import json\njson.loads(x)", "import json as j\nj.load(x)", "from json import loads",
     "import numpy as np\nnp.load(x)", "from PIL import Image\nImage.open(x)", "import torch\ntorch.load(x)",
     "from safetensors.torch import load_file", "from safetensors import safe_open", "import tarfile",
     "from zipfile import ZipFile", "import pickle as p", "Model.model_validate_json(x)",
     "import PIL.Image\nPIL.Image.open(x)", "import_or_explain('pyarrow.parquet', 'it', 'x')",
     "import pyarrow.parquet as pq"],
)  # fmt: skip
def test_another_way_in_is_seen(tmp_path: Path, line: str) -> None:
    """The check itself."""
    (tmp_path / "module.py").write_text(f"def f():\n    {line.replace(chr(10), chr(10) + '    ')}\n")
    assert offenders(tmp_path)


def test_writing_is_allowed(tmp_path: Path) -> None:
    text = "import json\nimport numpy as np\nfrom PIL import Image\njson.dumps(x), np.save(x, y), Image.fromarray(x)\n"
    (tmp_path / "module.py").write_text(text)
    assert offenders(tmp_path) == []
