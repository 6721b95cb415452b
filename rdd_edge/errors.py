"""The exceptions that a user can meet, each with one sentence and an exit code of its kind.

RddEdgeError            1
├── UsageError          2   an argument is wrong, or two do not fit together
├── MissingError        3   a file or folder that a command needs is not there
├── CorruptError        4   a file is there but is truncated, foreign, or not what its hash says
├── DataError           5   images or labels that cannot be used
├── DependencyError     6   a package, a runtime or a tool is not installed
├── ExportError         7   a model that a target does not support
├── ArtifactError       8   an artifact that its runtime cannot load, or that crashes the process it runs in
├── TrainingError       9   a training run that diverged: a loss is NaN or infinite
├── StorageError       10   the disk is full, or a path cannot be written
├── ThresholdError     11   a measurement that misses the requested threshold
└── DeviceError        12   a device that cannot be reached, or a connection to it that broke
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "CorruptError",
    "DataError",
    "DependencyError",
    "DeviceError",
    "ExportError",
    "MissingError",
    "RddEdgeError",
    "StorageError",
    "ThresholdError",
    "TrainingError",
    "UsageError",
]


MOST_MESSAGE = 2000  # characters


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type where the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def printable(text: str, length: int) -> str:
    """Text of another program for a terminal: at most `length` characters, each control character a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text[:length])


class RddEdgeError(Exception):
    """Base of all errors that rdd-edge raises on purpose; str(error) is one sentence for the user.

    A message may quote what a foreign file holds: control characters become question marks, and the middle of a
    very long message is left out.
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        text = str(message)
        if len(text) > MOST_MESSAGE:
            text = f"{text[: MOST_MESSAGE - 200]} … {text[-197:]}"
        super().__init__(printable(text, MOST_MESSAGE))


class UsageError(RddEdgeError):
    exit_code = 2


class MissingError(RddEdgeError):
    exit_code = 3


class CorruptError(RddEdgeError):
    exit_code = 4


class DataError(RddEdgeError):
    exit_code = 5


class DependencyError(RddEdgeError):
    exit_code = 6


class ExportError(RddEdgeError):
    exit_code = 7


class ArtifactError(RddEdgeError):
    exit_code = 8


class TrainingError(RddEdgeError):
    exit_code = 9


class StorageError(RddEdgeError):
    exit_code = 10


class ThresholdError(RddEdgeError):
    exit_code = 11


class DeviceError(RddEdgeError):
    exit_code = 12
