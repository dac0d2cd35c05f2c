"""What passes between a batch and its workers: a task to make, where it stands, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from .queue import Result


@dataclass(frozen=True)
class Task:
    """A clip to make: the options of a job with absolute paths, the file that its clip is written to, and the
    folder that is its own for every try of it, in which a run may leave its checkpoints. `names` are those of
    the inputs, by path, as seen from where the finished clip will lie."""

    name: str
    options: Mapping[str, Any]
    part: str
    work: str
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with a result, stopped, or failed (why); `passing` where it was a fault of the
    machine that may be over when the job is tried again. `loaded` says whether a model was loaded for it."""

    state: Literal["done", "stopped", "failed"]
    result: Result | None = None
    why: str = ""
    loaded: bool = False
    passing: bool = False


@dataclass(frozen=True)
class Ready:
    """A worker takes tasks; `where` it runs, as host:pid."""

    slot: str
    where: str


@dataclass(frozen=True)
class Step:
    """A worker's task has done `step` of `steps` steps."""

    slot: str
    step: int
    steps: int


@dataclass(frozen=True)
class Ended:
    """A worker's task ended, and the worker takes the next one."""

    slot: str
    outcome: Outcome


@dataclass(frozen=True)
class Died:
    """A worker is gone, and with it its task if it had one. `for_good`: no other takes its place."""

    slot: str
    why: str
    for_good: bool = False


Event: TypeAlias = "Ready | Step | Ended | Died"
