"""A report as Markdown, for a pull request or a README: the table, its notes, and where each run was made."""

from __future__ import annotations

from ..benchmarking.run import BenchRun
from .details import facts
from .entries import Entry
from .table import COLUMNS, Cell, Notes, cells

__all__ = ["markdown"]


def markdown(entries: list[Entry], baseline: BenchRun | None) -> str:
    """The report's text."""
    notes = Notes()
    columns = COLUMNS if baseline else [c for c in COLUMNS if c.name != "relative"]
    lines = ["| " + " | ".join(f"{c.title} {c.unit}".strip() for c in columns) + " |"]
    lines.append("|" + "|".join("---" if c.text else "---:" for c in columns) + "|")
    for entry in entries:
        row = cells(entry.run, entry.scores, entry.stats, baseline, notes)
        lines.append("| " + " | ".join(_cell(row[c.name]) for c in columns) + " |")
    lines += ["", *(f"{i}. {_escaped(text)}" for i, text in enumerate(notes.texts, 1))] if notes.texts else []
    for entry in entries:
        for diagnosis in entry.scores.diagnoses if entry.scores else ():
            title, name = _escaped(entry.run.title), _escaped(diagnosis.name)
            lines += ["", f"**{title}: {name}.** {_escaped(diagnosis.sentence)}"]
    for entry in entries:
        details = "; ".join(f"{name}: {value}" for name, value in facts(entry.run))
        lines += ["", f"**{_escaped(entry.run.title)}** – {_escaped(details)}"]
    return "\n".join(lines) + "\n"


def _cell(cell: Cell) -> str:
    return _escaped(cell.value) + (f" [{cell.note}]" if cell.note else "")


def _escaped(text: str) -> str:
    """Text on one line in which neither Markdown nor the HTML inside it sees markup."""
    return " ".join(text.translate({ord(c): f"&#{ord(c)};" for c in "\\`*_[]<>|#~&"}).split())
