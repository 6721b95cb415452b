"""The base model and the scalar types of all records that are written to files."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MOST_TEXT = 1000
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Milliseconds = Annotated[float, Field(ge=0, le=1e12)]
UInt64 = Annotated[int, Field(ge=0, lt=2**64)]


def _printable(text: str) -> str:
    if not text.isprintable() or len(text) > MOST_TEXT:
        raise ValueError(f"must be one line of at most {MOST_TEXT} printable characters")
    return text


# Shown in terminals and reports, so it contains neither escape sequences nor line breaks.
Text = Annotated[str, AfterValidator(_printable)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]  # of a target or a precision
Instant = Annotated[
    str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|\+00:00)$")
]  # ISO 8601, UTC
Version1 = Annotated[int, Field(ge=1, le=1)]  # not Literal, to which true is 1
Bytes = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=0, le=10_000_000)]  # of images or runs
Decibels = Annotated[float, Field(ge=-1000, le=1000)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]
Side = Annotated[int, Field(ge=1, le=65536)]  # of a tensor


class Frozen(BaseModel):
    """An immutable record of a file: unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
