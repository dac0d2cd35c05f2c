"""How a clip is cut so that it fits a memory budget: which frames, positions and windows go together.

Pure numbers. What each cut would take at its peak is told by whoever can measure it without running it
(models/peak.py); here the cheapest cut that fits is chosen, or refused with what would do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from ..errors import InputError

GIB = 2**30
_MARGIN = 0.04  # of the budget, for what an allocator rounds up


@dataclass(frozen=True)
class Chunks:
    """Rows that go together: `frames` of per-frame layers (guidance branches count apart), `positions`
    of the motion modules' transformers, `decode` frames of the VAE; 0 is all of them. `spill` sends
    the caches of idle windows to host memory."""

    frames: int = 0
    positions: int = 0
    decode: int = 16
    spill: bool = False

    def __str__(self) -> str:
        cut = f"layers in {self.frames} frames and {self.positions} positions"
        spill = ", idle windows' caches in host memory" if self.spill else ""
        return (
            f"{cut if self.split else 'whole layers'}, {self.decode} frames decoded at once{spill}"
        )

    @property
    def split(self) -> bool:
        """Whether layers are split."""
        return bool(self.frames or self.positions)


@dataclass(frozen=True)
class Peak:
    """Predicted bytes at the peak of each stage, weights and everything kept included."""

    denoise: int
    decode: int
    spilled: int = 0  # bytes in host memory beside it

    @property
    def nbytes(self) -> int:
        """The higher of them."""
        return max(self.denoise, self.decode)


@dataclass(frozen=True)
class ChunkPlan:
    """The cut that was chosen: `level` 1 leaves layers whole, 2 splits them (the same result); `context`
    is the length of the windows, which a clip longer than the motion modules needs in any case."""

    level: int
    context: int
    chunks: Chunks
    peak: Peak
    budget: int | None

    def __str__(self) -> str:
        fits = "" if self.budget is None else f" of {self.budget / GIB:.2f} GiB"
        spill = f"; {self.peak.spilled / GIB:.2f} GiB in host memory" if self.peak.spilled else ""
        return (
            f"level {self.level}: windows of {self.context} frames, {self.chunks}; predicted peak "
            f"{self.peak.nbytes / GIB:.2f} GiB{fits} (denoise {self.peak.denoise / GIB:.2f}, "
            f"decode {self.peak.decode / GIB:.2f}){spill}"
        )


class Predict(Protocol):
    """Tells what a cut would take, without running it."""

    def denoise(self, context: int, chunks: Chunks) -> tuple[int, int]:
        """Bytes at the peak of the denoising loop, and beside it in host memory."""

    def decode(self, num_frames: int) -> int:
        """Bytes at the peak of decoding so many frames at once."""


def _splits(num_positions: int) -> tuple[Chunks, ...]:
    """From nothing split to a few frames. A spill costs copies and a split launches, neither costs MACs,
    so the coarsest that fits wins."""
    half, few = max(1, num_positions // 2), max(1, num_positions // 8)
    return (
        Chunks(), Chunks(spill=True), Chunks(8, half), Chunks(8, half, spill=True),
        Chunks(2, few, spill=True),
    )  # fmt: skip


_DECODED = (16, 8, 4, 2, 1)


def choose_chunks(
    predict: Predict, *, num_frames: int, max_frames: int, num_positions: int,
    budget: int | None = None, context: int | None = None, decoded: int = 16,
) -> ChunkPlan:  # fmt: skip
    """The cheapest cut whose predicted peak fits `budget` bytes (None: whatever it takes).

    `num_positions` are the positions of the outermost motion module, of both branches. The result is
    the same for all splits. Windows shorter than the model's `max_frames` change it and
    are taken last, never below half of that, and not at all where `context` tells the length. `decoded`
    frames are decoded at once, fewer where that does not fit.

    Raises:
        InputError: nothing fits; the message names the smallest budget that would do.
    """
    limit = float("inf") if budget is None else budget * (1 - _MARGIN)
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
        for chunks in _splits(num_positions):
            denoise, spilled = predict.denoise(length, chunks)
            peak = Peak(denoise, decode, spilled)
            if peak.nbytes <= limit:
                chosen = replace(chunks, decode=frames)
                return ChunkPlan(2 if chunks.split else 1, length, chosen, peak, budget)
            smallest = min(smallest or peak.nbytes, peak.nbytes)
    assert budget is not None
    needed = smallest / (1 - _MARGIN)
    raise InputError(
        f"memory={budget / GIB:.2f}GiB is too little: the smallest cut of this clip takes "
        f"{needed / GIB:.2f}GiB; give at least that, or a smaller size"
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
