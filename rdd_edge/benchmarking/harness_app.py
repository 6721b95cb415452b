"""What the harness apps of phones print and leave behind, the same on Android and iOS.

STAGE COUNT             progress
error KIND SENTENCE     the run failed; the app leaves error.json with the same
done …                  the run is in its folder
"""

from __future__ import annotations

import re
import time

from .. import errors
from ..bundle import Bundle
from ..console import reporter, show_stage
from ..errors import ArtifactError, CorruptError, DeviceError, RddEdgeError, printable
from ..reading.documents import parse_model
from ..targets import load_target
from .returned import Failure

STALL_SECONDS = 600.0  # without progress, after which the app gives up by itself
GRACE_SECONDS = 60.0  # after which the driver gives up the app
HIDDEN_SECONDS = 30.0  # without a first line, after which a phone is taken for one that hides what apps log
MOST_ERROR_BYTES = 1 << 14
ERROR = "error.json"


class Progress:
    """Follows one run by the lines that its app prints."""

    def __init__(self, phone: object, stall_seconds: float) -> None:
        self.phone, self.stall_seconds = phone, stall_seconds
        self.failure: RddEdgeError | None = None  # that the app reported
        self._last = time.monotonic()
        self._logs: bool | None = None  # whether this phone shows what its app logs; None: not known yet

    def take(self, line: str) -> bool:
        """Report a line's progress; whether it was the run's last one. A line of another form is skipped."""
        if match := re.fullmatch(r"([a-z]{1,20}) (\d{1,9})", line, re.ASCII):
            self._last, self._logs = time.monotonic(), True
            show_stage(match[1], int(match[2]))
        elif match := re.fullmatch(r"error (\w{1,40}) (.*)", line):
            self.failure = failure_of(match[1], f"{self.phone}: {printable(match[2], 1000)}")
        return self.failure is not None or line.startswith("done ")

    def see_work(self) -> None:
        """The app computes: progress where its log is hidden. Whether it leads anywhere is for the app to judge."""
        if self._logs is None and time.monotonic() - self._last > HIDDEN_SECONDS:
            reporter().note(f"{self.phone} hides what apps log: the run shows no progress before its end")
            self._logs = False
        if self._logs is False:
            self._last = time.monotonic()

    def check(self) -> None:
        """Raise ArtifactError where the app has made no progress for too long."""
        if time.monotonic() - self._last > self.stall_seconds + GRACE_SECONDS:
            stage = reporter().stage
            raise ArtifactError(f"{self.phone} made no progress for {self.stall_seconds:g} s in stage {stage}")


def read_failure(content: bytes, phone: object) -> RddEdgeError:
    """The failure that the app's error.json describes. Raises CorruptError for another document."""
    try:
        failure = parse_model(content, Failure, ERROR)
    except CorruptError:
        raise CorruptError(f"the error.json of the harness app on {phone} is not valid") from None
    return failure_of(failure.kind, f"{phone}: {failure.sentence}")


def failure_of(kind: str, sentence: str) -> RddEdgeError:
    """The exception of rdd_edge.errors with this name; DeviceError for any other name."""
    exception = getattr(errors, kind) if kind in errors.__all__ else DeviceError
    result: RddEdgeError = exception(sentence)
    return result


def least_psnr(bundle: Bundle) -> str | None:
    """The median PSNR in dB that the app's self-test has to reach; None where the bundle's export allowed any."""
    m = bundle.manifest
    return None if m.parity.low_allowed else f"{load_target(m.target).precision(m.precision).parity_db:g}"
