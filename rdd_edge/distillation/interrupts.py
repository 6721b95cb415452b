"""Ctrl-C during training: the step is finished and the state saved before the run stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from ..console import reporter
from ..distributed import current


class Interrupts:
    """Notes a first Ctrl-C in the block; a second one interrupts at once.

    Under torchrun, which ends its processes itself, and outside of the main thread, which alone can handle signals,
    Ctrl-C is left as it is.
    """

    asked = False

    def __enter__(self) -> Interrupts:
        self._handles = current().size == 1 and threading.current_thread() is threading.main_thread()
        if self._handles:
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._handles:
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        reporter().note("stopping after this step; press Ctrl-C again to stop at once and lose what is not saved")
