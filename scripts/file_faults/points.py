"""Points with names, inside checkpoint, queue, store and encoder, at which a process can be killed.

The environment arms them, in the process that calls `install` and in those that it begins:
CRASH_POINT="queue.finish after 2" kills a process (-9) that returns from Queue.finish for the second time;
CRASH_LOG names a file to which every point that is reached is written.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARMED, LOG = "CRASH_POINT", "CRASH_LOG"
_FOLDER, _SHARDS = "hgc_video.jobs.checkpoint.work_folder", "hgc_video.jobs.checkpoint.shards"
_KEEPER, _STORE = "hgc_video.jobs.checkpoint.keeper", "hgc_video.cache.store"
_QUEUE, _WRITE = "hgc_video.jobs.queue", "hgc_video.media.write"

# By name the module and what in it is called. Not what other modules import by its own name: they call that.
POINTS = {
    "checkpoint.newest": (_FOLDER, "WorkFolder.newest"),
    "checkpoint.snapshot": (_FOLDER, "WorkFolder.snapshot"),
    "checkpoint.shards": (_SHARDS, "Shards.write"),
    "checkpoint.keep": (_FOLDER, "WorkFolder.keep"),
    "checkpoint.remove": (_FOLDER, "WorkFolder._remove"),
    "checkpoint.frames": (_FOLDER, "WorkFolder.keep_frames"),
    "checkpoint.offer": (_KEEPER, "FolderKeeper.offer"),
    "checkpoint.finish": (_FOLDER, "WorkFolder.finish"),
    "queue.claim": (_QUEUE, "Queue.claim"),
    "queue.beat": (_QUEUE, "Queue.beat"),
    "queue.recover": (_QUEUE, "Queue.recover"),
    "queue.set_state": (_QUEUE, "Queue.set_state"),
    "queue.finish": (_QUEUE, "Queue.finish"),
    "queue.close": (_QUEUE, "Queue.close"),
    "store.begin": (_STORE, "Store.begin"),
    "store.put": (_STORE, "Store.put"),
    "store.get": (_STORE, "Store.get"),
    "store.keep_only": (_STORE, "Store.keep_only"),
    "store.state": (_STORE, "Store.state"),
    "store.restore": (_STORE, "Store.restore"),
    "store.clear": (_STORE, "Store.clear"),
    "encoder.movie": (_WRITE, "_write_movie"),
    "encoder.folder": (_WRITE, "_write_folder"),
    "encoder.frame": (_WRITE, "_as_bt709"),
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """The so-manyth time, from 1, that a process comes to ("before") or leaves ("after") a point."""

    name: str
    side: str
    time: int

    def __str__(self) -> str:
        return f"{self.name} {self.side} {self.time}"


def install() -> None:
    """Has this process reach the points, where the environment arms or logs them."""
    if not (os.environ.get(ARMED) or os.environ.get(LOG)):
        return
    reached: Counter[tuple[str, str]] = Counter()
    for name, (module, inner) in POINTS.items():
        *outer, last = inner.split(".")
        holder = functools.reduce(getattr, outer, importlib.import_module(module))
        setattr(holder, last, _wrapped(name, getattr(holder, last), reached))


def _wrapped(
    name: str, function: Callable[..., Any], reached: Counter[tuple[str, str]]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        _reach(name, "before", reached)
        given = function(*args, **options)
        _reach(name, "after", reached)
        return given

    return wrapped


def _reach(name: str, side: str, reached: Counter[tuple[str, str]]) -> None:
    reached[name, side] += 1
    here = str(Point(name, side, reached[name, side]))
    if log := os.environ.get(LOG):
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, f"{here}\n".encode())
        os.close(handle)
    if os.environ.get(ARMED) == here:
        os.kill(os.getpid(), signal.SIGKILL)


def read_log(log: Path) -> list[Point]:
    """The points that were reached."""
    if not log.is_file():
        return []
    told = [line.split() for line in log.read_text().splitlines()]
    return [Point(name, side, int(time)) for name, side, time in told]


def to_try(reached: list[Point]) -> list[Point]:
    """Of each point's two sides the first time that it was reached, one in the middle, and the last."""
    last: dict[tuple[str, str], int] = {}
    for point in reached:
        key = point.name, point.side
        last[key] = max(last.get(key, 0), point.time)
    return [
        Point(*key, time)
        for key, most in sorted(last.items())
        for time in sorted({1, (most + 1) // 2, most})
    ]
