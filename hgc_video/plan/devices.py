"""One clip over several devices: which process computes which windows, and what the processes exchange.

Pure numbers. Every process has neighbouring windows, the same ones at every step, so that what is kept for a
window stays where it is. What a step predicts for frames that another process reads goes there once a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .memory.throughput import Throughput
from .memory.windows import Window, Windows

if TYPE_CHECKING:
    from .run_plan import RunPlan


@dataclass(frozen=True)
class DeviceSplit:
    """The windows of a clip over `size` processes. `moves` says per step whether the windows are the shifted
    ones; with `whole` process 0 has the latents of all frames at every step, not of its own alone.

    Raises:
        InputError: there are fewer windows than processes.
    """

    windows: Windows
    size: int
    moves: tuple[bool, ...] = ()
    whole: bool = False

    def __post_init__(self) -> None:
        count = len(self.windows.plain)
        if not 1 <= self.size <= count:
            told = f"{count} windows; give 1 to {count}" if count > 1 else "one window; give 1"
            raise InputError(
                f"devices={self.size} is not possible, as the clip is made in {told}, more frames, or "
                "shorter windows (context_length)"
            )

    def of(self, rank: int, shifted: bool) -> tuple[Window, ...]:
        """The windows of a process; all frames of the first one are fresh, as the ControlNet's residuals of
        the window before are in another process."""
        windows = self.windows.at(shifted)
        count = len(windows)
        first, *rest = windows[rank * count // self.size : (rank + 1) * count // self.size]
        return (replace(first, fresh=first.length), *rest)

    def covered(self, rank: int, shifted: bool) -> range:
        """The frames of a process's windows."""
        windows = self.of(rank, shifted)
        return range(windows[0].start, windows[-1].start + windows[-1].length)

    def held(self, rank: int) -> range:
        """The frames whose latents a process has at every step: those that its windows read at any."""
        if self.whole and rank == 0:
            return range(self.windows.num_frames)
        ways = [self.covered(rank, shifted) for shifted in {False, *self.moves}]
        return range(min(way.start for way in ways), max(way.stop for way in ways))

    def sent(self, source: int, target: int, shifted: bool) -> range:
        """The frames whose weighted predictions process `source` sends to `target` after a step; may be
        empty."""
        ours, theirs = self.covered(source, shifted), self.held(target)
        start = max(ours.start, theirs.start)
        return range(start, max(start, min(ours.stop, theirs.stop)))

    def last(self, rank: int) -> range:
        """The frames whose final latents a process gives to process 0: over all processes each frame once."""
        starts = [self.covered(rank, False).start for rank in range(self.size)]
        return range(starts[rank], [*starts, self.windows.num_frames][rank + 1])

    def frames_moved(self, rank: int, shifted: bool) -> tuple[int, int]:
        """How many frames' predictions a process sends at a step, and how many it receives."""
        others = [other for other in range(self.size) if other != rank]
        return (
            sum(len(self.sent(rank, other, shifted)) for other in others),
            sum(len(self.sent(other, rank, shifted)) for other in others),
        )

    def frames_gathered(self) -> int:
        """How many frames' final latents process 0 receives."""
        return 0 if self.whole else sum(len(self.last(rank)) for rank in range(1, self.size))

    def frames_again(self, shifted: bool) -> int:
        """On how many frames the ControlNet runs in more than one process."""
        fresh = sum(w.fresh for rank in range(self.size) for w in self.of(rank, shifted))
        return fresh - self.windows.controlnet_frames(shifted)


@dataclass(frozen=True)
class DevicePlan:
    """What a run takes over `size` devices: how many `windows` each has; bytes exchanged at every step and,
    at the end, gathered; MACs of the ControlNet on frames that two processes share; seconds of the exchange,
    of the busiest device in all, and of one device that does the whole run alone."""

    size: int
    windows: tuple[int, ...]
    exchanged_nbytes: tuple[int, ...]
    gathered_nbytes: int
    again_macs: int
    exchange_s: float
    busiest_s: float
    one_device_s: float
    rates: str

    @property
    def nbytes(self) -> int:
        """All bytes that go from one process to another."""
        return sum(self.exchanged_nbytes) + self.gathered_nbytes

    @property
    def speedup(self) -> float:
        """How many times as fast as one device denoising is."""
        return self.one_device_s / self.busiest_s

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**asdict(self), "nbytes": self.nbytes, "speedup": self.speedup}

    def __str__(self) -> str:
        counts = ", ".join(map(str, self.windows))
        return (
            f"{self.size}, with {counts} windows: at most {_mebi(max(self.exchanged_nbytes))} exchanged a "
            f"step, {_mebi(self.nbytes)} in all, {self.exchange_s:.2g} s of {self.busiest_s:.3g} s; one "
            f"device takes {self.one_device_s:.3g} s ({self.speedup:.2f} times as long), at {self.rates}"
        )


class _Costs:
    """What the steps of a planned run cost each of the processes of a split."""

    def __init__(self, plan: RunPlan, split: DeviceSplit) -> None:
        self._plan, self._split = plan, split
        self.length = plan.windows.plain[0].length

    @cached_property
    def moves(self) -> Sequence[bool]:
        """Per step whether the windows are the shifted ones."""
        return self._plan.moves or (False,) * len(self._plan.spent.macs)

    @cached_property
    def frame_nbytes(self) -> int:
        """Bytes of one frame's guided prediction."""
        graph = self._plan.graph
        return graph.by_name[graph.output].nbytes // self.length

    def macs(self, rank: int) -> int:
        """MACs of one process."""
        total = 0
        for step, moved in zip(self._plan.spent.macs, self.moves, strict=True):
            windows = self._split.of(rank, moved)
            fresh = sum(window.fresh for window in windows)
            total += step["unet"] * len(windows) + step["controlnet"] * fresh // self.length
        return total

    def again(self) -> int:
        """MACs of the ControlNet that no single process would execute."""
        steps = zip(self._plan.spent.macs, self.moves, strict=True)
        return sum(
            step["controlnet"] * self._split.frames_again(moved) // self.length
            for step, moved in steps
        )

    def exchanged(self) -> tuple[int, ...]:
        """Bytes that all processes send at every step."""
        ranks = range(self._split.size)
        sent = [
            sum(self._split.frames_moved(rank, moved)[0] for rank in ranks) for moved in self.moves
        ]
        return tuple(frames * self.frame_nbytes for frames in sent)

    def exchange_nbytes(self, rank: int) -> int:
        """Bytes that one process sends and receives in the whole run."""
        return sum(sum(self._split.frames_moved(rank, moved)) for moved in self.moves) * (
            self.frame_nbytes
        )


def plan_devices(plan: RunPlan, size: int, rates: Throughput, *, whole: bool = False) -> DevicePlan:
    """What a planned run takes over `size` devices of these rates, which exchange over the bus.

    Raises:
        InputError: there are fewer windows than devices.
    """
    split = DeviceSplit(plan.windows, size, plan.moves, whole)
    costs, ranks = _Costs(plan, split), range(size)
    gathered = split.frames_gathered() * costs.frame_nbytes
    most = max(costs.exchange_nbytes(rank) for rank in ranks) + gathered
    exchange_s = most / rates.bus_nbytes_per_s
    alone = sum(plan.macs_by_part.values()) / rates.macs_per_s
    return DevicePlan(
        size, tuple(len(split.of(rank, False)) for rank in ranks), costs.exchanged(), gathered,
        costs.again(), exchange_s, max(map(costs.macs, ranks)) / rates.macs_per_s + exchange_s, alone,
        str(rates),
    )  # fmt: skip


def _mebi(nbytes: int) -> str:
    return f"{nbytes / 2**20:.3g} MiB"
