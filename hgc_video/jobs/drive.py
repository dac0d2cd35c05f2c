"""Works a queue off with an engine: claims jobs for free workers, and sees to how each one ends.

Knows nothing about how a clip is made or where; tells an observer what happens, as plain data.
"""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import HGCVideoError
from ..files import remove
from ..sampling.configuration import names_of
from .engines.base import Engine
from .engines.work_sync import remove_work
from .left_work import remove_left_work, work_of
from .passing_faults import WAIT_S, may_pass
from .queue import MOST_FAULTS, Job, Queue, Result
from .task import Died, Ended, Event, Outcome, Ready, Step, Task

BEAT_S = 2.0
REST_S = 10.0  # after a fault of the machine; twice as long after the next
MOST_REST_S = 300.0
_TICK_S = 0.5
Observer = Callable[[dict[str, Any]], None]
_Given = TypeVar("_Given")


class Stop:
    """Whether a batch is to stop: `asked` finishes the steps that run, puts their jobs back and ends.

    Args:
        also: looked at as often as the batch asks, for who cannot set `asked`.
    """

    def __init__(self, also: Callable[[], bool] = lambda: False) -> None:
        self._asked, self._also = False, also

    @property
    def asked(self) -> bool:
        """Whether it is asked for."""
        return self._asked or self._also()

    @asked.setter
    def asked(self, value: bool) -> None:
        self._asked = value


@dataclass
class _Running:
    job: Job
    task: Task
    step: int = 0
    steps: int = 0


@dataclass
class _Rest:
    """Faults of a worker's machine since it last made a clip, and until when it gets no job."""

    faults: int = 0
    until: float = 0.0


class Drive:
    """One process's part in a batch.

    Args:
        storage: a folder or fsspec URL that every worker reaches, for what runs leave there to be resumed;
            where it is empty, a run that was cut off begins anew.
        tell: called with each event, a mapping with `event`, `job`, `name` and more.
        wait_s: how long to wait, at a time, while the queue cannot be written; then the batch ends.
    """

    def __init__(self, queue: Queue, engine: Engine, tell: Observer, *, storage: str = "",
        wait_s: int = WAIT_S,
    ) -> None:  # fmt: skip
        self._queue, self._engine, self._tell = queue, engine, tell
        self._storage, self._wait_s = storage.rstrip("/"), wait_s
        self._free: list[str] = []
        self._running: dict[str, _Running] = {}
        self._where: dict[str, str] = {}
        self._loading: dict[str, str] = {}  # what each slot's model was loaded for
        self._rests: defaultdict[str, _Rest] = defaultdict(_Rest)
        self._beaten = 0.0
        self._stop = Stop()

    def run(self, stop: Stop) -> None:
        """Makes jobs until none is left that can be claimed.

        Raises:
            HGCVideoError: every worker died again and again, and jobs are left; the queue is gone.
        """
        self._stop = stop
        self._recover()
        if self._storage:
            self._kept(partial(remove_left_work, self._queue, self._storage))
        if not self._left():
            return
        try:
            self._engine.start()
            while self._step(stop):
                pass
        finally:
            self._engine.close()
            for running in self._running.values():
                self._queue.give_back(running.job)
                self._clean(running, keep_work=True)

    def _step(self, stop: Stop) -> bool:
        """One round; False when there is nothing more to do."""
        if not stop.asked:
            self._give()
        if not self._running and (stop.asked or not self._left()):
            return False
        for event in self._engine.events(_TICK_S):
            self._handle(event)
        self._beat(stop)
        return True

    def _left(self) -> bool:
        """Whether a job waits for a worker."""
        return self._kept(lambda: bool(self._queue.table.execute(_ANY_QUEUED).fetchone()))

    def _give(self) -> None:
        while (slot := self._rested()) is not None:
            worker, loading = f"{self._where[slot]}/{slot}", self._loading.get(slot, "")
            job = self._kept(partial(self._queue.claim, worker, loading))
            if job is None:
                return
            self._free.remove(slot)
            self._loading[slot] = job.loading
            running = _Running(job, self._task(job))
            self._running[slot] = running
            self._engine.give(slot, running.task)
            self._told("started", running, slot=slot)

    def _rested(self) -> str | None:
        """A free worker that does not wait for its machine."""
        now = time.monotonic()
        return next((s for s in reversed(self._free) if self._rests[s].until <= now), None)

    def _task(self, job: Job) -> Task:
        suffix = Path(job.name).suffix
        part = self._queue.folder.absolute() / f"{_PART}{job.id}-{job.claim}{suffix}"
        work = work_of(job, self._queue.folder, self._storage)
        # A worker may have copies of the inputs, at other places than where they lie for the finished clip.
        names = names_of(job.options, self._queue.folder / job.name)
        return Task(job.name, job.options, str(part), work, names)

    def _handle(self, event: Event) -> None:
        slot, running = event.slot, self._running.get(event.slot)
        if isinstance(event, Ready):
            self._free.append(slot)
            self._where[slot] = event.where
            self._tell({"event": "ready", "slot": slot, "where": event.where})
        elif isinstance(event, Step) and running is not None:
            running.step, running.steps = event.step, event.steps
            self._told("step", running, slot=slot, step=event.step, steps=event.steps)
        elif isinstance(event, Ended) and running is not None:
            del self._running[slot]
            self._free.append(slot)
            self._end(slot, running, event.outcome)
        elif isinstance(event, Died):
            self._bury(event, running)

    def _end(self, slot: str, running: _Running, outcome: Outcome) -> None:
        done = False
        if outcome.state == "done" and outcome.result is not None:
            done = self._finish(slot, running, outcome.result, outcome.loaded)
        elif outcome.state == "failed":
            self._fail(slot, running, outcome.why, passing=outcome.passing)
        else:
            self._kept(partial(self._queue.give_back, running.job))
            self._told("stopped", running)
        self._clean(running, keep_work=not done)

    def _finish(self, slot: str, running: _Running, result: Result, loaded: bool) -> bool:
        """Puts a clip in its place; whether it is there now."""
        try:
            put = partial(self._queue.finish, running.job, Path(running.task.part), result)
            holds = self._kept(put)
        except OSError as error:
            why = f"its clip cannot be put in its place: {error}"
            self._fail(slot, running, why, passing=may_pass(error))
            return False
        self._rests.pop(slot, None)
        if holds:
            self._told("done", running, loaded=loaded, **_plain(result))
        else:
            self._told("lost", running, why="another batch took it over")
        return holds

    def _fail(self, slot: str, running: _Running, why: str, *, passing: bool) -> None:
        """Marks a job as failed; where its machine is to blame it is tried again, after a rest."""
        if not passing:
            self._kept(partial(self._queue.fail, running.job, why))
            self._told("failed", running, why=why)
            return
        state = self._kept(partial(self._queue.died, running.job, why, MOST_FAULTS))
        rest = self._rests[slot]
        rest_s = _rest_s(rest.faults)
        self._rests[slot] = _Rest(rest.faults + 1, time.monotonic() + rest_s)
        self._told("fault", running, slot=slot, why=why, state=state, rest_s=rest_s)

    def _bury(self, event: Died, running: _Running | None) -> None:
        """Counts a worker's death; its job is queued again, or set aside."""
        slot = event.slot
        self._loading.pop(slot, None)
        if slot in self._free:
            self._free.remove(slot)
        if running is not None:
            del self._running[slot]
            state = self._kept(partial(self._queue.died, running.job, event.why))
            self._told("died", running, why=event.why, state=state)
            self._clean(running, keep_work=True)
        if event.for_good:
            self._tell({"event": "worker lost", "slot": slot, "why": event.why})
            if self._engine.is_empty():
                raise HGCVideoError(
                    f"no worker is left, the last one: {event.why}; see {self._queue.folder / 'logs'}"
                )

    def _beat(self, stop: Stop) -> None:
        now = time.monotonic()
        if now - self._beaten < BEAT_S:
            return
        self._beaten = now
        by_claim = {running.job.claim: slot for slot, running in self._running.items()}
        steps = {r.job.claim: (r.step, r.steps) for r in self._running.values()}
        to_stop = set(steps) if stop.asked else set()
        for claim in to_stop | self._kept(partial(self._queue.beat, steps)):
            self._engine.stop(by_claim[claim])
        self._recover()

    def _recover(self) -> None:
        for job in self._kept(self._queue.recover):
            self._sweep(f"{_PART}{job}-")
            self._tell({"event": "recovered", "job": job})

    def _kept(self, change: Callable[[], _Given]) -> _Given:
        """What a change of the queue gives; tried again while its disk is full or fails."""
        faults, began = 0, time.monotonic()
        while True:
            try:
                return change()
            except (HGCVideoError, sqlite3.OperationalError) as error:
                waited_s = time.monotonic() - began
                if self._stop.asked or waited_s >= self._wait_s or not may_pass(error):
                    raise
                rest_s, faults = _rest_s(faults), faults + 1
                self._tell({"event": "queue waits", "why": str(error), "rest_s": rest_s})
            until = time.monotonic() + rest_s
            while time.monotonic() < until and not self._stop.asked:
                time.sleep(_TICK_S)

    def _told(self, event: str, running: _Running, **more: Any) -> None:
        self._tell({"event": event, "job": running.job.id, "name": running.job.name, **more})

    def _clean(self, running: _Running, *, keep_work: bool) -> None:
        """Removes what a task wrote, and when its job is done what its run left to be resumed."""
        self._sweep(Path(running.task.part).stem)
        if not keep_work and running.task.work:
            remove_work(running.task.work)

    def _sweep(self, stem: str) -> None:
        """Removes the files of a task, or of a job's tasks; those of a worker that died half-way too."""
        for path in self._queue.folder.glob(f".*{stem.lstrip('.')}*"):
            if path.name.lstrip(".").startswith(stem.lstrip(".")):
                remove(path)


def _rest_s(faults: int) -> float:
    """How long to rest after a fault that follows so many others."""
    return float(min(MOST_REST_S, REST_S * 2 ** min(faults, 10)))


_PART = ".part-"  # what the names of files begin with that are being written
_ANY_QUEUED = "SELECT 1 FROM jobs WHERE state = 'queued' LIMIT 1"


def _plain(result: Result) -> dict[str, Any]:
    return {
        "digest": result.digest, "seconds": result.seconds, "macs_saved": result.macs_saved,
        "warnings": list(result.warnings),
    }  # fmt: skip
