"""What a person at the terminal sees: progress on stderr, results on stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["ConsoleReporter", "counter", "err", "out", "stages", "timed_stages"]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class ConsoleReporter:
    """Training stages as bars with loss, rate and remaining time; on a pipe, one line per finished stage.

    silent: for processes beside the first, which has told it all already.
    """

    def __init__(self, silent: bool = False) -> None:
        console = Console(quiet=True) if silent else err
        self._progress = Progress(
            TextColumn("[bold]{task.description:<12}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            refresh_per_second=4,
        )
        self._err = console
        self._task: TaskID | None = None
        self._stage, self._steps, self._done, self._began, self._loss = "", 0, 0, 0.0, "–"

    def __enter__(self) -> ConsoleReporter:
        if self._err.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._err.is_terminal:
            self._progress.stop()

    def begin(self, stage: str, steps: int, done: int) -> None:
        self._stage, self._steps, self._done, self._began, self._loss = stage, steps, 0, time.monotonic(), "–"
        self._task = self._progress.add_task(stage, total=steps, completed=done, loss="–", rate="")

    def advance(self, loss: float | None) -> None:
        self._done += 1
        self._loss = "–" if loss is None else f"{loss:.3g}"
        if self._task is not None:
            self._progress.update(self._task, advance=1, loss=self._loss, rate=self._rate())

    def end(self) -> None:
        if not self._err.is_terminal:
            seconds = time.monotonic() - self._began
            self._err.print(
                f"{self._stage:<12} {self._steps} steps  loss {self._loss}  {self._rate()}  {seconds:.0f} s"
            )

    def note(self, sentence: str) -> None:
        self._err.print(sentence)

    def _rate(self) -> str:
        seconds = time.monotonic() - self._began
        return f"{self._done / seconds:.1f} steps/s" if self._done and seconds > 0 else ""


@contextmanager
def counter(description: str, total: int, silent: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar for something that counts to `total`; call it with the count so far. Nothing on a pipe."""
    if silent or not err.is_terminal:
        yield lambda done: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def stages(description: str, silent: bool = False) -> Iterator[Callable[[str], None]]:
    """A line that names the stage a longer piece of work is in; call it with each new stage. Nothing on a pipe."""
    if silent or not err.is_terminal:
        yield lambda stage: None
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=err, transient=True) as progress:
        task = progress.add_task(description)
        yield lambda stage: progress.update(task, description=f"{description}: {stage}")


@contextmanager
def timed_stages(description: str) -> Iterator[Callable[[str], None]]:
    """`stages` for a few long ones: each that ended leaves a line with its seconds, on a pipe as well. "" ends one."""
    running: list[tuple[str, float]] = []

    def end() -> None:
        for stage, began in running:
            err.print(f"{description}: {stage}, {time.monotonic() - began:.0f} s")
        running.clear()

    with stages(description) as show:

        def begin(stage: str) -> None:
            end()
            if stage:
                running.append((stage, time.monotonic()))
            show(stage)

        yield begin
        end()
