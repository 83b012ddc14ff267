"""Being told to stop: SIGTERM and Ctrl-C are noted while a training runs and obeyed where its state is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trifold.errors import Stopped

STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}
_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class StopSign:
    """Whether the process was told to stop, and by what."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a handler's signature
        """The handler: notes the first signal; a second Ctrl-C stops at once."""
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)

    def stopped(self, where: str) -> Stopped:
        """The error to raise for the noted signal. where: what was saved, for the message."""
        told = self.signal or signal.SIGTERM
        return Stopped(f"stopped by {_NAMES[told]}: {where}; the same command goes on from there", STATUS[told])

    def check(self, where: str) -> None:
        """Raises Stopped if the process was told to stop."""
        if self.signal is not None:
            raise self.stopped(where)


@contextmanager
def listening() -> Iterator[StopSign]:
    """A stop sign that SIGTERM and Ctrl-C set; outside the main thread, where no handler can be, nothing sets it."""
    sign = StopSign()
    if threading.current_thread() is not threading.main_thread():
        yield sign
        return
    before = {number: signal.signal(number, sign.note) for number in STATUS}
    try:
        yield sign
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
