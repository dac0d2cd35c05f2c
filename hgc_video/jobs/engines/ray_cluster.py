"""The engine of a Ray cluster: an actor for each GPU, or for each machine where there are none.

The queue stays with the `batch` command; what a task reads travels to the actor and its clip comes back, so
that the machines share nothing but the package and the models.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import InputError, MissingExtraError, at_least, text_of
from ...files import state_of
from ..failures import failed_by
from ..task import Died, Ended, Event, Ready, Step, Task
from .base import MOST_DEATHS_IN_A_ROW
from .inputs import files_of, input_paths, read_carried
from .ray_actor import RayActor

_REACH_S = 10.0  # for the cluster to answer
_GROW_S = 20.0  # how often the cluster is asked whether machines have joined
_STEPS_S = 1.0  # how often actors are asked at which step they are
_MOST_CARRIED = 64  # inputs that stay in the cluster for the tasks to come
_THREADS = 3  # of an actor: one makes clips, the others answer meanwhile


class RayEngine:
    """Actors of a Ray cluster, one in each slot. Slots are numbered.

    Args:
        address: "auto" for the cluster of this machine, HOST:PORT, or ray://HOST:10001.
        workers: how many actors; None is one for each GPU, also of machines that join later.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(self, address: str = "auto", workers: int | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError(
                'the engine "ray" needs the extra cluster: pip install "hgc-video[cluster]"'
            ) from error
        if workers is not None:
            at_least("workers", workers, 1)
        self._ray: Any = ray
        self._address, self._wanted, self._on_gpu = address, workers, False
        self._actors: dict[str, Any] = {}
        self._tasks: dict[str, Task] = {}
        self._pending: dict[Any, tuple[str, Callable[[str, Any], Event | None]]] = {}
        self._deaths: dict[str, int] = {}
        self._carried: dict[Hashable, Any] = {}  # the most recently used last
        self._failed: list[Event] = []  # of tasks that no actor was given
        self._grown = self._asked = -_GROW_S

    def start(self) -> None:
        """Joins the cluster and starts the actors; InputError where there is no cluster."""
        try:
            _require_reachable(self._address)
            self._ray.init(
                address=self._address,
                log_to_driver=False,
                logging_level="WARNING",
                ignore_reinit_error=True,
            )
        except (OSError, RuntimeError, ValueError) as error:
            told = text_of(error)[:200]
            raise InputError(
                f'no Ray cluster at "{self._address}" ({told}); start one with: ray start --head'
            ) from error
        self._grow()

    def give(self, slot: str, task: Task) -> None:
        """Gives a task to an actor that is ready, with what it reads; where that cannot be read, the task
        has failed."""
        try:
            carried = self._carry_all(input_paths(task.options))
        except OSError as error:
            self._failed.append(Ended(slot, failed_by(error)))
            return
        self._tasks[slot] = task
        self._ask(slot, self._actors[slot].make.remote(task, carried), self._made)

    def stop(self, slot: str) -> None:
        """Asks an actor to stop its task after the step it is at."""
        if slot in self._actors and slot in self._tasks:
            self._actors[slot].stop.remote(self._tasks[slot].part)

    def events(self, timeout_s: float) -> list[Event]:
        """What the actors told, and which are gone."""
        self._grow()
        if self._failed:
            failed, self._failed = self._failed, []
            return failed
        if not self._pending:
            time.sleep(timeout_s)
            return []
        self._ray.wait(list(self._pending), num_returns=1, timeout=timeout_s)
        done, _ = self._ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        found = [event for reference in done if (event := self._event(reference)) is not None]
        self._ask_steps()
        return found

    def is_empty(self) -> bool:
        """Whether every slot was left empty."""
        return not self._actors

    def close(self) -> None:
        """Ends the actors and leaves the cluster."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        self._ray.shutdown()

    def _grow(self) -> None:
        """Starts actors for what the cluster has now."""
        if time.monotonic() - self._grown < _GROW_S:
            return
        self._grown = time.monotonic()
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        gpus = sum(int(node["Resources"].get("GPU", 0)) for node in nodes)
        self._on_gpu = self._on_gpu or gpus > 0
        for number in range(self._wanted or gpus or len(nodes)):
            slot = str(number)
            if slot not in self._deaths:
                self._deaths[slot] = 0
                self._start(slot)

    def _start(self, slot: str) -> None:
        """Starts an actor; it waits where the cluster has no room for it."""
        made = self._ray.remote(RayActor).options(
            num_cpus=0 if self._on_gpu else 1, num_gpus=1 if self._on_gpu else 0, max_restarts=0,
            max_task_retries=0, max_concurrency=_THREADS, scheduling_strategy="SPREAD",
        )  # fmt: skip
        self._actors[slot] = made.remote()
        self._ask(slot, self._actors[slot].ready.remote(), Ready)

    def _ask_steps(self) -> None:
        """Asks the actors at work where they are, once in a while."""
        if time.monotonic() - self._asked < _STEPS_S:
            return
        self._asked = time.monotonic()
        open_questions = {
            slot for slot, handle in self._pending.values() if handle == self._stepped
        }
        for slot in set(self._tasks) - open_questions:
            self._ask(slot, self._actors[slot].step.remote(), self._stepped)

    def _ask(self, slot: str, reference: Any, handle: Callable[[str, Any], Event | None]) -> None:
        self._pending[reference] = (slot, handle)

    def _event(self, reference: Any) -> Event | None:
        if reference not in self._pending:  # of an actor that died meanwhile
            return None
        slot, handle = self._pending.pop(reference)
        try:
            return handle(slot, self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            return self._died(slot, error)

    def _made(self, slot: str, told: Any) -> Event:
        outcome, clip = told
        part = Path(self._tasks.pop(slot).part)
        if outcome.state == "done":
            try:
                part.write_bytes(clip)
            except OSError as error:
                outcome = failed_by(error)
        self._deaths[slot] = 0
        return Ended(slot, outcome)

    def _stepped(self, slot: str, told: tuple[int, int]) -> Event | None:
        return Step(slot, *told) if slot in self._tasks and told[1] else None

    def _died(self, slot: str, error: Exception) -> Event:
        """An actor is gone, or cannot go on; another one takes its slot."""
        self._pending = {ref: one for ref, one in self._pending.items() if one[0] != slot}
        self._tasks.pop(slot, None)
        self._ray.kill(self._actors.pop(slot))
        self._deaths[slot] += 1
        for_good = self._deaths[slot] >= MOST_DEATHS_IN_A_ROW
        if not for_good:
            self._start(slot)
        return Died(slot, _how(error), for_good)

    def _carry_all(self, paths: list[str]) -> dict[str, Any]:
        """What lies at these paths; but for one that is gone meanwhile, which the worker finds missing."""
        carried = {}
        for path in paths:
            with suppress(FileNotFoundError):
                carried[path] = self._carry(Path(path))
        return carried

    def _carry(self, path: Path) -> Any:
        """A reference to what lies at a path, put into the object store once while it stays as it is.
        Of more than `_MOST_CARRIED` references the least recently used are dropped."""
        at = str(path), state_of(files_of(path))
        found = self._carried.pop(at, None) or self._ray.put(read_carried(path))
        self._carried[at] = found
        for oldest in list(self._carried)[:-_MOST_CARRIED]:
            del self._carried[oldest]
        return found


def _require_reachable(address: str) -> None:
    """OSError or ValueError where nobody listens at HOST:PORT, which Ray itself would try for minutes."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host, int(port)), timeout=_REACH_S).close()


def _how(error: Exception) -> str:
    """A death in a line: what Ray says first, without the ids."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    ids = ("class_name", "actor_id", "pid", "namespace", "ip")
    told = [line for line in lines if not line.startswith(ids)]
    return f"its actor is gone: {' '.join(told)[:200]}"
