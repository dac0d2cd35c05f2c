"""Writes beside the run, in a thread of its own, one thing at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Write = Callable[
    [Callable[[], None]], int
]  # writes, and gives the bytes; calls what it is given now and then


class Abandoned(Exception):
    """What was being written is not needed any more."""


class Writer:
    """`writes` are the seconds and bytes of everything that was written."""

    def __init__(self) -> None:
        self.writes: list[tuple[float, int]] = []
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._abandoned = threading.Event()

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, write: Write) -> None:
        """Begins to write, when what was begun before is written; raises what that raised."""
        self.wait()
        self._abandoned.clear()
        # A daemon, so that a process that ends by an error does not wait; what is half written is left out.
        self._thread = threading.Thread(
            target=self._run, args=(write,), name="checkpoint", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Waits until nothing is being written; raises what went wrong, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raises what went wrong since it was asked last."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def abandon(self) -> None:
        """Has what is being written left as soon as that can be; what was written before stays."""
        self._abandoned.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._error = None

    def _run(self, write: Write) -> None:
        began = time.monotonic()
        try:
            nbytes = write(self._going_on)
        except Abandoned:
            return
        except Exception as error:
            self._error = error
            return
        self.writes.append((time.monotonic() - began, nbytes))

    def _going_on(self) -> None:
        if self._abandoned.is_set():
            raise Abandoned
