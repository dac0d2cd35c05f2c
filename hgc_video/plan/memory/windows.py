"""Overlapping windows of frames for clips longer than the motion modules hold, and how they blend.

Pure numbers. Every window has the same length, so that one graph and one schedule serve them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from ...errors import InputError
from ..cost import PARTS, Cost
from ..graph import PREDICTION, BlockGraph
from ..liveness import kept
from ..policies.lossless import once_per_run
from ..schedule import Plan


@dataclass(frozen=True)
class Window:
    """Frames start .. start + length; `window_id` names its cache; on `fresh` of them, the last ones,
    the ControlNet runs: those that are in no window before it, or all of them where windows are `apart`."""

    window_id: int
    start: int
    length: int
    fresh: int

    @property
    def frames(self) -> slice:
        """All frames of the window."""
        return slice(self.start, self.start + self.length)

    @property
    def fresh_frames(self) -> slice:
        """The frames that come up first in this window."""
        return slice(self.start + self.length - self.fresh, self.start + self.length)


@dataclass(frozen=True)
class Windows:
    """A clip of `num_frames` in windows of `length` frames, neighbours sharing at least `overlap`.

    A scene begins at each of `cuts`; no window reaches across one, so that no scene is shorter than a window.
    Where they are `apart`, the ControlNet runs on all frames of every window, also on those of the window
    before.
    """

    num_frames: int
    length: int
    overlap: int = 0
    cuts: tuple[int, ...] = ()
    apart: bool = False

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.length < 1:
            raise InputError(
                f"{self.num_frames} frames in windows of {self.length} are not possible"
            )
        if self.num_frames > self.length and not 0 <= self.overlap < self.length:
            raise InputError(
                f"context_overlap={self.overlap} is not possible with context_length={self.length}; "
                f"give 0 to {self.length - 1}"
            )

        scenes = (*self.cuts, self.num_frames)
        if self.cuts and min(b - a for a, b in pairwise((0, *scenes))) < self.length:
            raise InputError(
                f"windows of {self.length} frames are not possible with scenes that begin at "
                f"{', '.join(map(str, self.cuts))} of {self.num_frames} frames; give shorter ones"
            )

    @cached_property
    def plain(self) -> tuple[Window, ...]:
        """The windows, in order."""
        return self._made(self._starts(0), 0)

    @cached_property
    def shifted(self) -> tuple[Window, ...]:
        """The windows moved by half a stride, so that seams do not stand still."""
        stride = self.length - self.overlap
        return self._made(self._starts(stride // 2), len(self.plain))

    def at(self, shifted: bool) -> tuple[Window, ...]:
        """The windows of a step."""
        return self.shifted if shifted else self.plain

    def under(self, plan: Plan) -> Windows:
        """The same, apart where the plan decides for every window by itself at run time: one window may then
        compute what the window before it, with which it shares frames, has left out."""
        return replace(self, apart=plan.decides_apart)

    def controlnet_frames(self, shifted: bool = False) -> int:
        """On how many frames the ControlNet runs at a step; each one counts as often as it does."""
        return sum(window.fresh for window in self.at(shifted))

    def weights(self, windows: Sequence[Window]) -> tuple[tuple[float, ...], ...]:
        """Per window the weight of each of its frames, the middle of a window most (as diffusers' FreeNoise
        has it); over all windows they sum to 1 for every frame."""
        raw = [_pyramid(window.length) for window in windows]
        totals = [0.0] * self.num_frames
        for window, weights in zip(windows, raw, strict=True):
            for k, weight in enumerate(weights):
                totals[window.start + k] += weight
        return tuple(
            tuple(weight / totals[window.start + k] for k, weight in enumerate(weights))
            for window, weights in zip(windows, raw, strict=True)
        )

    def weights_by_id(self, shifted: bool) -> dict[int, tuple[float, ...]]:
        """The weights of a step's windows, by window_id."""
        windows = self.at(shifted)
        ids = [window.window_id for window in windows]
        return dict(zip(ids, self.weights(windows), strict=True))

    def _starts(self, offset: int) -> list[int]:
        stride = self.length - self.overlap
        starts = set()
        for first, stop in pairwise((0, *self.cuts, self.num_frames)):
            last = max(first, stop - self.length)
            starts |= {first, *range(first + offset, last, stride), last}
        return sorted(starts)

    def _made(self, starts: list[int], first_id: int) -> tuple[Window, ...]:
        length, done, windows = min(self.length, self.num_frames), 0, []
        for k, start in enumerate(starts):
            fresh = length if self.apart else start + length - done
            windows.append(Window(first_id + k, start, length, fresh))
            done = start + length
        return tuple(windows)


def _pyramid(length: int) -> list[float]:
    return [float(min(k + 1, length - k)) for k in range(length)]


def shifts(plan: Plan, graph: BlockGraph) -> tuple[bool, ...]:
    """For every step whether its windows are the shifted ones, so that seams do not stand still.

    Windows move only where nothing is held for the windows before, but what is the same for the whole
    run, which is made anew for a window that has none yet. Where nothing is cached they move at every step.
    """
    once, moved, shifted = once_per_run(graph), False, []
    held: set[str] = {PREDICTION}
    for keep in kept(graph, plan):
        if not held:
            moved = not moved
        shifted.append(moved)
        held = set(keep) - once
    return tuple(shifted)


def padded(moves: tuple[bool, ...], num_steps: int) -> tuple[bool, ...]:
    """The same moves for a run of another number of steps; further steps have the plain windows."""
    return (moves + (False,) * num_steps)[:num_steps]


def windowed(spent: Cost, windows: Windows, moves: Sequence[bool] = ()) -> dict[str, int]:
    """MACs by part of a run whose windows each cost `spent`; the ControlNet runs once per frame,
    or more often where windows are apart."""
    return over_windows(spent.macs, windows, moves)


def over_windows(
    steps: Sequence[Mapping[str, int]], windows: Windows, moves: Sequence[bool] = ()
) -> dict[str, int]:
    """Sums by part over the steps of all windows, each given for one; what the ControlNet makes is made
    once per frame, unless windows are apart."""
    totals = dict.fromkeys(PARTS, 0)
    length = windows.plain[0].length
    for i, step in enumerate(steps):
        shifted = bool(moves) and moves[i]
        totals["unet"] += step["unet"] * len(windows.at(shifted))
        totals["controlnet"] += step["controlnet"] * windows.controlnet_frames(shifted) // length
    return totals
