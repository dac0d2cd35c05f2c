"""Which frames of a clip are taken, and at what rate: planned from plain numbers, no pixel is read."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from hgc_video.errors import InputError

FLUID_FPS = 12.0  # rates above it are thinned, so that few frames still show a movement


@dataclass(frozen=True)
class FrameChoice:
    """What is asked of a clip's frames: those from `start` up to `stop` (None: the last), numbered as the
    clip has them; every so many of them (None: as many as a fluid movement needs); whether they are
    repeated where more are asked for than there are. `start_s` is a beginning in seconds, in place of
    `start`, for a clip that follows another one's choice.
    """

    start: int = 0
    stop: int | None = None
    every: int | None = None
    loop: bool = False
    start_s: float | None = None

    def span(self, available: int, source_fps: float) -> tuple[int, int]:
        """First frame, and the one after the last; InputError where the clip does not have them."""
        start = self.start if self.start_s is None else round(self.start_s * source_fps)
        stop = available if self.stop is None else self.stop
        if start >= available or stop > available:
            told = f"{start}:{'' if self.stop is None else stop}"
            raise InputError(
                f"frames={told} is beyond the clip, which has {available} frames, 0 to {available - 1}; "
                f'name some of them, as "{min(start, available - 1)}:{available}"'
            )
        return start, stop


ALL = FrameChoice()


def plan_frames(
    available: int,
    source_fps: float,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    choice: FrameChoice = ALL,
) -> tuple[list[int], float]:
    """Indices of the frames to take of a clip, and their rate.

    Movement keeps its speed. Without `fps` and `every`, every s-th frame is taken with the smallest s that
    brings the rate to about 12 or less (24 -> 12, 25 -> 12.5, 30 -> 10); s shrinks when `num_frames` would
    not fit otherwise, unless the clip is looped. With `fps`, frames are taken by their time. Without
    `num_frames` the whole clip is taken, at most `max_frames`.

    Raises:
        InputError: `num_frames`, `fps` or the choice is not possible, beyond the clip or beyond `max_frames`.
    """
    _check(num_frames, fps, max_frames, choice)
    start, stop = choice.span(available, source_fps)
    count = stop - start
    if fps is not None:
        wanted = max(1, math.floor(count * fps / source_fps + 1e-6))
        indices = [start + min(count - 1, int(i * source_fps / fps + 1e-6)) for i in range(wanted)]
        rate = fps
    else:
        fits = None if choice.loop else num_frames
        stride = choice.every or _fluid_stride(count, source_fps, fits)
        indices, rate = list(range(start, stop, stride)), source_fps / stride
    if num_frames is not None and num_frames > len(indices):
        if not choice.loop:
            raise _too_short(num_frames, len(indices), rate)
        indices = [indices[i % len(indices)] for i in range(num_frames)]
    return indices[: num_frames or max_frames], rate


def _fluid_stride(count: int, source_fps: float, num_frames: int | None) -> int:
    stride = max(1, math.ceil(source_fps / FLUID_FPS - 0.1))
    while stride > 1 and num_frames is not None and num_frames > -(-count // stride):
        stride -= 1
    return stride


def _check(
    num_frames: int | None, fps: float | None, max_frames: int | None, choice: FrameChoice
) -> None:
    if num_frames is not None and num_frames < 1:
        raise InputError(f"num_frames={num_frames} is not possible; ask for at least 1")
    if fps is not None and not 0 < fps <= sys.float_info.max:
        raise InputError(f"fps={fps} is not possible; give a positive number")
    if num_frames is not None and max_frames is not None and num_frames > max_frames:
        raise InputError(
            f"num_frames={num_frames} is beyond the model's {max_frames}; ask for less"
        )
    if fps is not None and choice.every is not None:
        raise InputError(
            f"every={choice.every} and fps={fps:g} both say which frames are taken; leave one out"
        )


def _too_short(num_frames: int, count: int, rate: float) -> InputError:
    return InputError(
        f"num_frames={num_frames} is beyond the clip, which has {count} frames at {rate:g} fps; ask for at "
        f"most {count}, or repeat it with loop=True (--loop)"
    )
