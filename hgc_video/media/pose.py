"""Body keypoints of the person in a clip, and skeleton frames drawn from them.

Detection is mediapipe's (extra `pose`), at the source's own resolution; skeletons are drawn at
the model's size, so lines stay crisp. Knows nothing about several people: the most visible wins.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgc_video.errors import HGCVideoWarning, InputError, MissingExtraError
from hgc_video.media.control import (
    ControlClip,
    Placement,
    name_of,
    open_control,
)
from hgc_video.media.frame_choice import ALL, FrameChoice, plan_frames
from hgc_video.media.frame_size import plan_size
from hgc_video.media.frames import Frame, LazyFrames
from hgc_video.media.skeleton import JOINTS, draw_skeleton
from hgc_video.media.video import VideoLike

# mediapipe's landmark for each joint of OpenPose's COCO-18 order; the neck (1) has none.
_LANDMARKS = (0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
_NECK, _SHOULDERS = 1, (2, 5)
MAX_GAP_S = 0.5  # a detector misses a person for so long; longer, and nobody is there
_RARE = 0.5  # of the frames: where fewer show a person, that is said


def extract_control(
    video: VideoLike,
    kind: str = "pose",
    *,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    multiple: int = 32,
    default_area: int = 128 * 128,
    max_frames: int | None = None,
    source_fps: float | None = None,
    choice: FrameChoice = ALL,
) -> ControlClip:
    """The control clip of a raw video; frames, size and rates are chosen as in `load_control`.

    Frames that show nobody are black, but for gaps of up to `MAX_GAP_S` seconds, which are bridged; the
    clip counts both. Warns (HGCVideoWarning) where a person is found in less than half of the frames.

    Raises:
        InputError: `kind` is not "pose", or no person is found; also as `load_control`.
        VideoError: the clip cannot be read.
        MissingExtraError: mediapipe is not installed.
    """
    if kind != "pose":
        raise InputError(f'"{kind}" cannot be extracted (allowed: pose); give a ready {kind} clip')
    source = open_control(video, fps, source_fps)
    info = source.info
    indices, rate = plan_frames(
        info.num_frames,
        info.fps,
        num_frames=num_frames,
        fps=fps,
        max_frames=max_frames,
        choice=choice,
    )
    size = plan_size(info.height, info.width, height, width, multiple, default_area)
    found = list(_detect(source.frames(indices)))
    keypoints, num_bridged = _bridged(found, max_gap=max(1, round(MAX_GAP_S * rate)))
    empty = int((keypoints[..., 3].max(1) == 0).sum())
    if empty > (1 - _RARE) * len(found):
        warnings.warn(
            f"a person is found in {len(found) - empty} of the {len(found)} frames taken from "
            f"{name_of(video)}; the others are black and steer nothing",
            HGCVideoWarning,
            stacklevel=2,
        )
    place = Placement(info.height, info.width, *size)
    keypoints[..., :2] = place.points(keypoints[..., :2])

    def read(start: int) -> Iterator[Frame]:
        return _drawn(keypoints[start:], *size)

    stream = LazyFrames(read, len(keypoints), *size, hold=True)
    return ControlClip(
        stream,
        rate,
        "pose",
        info.height,
        info.width,
        info,
        num_bridged=num_bridged,
        num_empty=empty,
        taken=tuple(indices),
    )


def extract_pose(frames: Iterable[Frame], *, max_gap: int = 6) -> NDArray[np.float64]:
    """Keypoints (f 18 4): x, y, z in pixels of the frame and visibility 0..1, in COCO-18 order.

    z is depth relative to the hips, smaller is nearer. Up to `max_gap` frames without a person are bridged
    from their neighbours; where nobody is for longer, or at the beginning and the end, all is 0,
    visibility too.

    Raises:
        InputError: no frame shows a person.
        MissingExtraError: mediapipe is not installed.
    """
    return _bridged(list(_detect(frames)), max_gap)[0]


def _bridged(
    found: Sequence[NDArray[np.float64] | None], max_gap: int
) -> tuple[NDArray[np.float64], int]:
    """Keypoints (f 18 4) of what was found in each frame, and how many frames lie in bridged gaps."""
    shown = [index for index, joints in enumerate(found) if joints is not None]
    if not shown:
        raise InputError(
            f"no person found in any of the {len(found)} frames taken; use a clip that shows one person "
            "from head to foot; a ready pose clip needs no extraction"
        )
    keypoints = np.zeros((len(found), len(JOINTS), 4))
    keypoints[shown] = [found[index] for index in shown]
    num_bridged = 0
    for before, after in pairwise(shown):
        gap = after - before - 1
        if 0 < gap <= max_gap:
            share = (np.arange(1, gap + 1) / (gap + 1))[:, None, None]
            keypoints[before + 1 : after] = (
                (1 - share) * keypoints[before] + share * keypoints[after]
            )  # fmt: skip
            num_bridged += gap
    return keypoints, num_bridged


def skeleton_frames(keypoints: NDArray[np.floating], height: int, width: int) -> Frame:
    """OpenPose-style frames (f H W 3) from keypoints (f 18 4) in pixels of height x width."""
    return np.stack(list(_drawn(keypoints, height, width)))


def _drawn(keypoints: NDArray[np.floating], height: int, width: int) -> Iterator[Frame]:
    return (draw_skeleton(frame, height, width) for frame in keypoints[..., [0, 1, 3]])


def _detect(frames: Iterable[Frame]) -> Iterator[NDArray[np.float64] | None]:
    solution = _mediapipe()
    with _hushed():
        opened = solution.Pose(model_complexity=1, smooth_landmarks=False)
    with opened as detector:
        for frame in frames:
            with _hushed():
                landmarks = detector.process(np.ascontiguousarray(frame)).pose_landmarks
            yield None if landmarks is None else _joints(landmarks.landmark, frame.shape)


def _joints(landmarks: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    height, width = shape[:2]
    scale = np.array([width, height, width, 1.0])
    all_points = np.array([[p.x, p.y, p.z, p.visibility] for p in landmarks]) * scale
    joints: NDArray[np.float64] = all_points[list(_LANDMARKS)]
    joints[_NECK] = joints[list(_SHOULDERS)].mean(axis=0)
    joints[_NECK, 3] = joints[list(_SHOULDERS), 3].min()
    return joints


def _mediapipe() -> Any:
    if sys.version_info >= (3, 13):
        remedy = "use Python 3.11 or 3.12, for which the pose extra exists"
    else:
        remedy = 'pip install "hgc_video[pose]"'
    try:
        return import_module("mediapipe").solutions.pose
    except (ImportError, OSError, AttributeError) as error:
        raise MissingExtraError(
            f"pose extraction needs mediapipe 0.10.14 ({error}): {remedy}"
        ) from error


@contextmanager
def _hushed() -> Iterator[None]:
    """Silences what mediapipe's C++ core writes straight to the terminal, and its warnings."""
    sys.stderr.flush()
    saved = os.dup(2)
    void = os.open(os.devnull, os.O_WRONLY)
    os.dup2(void, 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(saved, 2)
        os.close(void)
        os.close(saved)
