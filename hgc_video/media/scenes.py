"""Where a clip's scenes begin, found by PySceneDetect (extra `scenes`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from itertools import pairwise

import numpy as np

from hgc_video.errors import MissingExtraError, warn
from hgc_video.media.frames import Frame

_LEAST_CHANGE = (
    1.0  # of 255, of a cut between two depth clips; movement is told from it by its neighbours
)
_LOOKED_AT = 128  # pixels of the shorter side; a cut is seen in a small picture too


def find_cuts(frames: Iterable[Frame], shortest: int) -> tuple[int, ...]:
    """The frames at which a new scene begins, in frames (H W 3) of a clip; no scene is shorter than
    `shortest` frames. Warns (HGCVideoWarning) of cuts that are passed over for that.

    Raises:
        MissingExtraError: PySceneDetect is not installed.
    """
    try:
        detector = import_module("scenedetect.detectors").AdaptiveDetector(
            min_scene_len=1, min_content_val=_LEAST_CHANGE
        )
    except ImportError as error:
        raise MissingExtraError(
            f'scene cuts are found by PySceneDetect ({error}): pip install "hgc_video[scenes]"'
        ) from error
    found: list[int] = []
    count = 0
    for count, frame in enumerate(frames, 1):
        stride = max(1, min(frame.shape[:2]) // _LOOKED_AT)
        small = np.ascontiguousarray(frame[::stride, ::stride, ::-1])  # blue comes first there
        found += detector.process_frame(count - 1, small)
    kept = far_apart(found, count, shortest)
    if len(kept) < len(found):
        warn(
            f"{len(found) - len(kept)} of {len(found)} scene cuts are passed over: their scenes have fewer "
            f"than {shortest} frames, half a window; windows reach across them",
            stacklevel=2,
        )
    return tuple(kept)


def far_apart(cuts: Sequence[int], num_frames: int, shortest: int) -> list[int]:
    """Those cuts, from the first on, that leave no scene shorter than `shortest` frames."""
    kept: list[int] = []
    for cut in sorted(cuts):
        if cut - (kept[-1] if kept else 0) >= shortest and num_frames - cut >= shortest:
            kept.append(cut)
    return kept


def shortest_scene(cuts: Sequence[int], num_frames: int) -> int:
    """Frames of the shortest scene of a clip."""
    return min(stop - start for start, stop in pairwise((0, *cuts, num_frames)))
