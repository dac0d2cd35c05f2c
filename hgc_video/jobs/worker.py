"""One worker, whatever engine runs it: makes one clip after another and keeps the model between them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import Cancelled, collected_warnings
from ..files import make_folder, sha256_of
from .engines.work_sync import work_at
from .failures import failed_by
from .loaded_model import LoadedModel
from .queue import Result
from .task import Outcome, Task


class Worker:
    """Makes the clips of tasks on one device (None: as each task says, or the first that is there)."""

    def __init__(self, device: str | None = None) -> None:
        self._device, self._model = device, LoadedModel()
        self._stopped: set[str] = set()  # the files of tasks that are to stop
        self._ended = False

    def stop(self, part: str | None) -> None:
        """Stops the task that writes this file after the step it is at, or every task; from any thread."""
        if part is None:
            self._ended = True
        else:
            self._stopped.add(part)

    def make(self, task: Task, on_step: Callable[[int, int], None]) -> Outcome:
        """Makes one clip, written to the task's file; a fault of the task is an outcome, not an error.

        Args:
            on_step: told after each step how many are done, of how many.
        """
        loads = self._model.loads

        def callback(step: int, steps: int, latents: Any) -> bool:
            on_step(step + 1, steps)
            return not (self._ended or task.part in self._stopped)

        with warnings.catch_warnings(), collected_warnings() as said:
            warnings.simplefilter("ignore")  # what libraries warn of; the process does nothing else
            try:
                made = self._make(task, callback)
            except Cancelled:
                self._stopped.discard(task.part)
                return Outcome("stopped")
            except Exception as error:
                return failed_by(error)
        result = Result(made.digest, made.seconds, made.macs_saved, tuple(said))
        return Outcome("done", result, loaded=self._model.loads > loads)

    def _make(self, task: Task, callback: Callable[[int, int, Any], bool]) -> Result:
        part = Path(task.part)
        make_folder(part.parent)
        options = {**task.options, "out": task.part}
        if self._device is not None and options.get("device") is None:
            options["device"] = self._device
        with work_at(task.work) as work:  # a job that was begun goes on from what its folder keeps
            report = self._model.make(
                {**options, "work": work}, task.name, callback, task.names
            ).report
        return Result(sha256_of(part), report.seconds["total"], report.macs_saved)
