"""Ctrl-C once: the run finishes its step, is kept and stops; twice: it stops at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .keeper import FolderKeeper

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def finishing_the_step(keeper: FolderKeeper) -> Iterator[None]:
    """While the block lasts, the first SIGINT or SIGTERM has the keeper stop the run after its step, where it
    has a folder to keep it in; a second one, or the first where it has none, raises KeyboardInterrupt at
    once. Leaves alone a program's own handlers, and threads other than the main one."""

    def handle(number: int, frame: FrameType | None) -> None:
        if keeper.interrupted or keeper.folder is None:
            raise KeyboardInterrupt
        keeper.interrupted = True
        print("\nfinishing the step to keep it; once more to stop at once", file=sys.stderr)

    before = {}
    if threading.current_thread() is threading.main_thread():
        stock = (signal.default_int_handler, signal.SIG_DFL)
        before = {n: h for n in _SIGNALS if (h := signal.getsignal(n)) in stock}
    try:
        for number in before:
            signal.signal(number, handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
