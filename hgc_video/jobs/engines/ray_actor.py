"""What runs in an actor of a Ray cluster: makes one clip after another and gives back their bytes."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import HGCVideoError
from ..failures import failed_by
from ..task import Outcome, Task
from ..worker import Worker
from .inputs import renamed, with_files_here


class RayActor:
    """A worker on a machine of the cluster. It keeps its model, and what it reads under a temporary folder.

    Its methods are called from several threads: `step` and `stop` while `make` is at work.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hgc-video-")
        self._worker = Worker()
        self._step = (0, 0)

    def ready(self) -> str:
        """Where the actor runs, as host:pid."""
        return f"{platform.node()}:{os.getpid()}"

    def make(self, task: Task, carried: Mapping[str, Any]) -> tuple[Outcome, bytes]:
        """Makes a clip; gives back how that ended, and the clip's bytes where there is one. A disk that is
        full or fails here is an outcome, not an error.

        Args:
            carried: references of what the task reads, by path.
        """
        self._step = (0, 0)
        try:
            return self._make(task, carried)
        except (OSError, HGCVideoError) as error:
            return failed_by(error), b""

    def _make(self, task: Task, carried: Mapping[str, Any]) -> tuple[Outcome, bytes]:
        import ray

        folder = Path(self._folder.name)
        options = with_files_here(
            task.options, folder, lambda path: ray.get(carried[path]) if path in carried else None
        )
        part = folder / Path(task.part).name
        names = renamed(task.names, task.options, options)
        task = replace(task, options=options, part=str(part), names=names)
        outcome = self._worker.make(task, self._note)
        try:
            return outcome, part.read_bytes() if outcome.state == "done" else b""
        finally:
            part.unlink(missing_ok=True)

    def step(self) -> tuple[int, int]:
        """How many steps of the task are done, of how many."""
        return self._step

    def stop(self, part: str) -> None:
        """Stops the task that was to write this file after the step it is at."""
        self._worker.stop(str(Path(self._folder.name) / Path(part).name))

    def _note(self, step: int, steps: int) -> None:
        self._step = (step, steps)
