"""A batch: the folder of its queue and results, its jobs, and the engine that makes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError, at_least, warn
from ..files import user_path
from .add_jobs import Added, add_jobs, require_free
from .drive import Drive, Observer, Stop
from .engines.base import Engine
from .job_list import JobList, read_jobs
from .left_work import OWN
from .passing_faults import WAIT_S
from .queue import Queue
from .queue_table import has_table

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class EngineChoice:
    """Which engine, and how many workers (None: one for each device, or for each machine without a GPU).

    `devices` are for `local`; `address` and `storage` for `ray`: the cluster, and a folder or an fsspec URL
    that all its machines reach, where runs leave what resumes them. `wait_s`: see `Drive`.

    Raises:
        InputError: an unknown engine, a number of workers or seconds that is not possible.
    """

    name: str = "local"
    workers: int | None = None
    devices: tuple[str, ...] = ()
    address: str = "auto"
    storage: str | None = None
    wait_s: int = WAIT_S

    def __post_init__(self) -> None:
        at_least("wait_s", self.wait_s, 0)
        if self.workers is not None:
            at_least("workers", self.workers, 1)
        if self.name not in ENGINES:
            raise InputError(f'unknown engine "{self.name}"; take {" or ".join(ENGINES)}')

    def make(self, folder: Path) -> Engine:
        """The engine; MissingExtraError without its extra."""
        if self.name == "local":
            from .engines.local import LocalEngine, local_devices  # loads torch

            return LocalEngine(local_devices(self.workers, self.devices), folder / "logs")
        from .engines.ray_cluster import RayEngine

        return RayEngine(self.address, self.workers)

    def work(self, folder: Path) -> str:
        """Where runs leave what resumes them: as told; on one machine the batch folder."""
        if self.storage is not None:
            return (
                self.storage if "://" in self.storage else str(user_path(self.storage).absolute())
            )
        return str(folder.absolute() / OWN) if self.name == "local" else ""


def listed_jobs(
    source: Path, *, seeds: int | None, matrix: dict[str, list[Any]], pattern: str | None,
    allow_outside: bool,
) -> JobList:  # fmt: skip
    """The jobs of a source with what the command line says of their variants."""
    listed = read_jobs(source, allow_outside=allow_outside)
    unused = [shot for shot in listed.shots if shot.options.get("out") is not None]
    if unused:
        names = ", ".join(shot.name for shot in unused[:3]) + (", ..." if unused[3:] else "")
        warn(
            f'"out" is not used ({names}): results of a batch are named by a pattern, see --name',
            stacklevel=2,
        )
    return replace(
        listed,
        seeds=listed.seeds if seeds is None else seeds,
        matrix={**listed.matrix, **matrix},
        pattern=pattern or listed.pattern,
    )


def add_to(folder: Path, listed: JobList) -> Added:
    """Puts jobs into the queue of a folder."""
    jobs = list(listed.jobs())
    if not has_table(folder):  # nothing is made in a folder of somebody else's
        for job in jobs:
            require_free(folder, job)
    queue = Queue(folder)
    try:
        return add_jobs(queue, jobs)
    finally:
        queue.close()


def work_off(folder: Path, choice: EngineChoice, tell: Observer, stop: Stop) -> None:
    """Makes the jobs of a folder's queue until none is left that can be claimed."""
    queue = Queue(folder)
    try:
        engine, storage = choice.make(folder), choice.work(folder)
        Drive(queue, engine, tell, storage=storage, wait_s=choice.wait_s).run(stop)
    finally:
        queue.close()
