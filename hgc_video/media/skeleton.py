"""Draws OpenPose-style skeletons: 18 COCO joints, the usual colours, black ground.

Knows nothing about where the joints come from; only numpy is needed.
"""

from __future__ import annotations

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
    stroke = max(1.5, min(height, width) * 8 / 512) if stroke is None else stroke
    canvas = np.zeros((height, width, 3), np.float32)
    seen = joints[:, 2] >= min_visibility
    for (a, b), colour in zip(BONES, COLOURS, strict=False):
        if seen[a] and seen[b]:
            dimmed = np.asarray(colour, np.float32) * _BONE_DIM
            _stamp(canvas, joints[a, :2], joints[b, :2], stroke / 2, dimmed)
    for joint, colour in zip(joints, COLOURS, strict=True):
        if joint[2] >= min_visibility:
            _stamp(canvas, joint[:2], joint[:2], stroke / 2, np.asarray(colour, np.float32))
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
    ys, xs = np.mgrid[y0:y1, x0:x1].astype(np.float32) + 0.5
    bone = (end - start).astype(np.float32)
    along = (xs - start[0]) * bone[0] + (ys - start[1]) * bone[1]
    along = np.clip(along / max(float(bone @ bone), 1e-6), 0, 1)
    distance = np.hypot(xs - start[0] - along * bone[0], ys - start[1] - along * bone[1])
    cover = np.clip(radius + 0.5 - distance, 0, 1)[..., None]
    patch = canvas[y0:y1, x0:x1]
    patch += cover * (colour - patch)
