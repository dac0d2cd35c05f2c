"""Body keypoints of the person in a clip, and skeleton frames drawn from them.

Detection is mediapipe's (extra `pose`), at the source's own resolution; skeletons are drawn at
the model's size, so lines stay crisp. Knows nothing about several people: the most visible wins.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgc_video.errors import InputError, MissingExtraError
from hgc_video.media.control import ControlClip, Placement, plan_frames, plan_size
from hgc_video.media.frames import Frame, LazyFrames
from hgc_video.media.skeleton import draw_skeleton
from hgc_video.media.video import VideoLike, open_clip

# mediapipe's landmark for each joint of OpenPose's COCO-18 order; the neck (1) has none.
_LANDMARKS = (0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
_NECK, _SHOULDERS = 1, (2, 5)
_MIN_SHARE = 0.5  # of frames that must show a person; gaps are bridged in between


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
) -> ControlClip:
    """The control clip of a raw video; frames and size are chosen as in `load_control`.

    Raises:
        InputError: `kind` is not "pose", or no person is found; also as `load_control`.
        VideoError: the clip cannot be read.
        MissingExtraError: mediapipe is not installed.
    """
    if kind != "pose":
        raise InputError(f'"{kind}" cannot be extracted (allowed: pose); give a ready {kind} clip')
    source = open_clip(video, assumed_fps=fps)
    info = source.info
    indices, rate = plan_frames(
        info.num_frames, info.fps, num_frames=num_frames, fps=fps, max_frames=max_frames
    )
    size = plan_size(info.height, info.width, height, width, multiple, default_area)
    keypoints = extract_pose(source.frames(indices))
    place = Placement(info.height, info.width, *size)
    keypoints[..., :2] = place.points(keypoints[..., :2])

    def read(start: int) -> Iterator[Frame]:
        return _drawn(keypoints[start:], *size)

    stream = LazyFrames(read, len(keypoints), *size, hold=True)
    return ControlClip(stream, rate, "pose", info.height, info.width, info)


def extract_pose(frames: Iterable[Frame]) -> NDArray[np.float64]:
    """Keypoints (f 18 4): x, y, z in pixels of the frame and visibility 0..1, in COCO-18 order.

    z is depth relative to the hips, smaller is nearer. Frames without a person are bridged from
    their neighbours.

    Raises:
        InputError: a person is found in less than half of the frames.
        MissingExtraError: mediapipe is not installed.
    """
    found = list(_detect(frames))
    shown = [index for index, joints in enumerate(found) if joints is not None]
    if not shown or len(shown) < _MIN_SHARE * len(found):
        where = f"in only {len(shown)} of" if shown else "in any of"
        raise InputError(
            f"no person found {where} the {len(found)} frames taken; "
            "use a clip that shows one person from head to foot, or a ready pose clip"
        )
    known = np.stack([joints for joints in found if joints is not None])
    flat = known.reshape(len(shown), -1)
    at = np.arange(len(found))
    bridged = np.stack([np.interp(at, shown, column) for column in flat.T], axis=1)
    return bridged.reshape(len(found), *known.shape[1:])


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
