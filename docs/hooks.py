"""MkDocs hooks: pages that are generated from the code, and formulas as MathML.

`GENERATED` maps the path of each generated page to the function that returns its Markdown. Formulas are written as on
GitHub, $$…$$ for a block and $`…`$ within a line, and become MathML, which browsers draw without a script.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

# ---- the command line ----


def cli_page() -> str:
    """Every command of the typer app with its arguments, options and examples."""
    from typer.main import get_command

    from rdd_edge.cli import app

    group: Any = get_command(app)
    parts = ["# Command line", "", "`rdd-edge COMMAND --help` prints the same text in a terminal.", ""]
    panels: dict[str, list[str]] = {}
    for name, command in group.commands.items():
        panels.setdefault(command.rich_help_panel, []).append(name)
    parts += ["| For | Commands |", "|---|---|"]
    for panel, names in panels.items():
        links = ", ".join(f"[`{name}`](#rdd-edge-{name})" for name in names)
        parts.append(f"| {panel} | {links} |")
    parts += ["", *_options(group.params, group.make_context("rdd-edge", [], resilient_parsing=True))]
    for names in panels.values():
        for name in names:
            parts += ["", *_command(name, group.commands[name])]
    return "\n".join([*parts, "", *_exit_codes()]) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    text, *examples = re.split(r"\x08\n", command.help)
    yield from (f"## rdd-edge {name}", "", _plain(text).strip(), "")
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join(f"{p.name.upper()}{'...' if p.nargs == -1 else ''}" for p in arguments)
    yield from ("```text", f"rdd-edge {name} {'[OPTIONS] ' if options else ''}{usage}".rstrip(), "```", "")
    if arguments:
        yield from ("| Argument | Meaning |", "|---|---|")
        for parameter in arguments:
            dots = "..." if parameter.nargs == -1 else ""
            yield f"| `{parameter.name.upper()}{dots}` | {_cell(parameter.get_help_record(context)[1])} |"
        yield ""
    yield from _options(options, context)
    for block in examples:
        title, *lines = block.strip("\n").splitlines()
        yield from (title, "", "```sh", *(line.strip() for line in lines), "```")


def _options(options: list[Any], context: Any) -> Iterator[str]:
    if options:
        yield from ("| Option | Meaning |", "|---|---|")
    for option in options:
        usage, text = option.get_help_record(context)
        usage = re.sub(r"<(?:list\[)?(\w+)[^>]*>", lambda match: match[1].upper(), usage)
        yield f"| `{usage}` | {_cell(text)} |"
    yield ""


def _plain(text: str) -> str:
    """Help without the escapes of rich's markup, and with one space between sentences."""
    return re.sub(r"(?<=\S)  +", " ", text.replace("\\[", "["))


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _exit_codes() -> Iterator[str]:
    from rdd_edge import errors

    yield from ("## Exit codes", "", "A command that fails prints one sentence on standard error.", "")
    yield from ("| Code | Error | Meaning |", "|---:|---|---|", "| 0 | | Success. |")
    kinds = [kind for kind in map(errors.__dict__.__getitem__, errors.__all__) if isinstance(kind, type)]
    for kind in sorted((k for k in kinds if k is not errors.RddEdgeError), key=lambda k: k.exit_code):
        summary = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        yield f"| {kind.exit_code} | `{kind.__name__}` | {_cell(summary)} |"
    yield "| 130 | | Interrupted from the keyboard. |"


# ---- presets ----


def presets_page() -> str:
    """The presets side by side, a row for each key that `--set` takes."""
    from rdd_edge.distillation.presets import PRESETS

    columns = {name: dict(_flat(preset.model_dump(mode="json"))) for name, preset in PRESETS.items()}
    keys = dict.fromkeys(key for values in columns.values() for key in values)
    rows = (
        f"| `{key}` | " + " | ".join(_value(values.get(key, "")) for values in columns.values()) + " |"
        for key in keys
        if key != "name"
    )
    return "\n".join(
        [
            "# Presets",
            "",
            "A preset holds every setting of a training run: a file in `rdd_edge/distillation/presets/`, of the form "
            "that `--config` takes. `rdd-edge distill --preset NAME` chooses one, and "
            "`--set KEY=VALUE` changes a setting; the value is JSON or a word. A part that is absent in a preset "
            "is empty here.",
            "",
            "| Key | " + " | ".join(columns) + " |",
            "|---|" + "---|" * len(columns),
            *rows,
            "",
        ]
    )


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and prefix + key != "taus.cfd":
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _value(value: Any) -> str:
    return "" if value in (None, "") else f"`{json.dumps(value).strip(chr(34))}`"


# ---- JSON Schemas ----


def schemas_page() -> str:
    """The JSON Schemas that ship in rdd_edge/schemas: a table of fields for each object, and the file itself."""
    parts = [
        "# JSON Schemas",
        "",
        "Every JSON document that another program may write or read has a schema. The files are in "
        "`rdd_edge/schemas/` and are installed with the package. Unknown keys are refused.",
    ]
    for path in sorted((ROOT / "rdd_edge" / "schemas").glob("*.json")):
        schema = json.loads(path.read_text())
        parts += ["", f"## {path.name}", ""]
        for name, kind in {schema["title"]: schema, **schema.get("$defs", {})}.items():
            if "properties" in kind:
                parts += _fields(name, kind)
        text = json.dumps(schema, indent=2, ensure_ascii=False).replace("\n", "\n    ")
        parts += [f'??? note "{path.name} in full"', "", "    ```json", f"    {text}", "    ```"]
    return "\n".join(parts) + "\n"


def _fields(name: str, kind: dict[str, Any]) -> Iterator[str]:
    yield from (f"### {name}", "", _cell(" ".join(kind.get("description", "").split())), "")
    yield from ("| Field | Type | Required |", "|---|---|---|")
    required = kind.get("required", ())
    for field, value in kind["properties"].items():
        need = "yes" if field in required else f"no, default `{json.dumps(value['default'])}`"
        if isinstance(value.get("default"), dict):
            need = "no"
        yield f"| `{field}` | {_type(value).replace('|', chr(92) + '|')} | {need} |"
    yield ""


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return str(value["$ref"].rpartition("/")[2])
    if "anyOf" in value:
        return " or ".join(_type(one) for one in value["anyOf"])
    if "enum" in value:
        return " or ".join(f"`{json.dumps(one)}`" for one in value["enum"])
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if value.get("type") == "array":
        items = value.get("items") or next(iter(value.get("prefixItems", [])), None)
        return f"array of {_type(items)}" if items else "array"
    if value.get("type") == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"object of {_type(value['additionalProperties'])}"
    return f"{value.get('type', 'any')}{_bounds(value)}"


def _bounds(value: dict[str, Any]) -> str:
    if "pattern" in value:
        return f" matching `{value['pattern']}`"
    low, high = value.get("minimum", value.get("exclusiveMinimum")), value.get("maximum", value.get("exclusiveMaximum"))
    if low is None and high is None:
        return ""
    left = "[" if "minimum" in value else "("
    right = "]" if "maximum" in value else ")"
    return f" in {left}{_limit(low, '-∞')}, {_limit(high, '∞')}{right}"


def _limit(value: float | None, infinite: str) -> str:
    if value is None:
        return infinite
    return str(int(value)) if value == int(value) else str(value)


# ---- the golden documents ----


def contract_page() -> str:
    """What a harness in another language has to do, and a row for each document that it is run against."""
    rows = []
    for path in sorted((ROOT / "rdd_edge" / "schemas" / "golden").glob("*.json")):
        document = json.loads(path.read_text())
        cases = document.get("cases") or [*document["accepted"], *document["refused"]]
        rows.append(f"| `{path.name}` | {len(cases)} | {_cell(document['proves'])} |")
    return CONTRACT.format(rows="\n".join(rows))


CONTRACT = """# Contract for harnesses

A harness runs a bundle on a device and writes a benchmark run. One in any language can be run against the golden
documents in `rdd_edge/schemas/golden/`, which are installed with the package. The Kotlin app, the Jetson harness and
rdd-edge itself are.

| Document | Cases | Proves |
|---|---:|---|
{rows}

- In `words`, `normals`, `labels` and `rounding` each case has inputs and the result. Seeds and indices are texts, since
  JSON readers differ on numbers above 2⁵³. A bundle carries these four in `contract/`, beside the schemas of plan,
  record and error: the harness computes them on the device before it runs anything, and names the first case that
  differs.
- In `text` each case is a text, and whether a record may hold it. A harness cleans what its system tells it.
- In `plan`, `manifest`, `record` and `error` there are documents to accept, and documents to refuse. A refused one is
  the first accepted document in which the value at the keys `at` is replaced by the JSON text `json`; `why` says what
  is wrong. A harness reads plans and manifests, and writes records and errors.

The rules themselves are on the page [File formats](file-formats.md#noise-and-rounding), the fields on
[JSON Schemas](schemas.md). After a change, `python -m rdd_edge.schemas` writes schemas and documents anew.
"""

GENERATED: dict[str, Callable[[], str]] = {
    "reference/cli.md": cli_page,
    "reference/presets.md": presets_page,
    "reference/schemas.md": schemas_page,
    "reference/contract.md": contract_page,
}


# ---- hooks that MkDocs calls ----


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for path, page in GENERATED.items():
        files.append(File.generated(config, path, content=page()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Formulas as MathML."""
    from latex2mathml.converter import convert

    def block(match: re.Match[str]) -> str:
        return convert(" ".join(match[1].split()), display="block")

    markdown = re.sub(r"^\$\$\n(.+?)\n\$\$$", block, markdown, flags=re.DOTALL | re.MULTILINE)
    # In a span, since Markdown takes a line that begins with <math> for a block.
    return re.sub(r"\$`(.+?)`\$", lambda match: f"<span>{convert(match[1])}</span>", markdown)
