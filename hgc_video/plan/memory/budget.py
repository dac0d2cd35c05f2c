"""How a run is split so that it fits a memory budget: which frames, positions and windows go together.

Pure numbers. What each memory plan takes at its peak is predicted by sampling/predict_peak.py; here the
cheapest that fits is chosen, or refused with what would do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from typing import Any, Protocol

from ...errors import InputError
from ..explain import tera
from .placement import DEVICE, HOST, RECOMPUTE, RunCost
from .throughput import Throughput

GIB = 2**30
_MARGIN = 0.04  # of the budget, for what an allocator rounds up


_IDLE = {
    DEVICE: "",
    HOST: ", idle windows' caches in host memory",
    RECOMPUTE: ", nothing kept for idle windows: every step computes in full",
}


@dataclass(frozen=True)
class Chunks:
    """Rows that go together: `frames` of per-frame layers (guidance branches count apart), `positions`
    of the motion modules' transformers, `decode` frames of the VAE; 0 is all of them. `idle` is where
    the caches of idle windows live: "device", "host" or "recompute", which keeps none."""

    frames: int = 0
    positions: int = 0
    decode: int = 16
    idle: str = DEVICE

    def __str__(self) -> str:
        split = f"layers in {self.frames} frames and {self.positions} positions"
        return (
            f"{split if self.split else 'whole layers'}, {self.decode} frames decoded at once"
            f"{_IDLE[self.idle]}"
        )

    @property
    def spill(self) -> bool:
        """Whether idle windows' caches wait in host memory."""
        return self.idle == HOST

    @property
    def split(self) -> bool:
        """Whether layers are split."""
        return bool(self.frames or self.positions)


@dataclass(frozen=True)
class Peak:
    """Predicted bytes at the peak of each stage, weights and everything kept included."""

    denoise: int
    decode: int
    spilled: int = 0  # bytes in host memory

    @property
    def nbytes(self) -> int:
        """The higher of them."""
        return max(self.denoise, self.decode)


@dataclass(frozen=True)
class MemoryPlan:
    """The memory plan that was chosen: `level` 1 leaves layers whole, 2 splits them (the same result);
    `context` is the length of the windows, which a clip longer than the motion modules needs in any
    case; `works` what the run does for every place where idle caches could live, priced at `rates`."""

    level: int
    context: int
    chunks: Chunks
    peak: Peak
    budget: int | None
    works: Mapping[str, RunCost] = field(default_factory=dict)
    rates: Throughput | None = None

    def __str__(self) -> str:
        fits = "" if self.budget is None else f" of {self.budget / GIB:.2f} GiB"
        spill = f"; {self.peak.spilled / GIB:.2f} GiB in host memory" if self.peak.spilled else ""
        return (
            f"level {self.level}: windows of {self.context} frames, {self.chunks}; predicted peak "
            f"{self.peak.nbytes / GIB:.2f} GiB{fits} (denoise {self.peak.denoise / GIB:.2f}, "
            f"decode {self.peak.decode / GIB:.2f}){spill}"
        )

    @property
    def work(self) -> RunCost:
        """The MACs and copies of the run; none where nothing was predicted."""
        return self.works.get(self.chunks.idle, RunCost())

    @property
    def recomputed_macs(self) -> int:
        """MACs that dropping idle caches adds, whether it is done or not."""
        if RECOMPUTE not in self.works:
            return 0
        return self.works[RECOMPUTE].macs - self.works[DEVICE].macs

    def explain(self) -> tuple[str, ...]:
        """Lines on what the windows' overlap and the idle caches' place cost, and what else they would."""
        if self.rates is None or not self.work.macs:
            return ()
        work, rates = self.work, self.rates
        share = 100 * work.macs_overlap / work.macs
        lines = [
            f"{tera(work.macs)} T MACs, {work.compute_s(rates):.3g} s; {tera(work.macs_overlap)} T of "
            f"them ({share:.1f} %) for frames that windows share"
        ]
        if HOST in self.works:
            lines += [f"idle caches in host memory: {self._copies()}"]
        if RECOMPUTE in self.works:
            seconds = self.recomputed_macs / rates.macs_per_s
            lines += [
                f"idle caches recomputed: {tera(self.recomputed_macs)} T MACs more, {seconds:.3g} s"
            ]
        return (*lines, f"rates: {rates}; chosen: {self.chunks.idle}")

    def to_dict(self) -> dict[str, Any]:
        """The place of idle caches and what it costs as plain numbers; nothing where none was planned."""
        if self.rates is None:
            return {}
        return {
            "idle_caches": self.chunks.idle,
            "predicted_host_nbytes": self.peak.spilled,
            "works": {place: asdict(work) for place, work in self.works.items()},
            "rates": asdict(self.rates),
        }

    def _copies(self) -> str:
        work = self.works[HOST]
        assert self.rates is not None
        return (
            f"{work.to_host / GIB:.2f} GiB copied there and {work.to_device / GIB:.2f} GiB back, "
            f"{work.copy_s(self.rates):.3g} s at most"
        )


class Predict(Protocol):
    """Predicts what a memory plan takes, without running it."""

    def denoise(self, context: int, chunks: Chunks) -> tuple[int, int]:
        """Bytes at the peak of the denoising loop, and in host memory."""

    def decode(self, num_frames: int) -> int:
        """Bytes at the peak of decoding so many frames at once."""

    def works(self, context: int) -> Mapping[str, RunCost]:
        """What the run does, for every place where idle windows' caches could live."""


def _splits(num_positions: int) -> tuple[Chunks, ...]:
    """From nothing split to a few frames. A split costs launches and no MACs."""
    half, few = max(1, num_positions // 2), max(1, num_positions // 8)
    return Chunks(), Chunks(8, half), Chunks(2, few)


def _memory_plans(
    num_positions: int, works: Mapping[str, RunCost], rates: Throughput
) -> Iterator[Chunks]:
    """All memory plans of one window length, those that cost least first. A split costs launches only and
    copies run beside the compute, so the coarsest split on the device or with copies comes first; computing
    again comes after all splits, and before copies where even those cost more."""
    away = sorted((p for p in works if p != DEVICE), key=lambda p: works[p].seconds(rates))
    cheap = [DEVICE, HOST] if away[:1] == [HOST] else [DEVICE]
    splits = _splits(num_positions)
    for split in splits:
        yield from (replace(split, idle=place) for place in cheap)
    for place in away:
        if place not in cheap:
            yield from (replace(split, idle=place) for split in splits)


_DECODED = (16, 8, 4, 2, 1)


def choose_memory_plan(
    predict: Predict, *, num_frames: int, max_frames: int, num_positions: int, rates: Throughput,
    budget: int | None = None, host_budget: int | None = None, context: int | None = None,
    decoded: int = 16, denoise_budget: int | None = None,
) -> MemoryPlan:  # fmt: skip
    """The cheapest memory plan whose predicted peak fits `budget` bytes (None: whatever it takes).

    `num_positions` are the positions of the outermost motion module, of both branches; `rates` weigh
    copies to host memory, of which `host_budget` bytes are there, against computing again. The result
    is the same for all splits and for host memory. Windows shorter than the model's `max_frames` change
    it and are taken last, never below half of that, and not at all where `context` tells the length.
    `decoded` frames are decoded at once, fewer where that does not fit. `denoise_budget` is for the denoising
    loop alone, where it is known to be less than for the rest.

    Raises:
        InputError: nothing fits; the message names the smallest budget that would do.
    """
    limit = float("inf") if budget is None else budget * (1 - _MARGIN)
    denoise_limit = limit if denoise_budget is None else min(limit, denoise_budget * (1 - _MARGIN))
    host_limit = float("inf") if host_budget is None else host_budget
    longest = min(num_frames, max_frames)
    contexts = [context or longest]
    if context is None and longest == max_frames:
        contexts += [length for length in (3 * longest // 4, longest // 2) if length >= 4]
    for frames in (decoded, *(few for few in _DECODED if few < decoded)):
        decode = predict.decode(frames)
        if decode <= limit:
            break
    smallest = 0
    for length in contexts:
        works = predict.works(length)
        for chunks in _memory_plans(num_positions, works, rates):
            denoise, spilled = predict.denoise(length, chunks)
            peak = Peak(denoise, decode, spilled)
            if spilled > host_limit:
                continue
            if peak.nbytes <= limit and denoise <= denoise_limit:
                chosen = replace(chunks, decode=frames)
                level = 2 if chunks.split else 1
                return MemoryPlan(level, length, chosen, peak, budget, works, rates)
            smallest = min(smallest or peak.nbytes, peak.nbytes)
    budget = budget or denoise_budget
    assert budget is not None
    needed = ceil(100 * smallest / (1 - _MARGIN) / GIB) / 100  # rounded up: this budget is enough
    raise InputError(
        f"memory={budget / GIB:.2f}GiB is too little: the smallest memory plan of this clip takes "
        f"{needed:.2f}GiB; give at least that, or a smaller size"
    )


_UNITS = {
    "": 1,
    "B": 1,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": GIB,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}


def parse_nbytes(text: str | int) -> int:
    """Bytes of "8GiB", "512MiB", "6GB" or a number; InputError names the units."""
    number, unit = str(text).strip(), ""
    for name in sorted(_UNITS, key=len, reverse=True):
        if name and number.upper().endswith(name):
            number, unit = number[: -len(name)].strip(), name
            break
    try:
        nbytes = int(float(number) * _UNITS[unit])
    except (ValueError, OverflowError):
        nbytes = 0
    if nbytes <= 0:
        raise InputError(
            f'memory "{text}" is no amount; write 8GiB, 512MiB, 6GB or a number of bytes'
        )
    return nbytes
