"""Where the time of an inference goes: the times of a record's operators, summed by kind and backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..benchmarking.record import OperatorTime

__all__ = ["KindTime", "by_kind"]

SHOWN = 10


@dataclass(frozen=True)
class KindTime:
    """All operators of one kind that one backend ran; or, as the last row, all kinds that are not listed."""

    kind: str
    backend: str | None
    count: int  # of operators
    milliseconds: float  # per inference, of all of them
    fraction: float  # of the time of all operators, 0 … 1


def by_kind(operators: Sequence[OperatorTime], shown: int = SHOWN) -> list[KindTime]:
    """Kinds in the order of their time, the slowest first; those beyond `shown` are summed in a last row."""
    total = sum(operator.milliseconds for operator in operators)
    groups: dict[tuple[str, str | None], list[float]] = {}
    for operator in operators:
        groups.setdefault((operator.kind, operator.backend), []).append(operator.milliseconds)
    rows = [
        KindTime(kind, backend, len(times), sum(times), sum(times) / total if total else 0.0)
        for (kind, backend), times in groups.items()
    ]
    rows.sort(key=lambda row: -row.milliseconds)
    if len(rows) <= shown + 1:
        return rows
    rest = rows[shown:]
    others = KindTime(
        f"{len(rest)} other kinds", None, sum(row.count for row in rest), sum(row.milliseconds for row in rest),
        sum(row.fraction for row in rest),
    )  # fmt: skip
    return [*rows[:shown], others]
