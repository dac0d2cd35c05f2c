"""After which steps a run is kept, so that it can go on: where least is kept, and often enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .memory.windows import over_windows

if TYPE_CHECKING:
    from .run_plan import RunPlan

EVERY_S = 60.0  # the most seconds between two checkpoints
# What a write to an SSD that is waited for reaches, checksum included; each begins with some milliseconds.
ASSUMED_NBYTES_PER_S = 5e8
_FIXED_NBYTES = 5_000_000
_LATENTS = 3  # as many as the latents: they, and what a second-order scheduler keeps


@dataclass(frozen=True)
class CheckpointPlan:
    """The checkpoints of a run: after `steps`, the last of which is the end; `nbytes` are those of each of
    them, `run_s` the seconds of the run and `every_s` the most between two of them, unless a step takes
    longer."""

    steps: tuple[int, ...]
    nbytes: tuple[int, ...]
    every_s: float
    run_s: float

    @property
    def write_s(self) -> float:
        """The most seconds that writing takes beside the run, at an assumed rate: what did not change since
        the checkpoint before is not written again."""
        return (sum(self.nbytes) + _FIXED_NBYTES * len(self.steps)) / ASSUMED_NBYTES_PER_S

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**asdict(self), "write_s": self.write_s}

    def __str__(self) -> str:
        steps = ", ".join(map(str, self.steps))
        most, total = (n / 2**20 for n in (max(self.nbytes), sum(self.nbytes)))
        return (
            f"after step{'s' if len(self.steps) > 1 else ''} {steps} (at least every {self.every_s:g} s of "
            f"{self.run_s:.3g} s): {most:.1f} MiB at most, {total:.1f} MiB in all, written beside "
            f"the run in {self.write_s:.2g} s at most, at {ASSUMED_NBYTES_PER_S / 1e9:g} GB/s, assumed"
        )


def plan_checkpoints(
    plan: RunPlan, macs_per_s: float, every_s: float = EVERY_S, latents_nbytes: int | None = None
) -> CheckpointPlan:
    """The checkpoints of a planned run, on a device of so many MACs a second."""
    nbytes = nbytes_by_step(plan, latents_nbytes)
    seconds = [macs / macs_per_s for macs in macs_by_step(plan)]
    steps = checkpoint_steps(nbytes, seconds, every_s)
    return CheckpointPlan(steps, tuple(nbytes[i] for i in steps), every_s, sum(seconds))


def nbytes_by_step(plan: RunPlan, latents_nbytes: int | None = None) -> list[int]:
    """Bytes that are kept after every step: what later steps read of all windows' caches, wherever they
    lie, the latents and the scheduler's history. Where the latents are not told, they are as large as the
    prediction of all frames."""
    spent, windows = plan.spent, plan.windows
    if latents_nbytes is None:
        one = plan.graph.by_name[plan.graph.output].nbytes
        latents_nbytes = one * windows.num_frames // windows.plain[0].length
    caches = [
        sum(over_windows([step], windows, [moved]).values())
        for step, moved in zip(spent.kept, _moves(plan), strict=True)
    ]
    return [_LATENTS * latents_nbytes + cache for cache in caches[:-1]] + [latents_nbytes]


def macs_by_step(plan: RunPlan) -> list[int]:
    """MACs of every step, of all windows."""
    steps = zip(plan.spent.macs, _moves(plan), strict=True)
    return [sum(over_windows([step], plan.windows, [moved]).values()) for step, moved in steps]


def _moves(plan: RunPlan) -> Sequence[bool]:
    return plan.moves or (False,) * len(plan.spent.macs)


def checkpoint_steps(
    nbytes: Sequence[int], seconds: Sequence[float], every_s: float, since_s: float = 0.0
) -> tuple[int, ...]:
    """The steps after which a checkpoint is written: of all rows of steps that end with the last one and
    lie at most `every_s` apart, the one that writes least. `since_s` are the seconds since the last
    checkpoint, or the beginning, when the first step begins. A step that takes longer than that is
    followed by a checkpoint, and so is the one before it."""
    ends = [0.0]  # place 0 is the beginning, place i + 1 the end of step i
    for step_s in seconds:
        ends.append(ends[-1] + step_s)
    ends[0] = -since_s
    best, before = [0.0], [0]
    near: deque[int] = deque()  # places that may come before, what they write ascending
    for place in range(1, len(ends)):
        while near and best[near[-1]] >= best[place - 1]:
            near.pop()
        near.append(place - 1)
        while len(near) > 1 and ends[place] - ends[near[0]] > every_s:
            near.popleft()
        best.append(best[near[0]] + nbytes[place - 1] + _FIXED_NBYTES)
        before.append(near[0])
    chosen, place = [], len(nbytes)
    while place > 0:
        chosen.append(place - 1)
        place = before[place]
    return tuple(reversed(chosen))
