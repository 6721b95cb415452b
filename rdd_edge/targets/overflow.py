"""float16 ends at 65504: what a phone or a board shows as a black image is found here first."""

from __future__ import annotations

from pathlib import Path

from ..errors import ArtifactError

__all__ = ["HALF_MAX", "refuse_overflow"]

HALF_MAX = 65504.0  # the largest finite float16


def refuse_overflow(artifact: Path, largest: dict[str, float]) -> None:
    """Raise ArtifactError, naming the first tensor, where a float16 tensor's magnitude is beyond its type.

    largest: by name, in the order in which they are computed; inf where a value was not finite.
    """
    for name, value in largest.items():
        if not value <= HALF_MAX:
            raise ArtifactError(
                f"{artifact} overflows float16, which ends at {HALF_MAX:g}: {name} reaches {value:g}: export it as "
                "fp32, or train without activations that large"
            )
