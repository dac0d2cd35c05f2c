"""When the frames of a movie are shown, and the constant rate they are read at.

Plain numbers only: timestamps in, a frame rate and the stored frame of every tick out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hgc_video.media.frames import DEFAULT_FPS
from hgc_video.media.limits import check_num_frames

_MAX_FPS = 240.0  # a pair of frames may have nearly one timestamp; a clip is not sampled by it
_NEAR = 0.5  # of an interval; mkv's whole milliseconds stay far below


@dataclass(frozen=True)
class Timeline:
    """`fps` ticks a second; at tick i the stored frame number `shown[i]` is on the screen."""

    fps: float
    shown: tuple[int, ...]


def make_timeline(
    seconds: Sequence[float], declared_fps: float | None, last_seconds: float | None = None
) -> Timeline:
    """The constant rate for frames that are shown from `seconds` (increasing) on.

    Evenly spaced frames keep their number and get the declared rate where it agrees with the
    timestamps. Others are sampled in time: the rate is that of the short intervals, so that no movement
    is lost, and a frame that stays longer is repeated. `last_seconds` is how long the last frame stays.
    """
    count = len(seconds)
    if count == 1:
        return Timeline(declared_fps or (1 / last_seconds if last_seconds else DEFAULT_FPS), (0,))
    times = np.asarray(seconds, np.float64) - seconds[0]
    measured = (count - 1) / times[-1]
    for fps, near in ((declared_fps, _NEAR), (measured, _NEAR / 2)):
        if fps and np.abs(times * fps - np.arange(count)).max() < near:
            return Timeline(float(fps), tuple(range(count)))
    return _sampled(times, last_seconds)


def _sampled(times: NDArray[np.float64], last_seconds: float | None) -> Timeline:
    intervals = np.diff(times)
    usual, short = (float(np.quantile(intervals, q)) for q in (0.5, 0.1))
    exact = min(_MAX_FPS, 1 / (usual if short > 0.7 * usual else short))
    fps = float(Fraction(exact).limit_denominator(1001))
    lasts = times[-1] + (last_seconds or usual)
    check_num_frames(lasts * fps, f"a clip of {lasts:.0f} s at {fps:g} fps")
    starts = np.round(times * fps).astype(int)  # to the nearest tick: a little jitter moves nothing
    end = round(lasts * fps)
    ticks = np.arange(max(end, int(starts[-1]) + 1))
    shown = np.searchsorted(starts, ticks, side="right") - 1
    return Timeline(fps, tuple(shown.tolist()))
