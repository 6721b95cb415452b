"""Progress and results at the terminal, or in a log file.

Long work reports to the current `Reporter`; nothing passes one around. Outside of `reporting_to` it is a silent one, so
the library prints nothing. A log file gets a line when a stage ends and at least one every thirty seconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

LINE_SECONDS = 30.0  # the longest that a log file goes without a line
SHORT_SECONDS = 1.0  # a stage without a loss that ends sooner leaves no line


class Reporter:
    """Receives the progress of long work. This base class ignores it."""

    stage = ""  # the current one

    def begin(self, stage: str, total: int | None = None, done: int = 0, unit: str = "") -> None:
        """A stage begins and takes the place of the one before. `total`: how many units it has, where that is known."""
        self.stage = stage

    def advance(self, done: int, loss: float | None = None) -> None:
        """So many units of the current stage are done."""

    def end(self) -> None:
        """The current stage has ended."""
        self.stage = ""

    def note(self, sentence: str) -> None:
        """A remark that the user should see."""

    def result(self, line: str) -> None:
        """A line of the command's results."""


_current = Reporter()


def reporter() -> Reporter:
    """The reporter that `reporting_to` has set, or a silent one."""
    return _current


@contextmanager
def reporting_to(new: Reporter) -> Iterator[None]:
    """Let all work inside the block report to `new`."""
    global _current
    previous, _current = _current, new
    try:
        yield
    finally:
        _current = previous


def show_stage(stage: str, done: int) -> None:
    """Report progress that another process or machine has sent: begin the stage if it is a new one."""
    current = reporter()
    if current.stage != stage:
        current.begin(stage)
    current.advance(done)


class ConsoleReporter(Reporter):
    """The current stage as a bar, or on a pipe as a line every thirty seconds; a line for each stage that has ended.

    As a context manager it becomes the current reporter. Of the processes under torchrun only the first one prints.
    title: stands before the name of each stage.
    """

    def __init__(self, title: str = "") -> None:
        self._title = title
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[status]}", markup=False),
            TimeRemainingColumn(),
            console=err,
            refresh_per_second=4,
            transient=True,
        )
        self._task: TaskID | None = None
        self._stage = self._unit = ""
        self._total: int | None = None
        self._loss: float | None = None
        self._first = self._done = 0
        self._began = self._printed = 0.0
        self._exit = ExitStack()
        self._stop = threading.Event()

    def __enter__(self) -> ConsoleReporter:
        if os.environ.get("RANK", "0") != "0":
            return self
        self._exit.enter_context(reporting_to(self))
        if err.is_terminal:
            self._exit.enter_context(self._progress)
        else:
            threading.Thread(target=self._print_regularly, daemon=True).start()
            self._exit.callback(self._stop.set)
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def begin(self, stage: str, total: int | None = None, done: int = 0, unit: str = "") -> None:
        if self._task is not None:
            self.end()
        self.stage = stage
        self._stage, self._total, self._unit, self._loss = f"{self._title} {stage}".strip(), total, unit, None
        self._first = self._done = done
        self._began = self._printed = time.monotonic()
        self._task = self._progress.add_task(self._stage, total=total, completed=done, status="")

    def advance(self, done: int, loss: float | None = None) -> None:
        if self._task is None:
            return
        self._done, self._loss = done, loss
        if err.is_terminal:
            self._progress.update(self._task, completed=done, status=self._status())

    def end(self) -> None:
        if self._task is None:
            return
        self._progress.remove_task(self._task)
        self._task, self.stage = None, ""
        seconds = time.monotonic() - self._began
        if self._loss is not None or seconds >= SHORT_SECONDS:
            self._print(f"{seconds:.0f} s")

    def note(self, sentence: str) -> None:
        err.print(sentence, markup=False)

    def result(self, line: str) -> None:
        out.print(line, markup=False)

    def _print_regularly(self) -> None:
        """Also while a stage reports nothing, as a compiler does for minutes."""
        while not self._stop.wait(LINE_SECONDS / 30):
            if self._task is not None and time.monotonic() - self._printed >= LINE_SECONDS:
                self._print(self._left() or f"{time.monotonic() - self._began:.0f} s so far")

    def _print(self, last: str) -> None:
        self._printed = time.monotonic()
        parts = [f"{self._stage:<12}", self._status(), last]
        err.print("  ".join(part for part in parts if part), markup=False)

    def _rate(self) -> float:
        seconds = time.monotonic() - self._began
        return (self._done - self._first) / seconds if seconds > 0 else 0.0

    def _status(self) -> str:
        """Units done, loss and rate, as far as they are known."""
        parts = []
        if self._total is not None or self._done:
            parts.append(f"{self._done}{'' if self._total is None else f'/{self._total}'} {self._unit}".strip())
        if self._loss is not None:
            parts.append(f"loss {self._loss:.3g}")
        if self._unit and self._rate() > 0:
            parts.append(f"{self._rate():.1f} {self._unit}/s")
        return "  ".join(parts)

    def _left(self) -> str:
        if self._total is None or self._rate() <= 0:
            return ""
        minutes, seconds = divmod(int((self._total - self._done) / self._rate()), 60)
        return f"{minutes}:{seconds:02} left"
