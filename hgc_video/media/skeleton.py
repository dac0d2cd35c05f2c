"""Draws OpenPose-style skeletons: 18 COCO joints, hands and faces, the usual colours, black ground.

Knows nothing about where the joints come from; only numpy is needed.
"""

from __future__ import annotations

from colorsys import hsv_to_rgb

import numpy as np
from numpy.typing import NDArray

JOINTS = (
    "nose", "neck",
    "right_shoulder", "right_elbow", "right_wrist",
    "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle",
    "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip

# Bones in the drawing order of OpenPose, so that foreign skeleton clips look the same.
BONES = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip

COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip

# A whole person: the body, 21 points of each hand, 70 of the face. Who has a body alone has 18 points.
BODY, LEFT_HAND, RIGHT_HAND, FACE = slice(0, 18), slice(18, 39), slice(39, 60), slice(60, 130)
GROUPS = (BODY, LEFT_HAND, RIGHT_HAND, FACE)
NUM_POINTS = FACE.stop
_FINGERS = tuple(
    (0 if joint == 0 else 4 * finger + joint, 4 * finger + joint + 1)
    for finger in range(5)
    for joint in range(4)
)
_HAND_COLOURS = tuple(tuple(255 * c for c in hsv_to_rgb(k / 20, 1, 1)) for k in range(20))
_HAND_JOINT, _FACE_POINT = (0, 0, 255), (255, 255, 255)

_BONE_DIM = 0.6  # OpenPose draws bones at 60 % of the joint's colour


def draw_skeleton(
    joints: NDArray[np.floating],
    height: int,
    width: int,
    *,
    stroke: float | None = None,
    min_visibility: float = 0.3,
) -> NDArray[np.uint8]:
    """One skeleton frame (H W 3) from joints (18, 3): x and y in pixels, visibility 0..1.

    `stroke` is the bone's width in pixels; OpenPose draws 8 pixels at 512, which is the default's
    proportion. Joints below `min_visibility` and the bones that end in them are not drawn.
    """
    if joints.shape != (len(JOINTS), 3):
        raise ValueError(f"joints must be (18, 3), got {joints.shape}")
    canvas = np.zeros((height, width, 3), np.float32)
    _draw_body(canvas, joints, stroke or _stroke(height, width), min_visibility)
    return _rounded(canvas)


def draw_people(
    people: NDArray[np.floating], height: int, width: int, *, min_visibility: float = 0.3
) -> NDArray[np.uint8]:
    """One frame (H W 3) of people (p n 3), n being 18 for bodies or 130 with hands and face, as
    `draw_skeleton`; later people over earlier ones."""
    canvas, stroke = np.zeros((height, width, 3), np.float32), _stroke(height, width)
    for person in people:
        _draw_body(canvas, person[BODY], stroke, min_visibility)
        for hand in (LEFT_HAND, RIGHT_HAND):
            if len(person) > BODY.stop and person[hand, 2].min() >= min_visibility:
                _draw_hand(canvas, person[hand, :2], stroke)
        for point in person[FACE]:
            if point[2] >= min_visibility:
                _stamp(
                    canvas,
                    point[:2],
                    point[:2],
                    stroke * 3 / 8,
                    np.asarray(_FACE_POINT, np.float32),
                )
    return _rounded(canvas)


def _stroke(height: int, width: int) -> float:
    return max(1.5, min(height, width) * 8 / 512)


def _draw_hand(canvas: NDArray[np.float32], points: NDArray[np.floating], stroke: float) -> None:
    """Paints a hand (21 2): fingers a quarter as wide as bones, each bone of a colour, and its joints."""
    for (a, b), colour in zip(_FINGERS, _HAND_COLOURS, strict=True):
        _stamp(canvas, points[a], points[b], max(0.5, stroke / 8), np.asarray(colour, np.float32))
    for point in points:
        _stamp(canvas, point, point, stroke / 4, np.asarray(_HAND_JOINT, np.float32))


def _draw_body(
    canvas: NDArray[np.float32], joints: NDArray[np.floating], stroke: float, min_visibility: float
) -> None:
    seen = joints[:, 2] >= min_visibility
    for (a, b), colour in zip(BONES, COLOURS, strict=False):
        if seen[a] and seen[b]:
            dimmed = np.asarray(colour, np.float32) * _BONE_DIM
            _stamp(canvas, joints[a, :2], joints[b, :2], stroke / 2, dimmed)
    for joint, colour in zip(joints, COLOURS, strict=True):
        if joint[2] >= min_visibility:
            _stamp(canvas, joint[:2], joint[:2], stroke / 2, np.asarray(colour, np.float32))


def _rounded(canvas: NDArray[np.float32]) -> NDArray[np.uint8]:
    frame: NDArray[np.uint8] = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return frame


def _stamp(
    canvas: NDArray[np.float32],
    start: NDArray[np.floating],
    end: NDArray[np.floating],
    radius: float,
    colour: NDArray[np.float32],
) -> None:
    """Paints the anti-aliased capsule from `start` to `end` (x, y) over `canvas` (H W 3)."""
    height, width, _ = canvas.shape
    low = np.floor(np.minimum(start, end) - radius - 1).astype(int)
    high = np.ceil(np.maximum(start, end) + radius + 2).astype(int)
    x0, y0 = max(low[0], 0), max(low[1], 0)
    x1, y1 = min(high[0], width), min(high[1], height)
    if x0 >= x1 or y0 >= y1:
        return
    ys = np.arange(y0, y1, dtype=np.float32)[:, None] + 0.5
    xs = np.arange(x0, x1, dtype=np.float32)[None] + 0.5
    bone = (end - start).astype(np.float32)
    along = (xs - start[0]) * bone[0] + (ys - start[1]) * bone[1]
    along = np.clip(along / max(float(bone @ bone), 1e-6), 0, 1)
    distance = np.hypot(xs - start[0] - along * bone[0], ys - start[1] - along * bone[1])
    cover = np.clip(radius + 0.5 - distance, 0, 1)[..., None]
    patch = canvas[y0:y1, x0:x1]
    patch += cover * (colour - patch)
