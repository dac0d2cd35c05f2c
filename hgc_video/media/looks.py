"""Whether a control clip looks like what it is given as; one line with the remedy where it does not.

Rough measures of a few frames, so most doubts are warnings. Refused, unless forced, is only what would surely
make a worthless clip: frames that are all black, a raw film as skeletons, a depth clip with the far side
bright beyond doubt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hgc_video.errors import InputError, warn
from hgc_video.media.frames import Frame

Look: TypeAlias = Literal["black", "skeleton", "grey", "coloured"]

_BLACK = 16  # of 255: the noise of a codec stays below
_DARK, _BRIGHT = 32, 64
_GROUND = 0.75  # of a skeleton frame is black; drawn 8 wide at 512 a person covers a tenth at most
_GREY = 24  # between the channels of a grey clip, after a codec
_DIM = 64  # a depth clip whose nearest pixel is darker uses a quarter of its range
_INVERTED = 40  # levels that the top is brighter than the middle below: floors and people are near
_SURELY_INVERTED = 100

_RAW = "looks like a raw film"


def look_of(frames: Frame) -> Look:
    """What frames (f H W 3) look like."""
    most, spread = frames.max(-1), np.ptp(frames, -1)
    bright = most >= _BRIGHT
    if most.max() < _BLACK:
        return "black"
    saturated = bright.any() and np.median(spread[bright] / most[bright]) >= 0.5
    if saturated and (most < _DARK).mean() >= _GROUND:
        return "skeleton"
    return "grey" if np.quantile(spread, 0.99) < _GREY else "coloured"


SOURCE = "video"  # the kind of a clip that is restyled, which may look like anything


@dataclass(frozen=True)
class _Doubt:
    """What speaks against a clip, with the remedy; `sure` where it would make a worthless clip."""

    says: str
    sure: bool = False


def tell_of_looks(
    frames: Frame, kind: str, name: str, *, whole: Iterable[Frame] = (), force: bool = False,
    turned: bool = False,
) -> None:  # fmt: skip
    """Warns where frames (f H W 3), without padding, do not look like a control of this kind.

    `whole` are all frames of the clip, which are read only where those looked at are black; `turned` says
    that a depth clip was turned round.

    Raises:
        InputError: the clip would surely be worthless, and `force` is not set.
    """
    doubt = None if kind == SOURCE else _doubt(frames, kind, whole, turned)
    if doubt is None:
        return
    told = f"{name}, given as {kind}, {doubt.says}"
    if doubt.sure and not force:
        raise InputError(f"{told}; force=True (--force) goes on all the same")
    warn(told, stacklevel=2)


def _doubt(frames: Frame, kind: str, whole: Iterable[Frame], turned: bool) -> _Doubt | None:
    look = look_of(frames)
    if look == "black":
        sure = all(frame.max() < _BLACK for frame in whole)
        every = "every frame" if sure else "every frame looked at"
        return _Doubt(f"is black in {every}, so it steers nothing; check the clip", sure)
    if kind == "pose":
        return _of_pose(look)
    return _of_depth(look, frames, turned) if kind == "depth" else _of_lines(look, frames, kind)


def _of_pose(look: Look) -> _Doubt | None:
    if look == "grey":
        return _Doubt("has no colours, as a depth clip; give it as depth (--depth)")
    if look == "coloured":
        return _Doubt(
            f"{_RAW}; take the skeletons from it with extract=True (--extract)", sure=True
        )
    return None


def _of_depth(look: Look, frames: Frame, turned: bool) -> _Doubt | None:
    if look == "skeleton":
        return _Doubt("looks like a pose clip; give it as pose (--pose)")
    if look == "coloured":
        return _Doubt(
            "has colours; a depth clip is grey, near is bright: save a coloured one in grey, and of a raw "
            "film make one first, with a depth estimator"
        )
    grey: NDArray[np.uint8] = frames.max(-1)
    brightest = int(np.quantile(grey, 0.999))
    if brightest < _DIM:
        return _Doubt(f"is at most {brightest} of 255 bright; scale it so that near is about 255")
    by = inversion(frames)
    if by > _INVERTED:
        how = "turn it round with invert_depth=True (--invert-depth)"
        if turned:
            how = "leave invert_depth (--invert-depth) out"
        return _Doubt(f"looks inverted, near is dark; {how}", sure=by > _SURELY_INVERTED)
    return None


def inversion(frames: Frame) -> float:
    """How much brighter the upper part of depth frames (f H W 3) is than the lower, of 255; more than a few
    say that near is dark."""
    grey: NDArray[np.uint8] = frames.max(-1)
    return _top(grey) - _below(grey)


def looks_inverted(frames: Frame) -> bool:
    """Whether near is dark in depth frames (f H W 3)."""
    return inversion(frames) > _INVERTED


def _of_lines(look: Look, frames: Frame, kind: str) -> _Doubt | None:
    if look != "grey":
        what = "looks like a pose clip" if look == "skeleton" else _RAW
        return _Doubt(f"{what}; a {kind} clip is white lines on black")
    if frames.mean() > 128:
        return _Doubt(f"is dark on bright; a {kind} clip is white lines on black: invert it")
    return None


def _top(grey: NDArray[np.uint8]) -> float:
    return float(grey[:, : max(1, grey.shape[1] // 5)].mean())


def _below(grey: NDArray[np.uint8]) -> float:
    """Brightness of the middle of the lower half."""
    _, height, width = grey.shape
    return float(grey[:, height // 2 :, width // 4 : max(1, width * 3 // 4)].mean())
