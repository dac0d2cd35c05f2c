"""Runs in a line: one at a time in the order in which they came; every tab sees them all."""

from __future__ import annotations

import secrets
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import (
    Cancelled,
    HGCVideoError,
    InputError,
    collected_warnings,
    internal_error,
    text_of,
)
from ..files import fault_of_machine, make_folder

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
_ENDED = (DONE, FAILED, CANCELLED)
_MOST_ENDED = 100  # kept in sight; older ones go, their files too


@dataclass
class Task:
    """One thing in the line. `kind` is clip, control or batch; `options` are those of `generate`, `weights`
    the planned MACs of every step (none: all alike), `group` the comparison that it belongs to."""

    kind: str
    title: str
    options: Mapping[str, Any]
    folder: Path
    weights: Sequence[float] = ()
    group: str = ""
    names: Mapping[str, str] = field(default_factory=dict)  # of uploaded files, by their paths
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    state: str = QUEUED
    stage: str = ""
    step: int = 0
    steps: int = 0
    previews: int = 0
    why: str = ""
    warnings: tuple[str, ...] = ()
    result: dict[str, Any] = field(default_factory=dict)
    cancelled: bool = False
    began: float = 0.0
    first_step: float = 0.0
    first_share: float = 0.0
    ended: float = 0.0

    @property
    def ended_already(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in _ENDED

    def in_own_names(self, message: str) -> str:
        """A message with uploaded files by their own names."""
        for path, name in self.names.items():
            message = message.replace(path, name)
        return message

    def at_step(self, done: int, steps: int) -> None:
        """Says that so many steps of so many are done."""
        self.step, self.steps = done, steps
        self.stage = "decoding" if done == steps else "denoising"
        if not self.first_step:
            self.first_step, self.first_share = time.monotonic(), self.share_done

    @property
    def share_done(self) -> float:
        """The share of the planned work of the steps that is done, 0..1."""
        if not self.steps:
            return 0.0
        if len(self.weights) != self.steps or not sum(self.weights):
            return self.step / self.steps
        return sum(self.weights[: self.step]) / sum(self.weights)

    def seconds_left(self) -> float | None:
        """As the time since the first step tells; None before that."""
        share, since = self.share_done, self.first_share
        if self.state != RUNNING or share <= since:
            return None
        return (time.monotonic() - self.first_step) * (1 - share) / (share - since)

    def to_dict(self) -> dict[str, Any]:
        """What the page shows of it."""
        until = self.ended or time.monotonic()
        return {
            "id": self.id, "kind": self.kind, "title": self.title, "group": self.group, "state": self.state,
            "stage": self.stage, "stopping": self.cancelled, "step": self.step, "steps": self.steps,
            "share": self.share_done,
            "seconds": until - self.began if self.began else 0.0, "seconds_left": self.seconds_left(),
            "previews": self.previews, "why": self.why, "warnings": self.warnings, "result": self.result,
            "preset": self.options.get("preset", "balanced"),
        }  # fmt: skip


class Line:
    """The line, and the thread that works it off; `prepare` runs there once before the first task."""

    def __init__(self, work: Callable[[Task], None], prepare: Callable[[], None]) -> None:
        self._work, self._prepare = work, prepare
        self._tasks: list[Task] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="runs", daemon=True)

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def close(self) -> None:
        """Stops what runs after its step, and waits for that."""
        with self._changed:
            self._closed = True
            for task in self._tasks:
                task.cancelled = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, *tasks: Task) -> None:
        """Puts tasks at the end of the line."""
        with self._changed:
            self._tasks += tasks
            self._forget_old()
            self._changed.notify_all()

    def tasks(self) -> list[Task]:
        """All tasks, the oldest first."""
        with self._changed:
            return list(self._tasks)

    @property
    def at_work(self) -> bool:
        """Whether a task runs."""
        return any(task.state == RUNNING for task in self.tasks())

    def __getitem__(self, task: str) -> Task:
        for one in self.tasks():
            if one.id == task:
                return one
        raise InputError("there is no such run any more; start it again")

    def cancel(self, task: str) -> Task:
        """Takes a task out of the line, or has it stop after its step."""
        one = self[task]
        with self._changed:
            one.cancelled = True
            if one.state == QUEUED:
                one.state = CANCELLED
        return one

    def _forget_old(self) -> None:
        ended = [task for task in self._tasks if task.ended_already]
        for task in ended[:-_MOST_ENDED]:
            self._tasks.remove(task)
            shutil.rmtree(task.folder, ignore_errors=True)

    def _run(self) -> None:
        self._prepare()
        while (task := self._next()) is not None:
            self._do(task)

    def _next(self) -> Task | None:
        """The next task, now running; waits for one. None when the line is closed."""
        with self._changed:
            while not self._closed:
                for task in self._tasks:
                    if task.state == QUEUED:
                        task.state, task.began = RUNNING, time.monotonic()
                        return task
                self._changed.wait()
        return None

    def _do(self, task: Task) -> None:
        with collected_warnings() as said:
            state = self._outcome(task)
        task.warnings = tuple(dict.fromkeys(map(task.in_own_names, said)))
        if state != DONE:  # nothing of it is left
            shutil.rmtree(task.folder, ignore_errors=True)
        task.ended, task.stage = time.monotonic(), ""
        task.state = state  # last: who sees the end sees everything else of it

    def _outcome(self, task: Task) -> str:
        try:
            make_folder(task.folder)
            self._work(task)
        except Cancelled:
            return CANCELLED
        except HGCVideoError as error:
            task.why = task.in_own_names(text_of(error))
            return FAILED
        except Exception as error:
            if (fault := fault_of_machine(error)) is not None:
                task.why = task.in_own_names(str(fault))
                return FAILED
            traceback.print_exc(file=sys.stderr)
            task.why = internal_error(error)
            return FAILED
        return CANCELLED if task.cancelled and task.kind != "batch" else DONE
