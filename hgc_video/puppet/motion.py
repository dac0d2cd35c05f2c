"""Motions of the 18 joints: procedural dances and walks, and windows of recorded ones.

A motion is an array (f 18 4): x, y, z, visibility. Lengths are in frame heights; x runs right,
y down, z towards the camera. Knows nothing about how a body is drawn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Motion = NDArray[np.float32]

_SWAP = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]  # right <-> left
RECORDED = ("dance", "moonwalk", "running")


@dataclass(frozen=True)
class _Wave:
    """A slow random oscillation around a mean: the source of all procedural movement."""

    mean: float
    swing: float
    cycles: float
    phase: float

    def __call__(self, time: NDArray[np.float32]) -> NDArray[np.float32]:
        main = np.sin(2 * np.pi * (self.cycles * time + self.phase))
        second = 0.3 * np.sin(2 * np.pi * (2 * self.cycles * time + 1.7 * self.phase))
        return np.asarray(self.mean + self.swing * (main + second), np.float32)


class _Wander(Protocol):
    """A wave of chance around `mean`, over the frames of one motion (f)."""

    def __call__(
        self, mean: float, swing: float, cycles: float | None = None
    ) -> NDArray[np.float32]: ...


def random_motion(
    rng: np.random.Generator, num_frames: int, aspect: float = 1.0, recorded: float = 0.25
) -> Motion:
    """A motion placed in a frame of width `aspect`; a share `recorded` comes from real clips."""
    if rng.random() < recorded:
        motion = recorded_motion(str(rng.choice(RECORDED)), rng, num_frames)
    else:
        motion = procedural_motion(rng, num_frames)
    return place(motion, rng, aspect)


def procedural_motion(rng: np.random.Generator, num_frames: int) -> Motion:
    """A dance or a walk of a body of height 1 with its feet at y = 0 (y up until placed)."""
    seconds = num_frames / 8
    time = np.linspace(0, seconds, num_frames, dtype=np.float32)
    beat = float(rng.uniform(0.35, 0.9))
    walking = rng.random() < 0.3
    joints = _pose_body(rng, time, beat, walking)
    joints[..., 1] -= joints[:, [10, 13], 1].min(axis=1, keepdims=True)  # the lower foot stands
    if rng.random() < 0.25:
        joints[..., 1] += 0.08 * np.abs(np.sin(2 * np.pi * beat * time))[:, None]
    turned = _turn(joints, _yaw(rng, time, beat, walking))
    drift = rng.uniform(-0.12, 0.12) * (2 if walking else 1)
    turned[..., 0] += (drift * (time / max(seconds, 1e-6) - 0.5))[:, None]
    visibility = _visibility(turned)
    turned[..., 1] *= -1
    return np.concatenate([turned, visibility[..., None]], axis=-1).astype(np.float32)


def recorded_motion(name: str, rng: np.random.Generator, num_frames: int) -> Motion:
    """A window of a recorded motion, perhaps mirrored or reversed, in body heights like a dance."""
    frames = load_recorded(name)
    stride = int(rng.integers(1, 3))
    stride = max(1, min(stride, (len(frames) - 1) // max(num_frames - 1, 1)))
    last = len(frames) - stride * (num_frames - 1)
    start = int(rng.integers(0, max(last, 1)))
    index = np.abs(np.arange(num_frames) * stride + start)
    top = len(frames) - 1
    index = top - np.abs(top - index % (2 * top)) if top else index * 0  # ping-pong when short
    motion = frames[index].copy()
    if rng.random() < 0.5:
        motion = motion[:, _SWAP]
        motion[..., 0] *= -1
    return motion[::-1].copy() if rng.random() < 0.3 else motion


def load_recorded(name: str) -> Motion:
    """Keypoints of a real clip (f 18 4) from the package's data.

    The detector's depth grows away from the camera and is exaggerated; here it grows towards it.
    """
    text = resources.files("hgc_video.puppet").joinpath(f"motions/{name}.json").read_text()
    motion = np.asarray(json.loads(text)["keypoints"], np.float32)
    motion[..., 2] *= -0.6
    return motion


def place(motion: Motion, rng: np.random.Generator, aspect: float = 1.0) -> Motion:
    """Moves and scales a motion so that it stays in a frame of height 1 and width `aspect`."""
    low, high = motion[..., :2].min((0, 1)), motion[..., :2].max((0, 1))
    size = np.maximum(high - low, 1e-3)
    room = float(min(0.84 / size[1], 0.86 * aspect / size[0]))
    scale = room * float(rng.uniform(0.78, 1.0))
    free = np.array([aspect, 1.0]) - size * scale
    share = np.array([rng.uniform(0.25, 0.75), rng.uniform(0.62, 0.85)])
    placed = motion.copy()
    placed[..., :3] *= scale
    placed[..., :2] += free * share - low * scale
    return placed


def _pose_body(
    rng: np.random.Generator, time: NDArray[np.float32], beat: float, walking: bool
) -> NDArray[np.float32]:
    """Joints (f 18 3) of an unturned body facing the camera; pelvis at the origin, y up."""

    def wave(mean: float, swing: float, cycles: float | None = None) -> NDArray[np.float32]:
        return _Wave(mean, swing * float(rng.uniform(0.3, 1)), cycles or beat, float(rng.random()))(
            time
        )

    f = len(time)
    joints = np.zeros((f, 18, 3), np.float32)
    lean, bend = wave(0, 0.18), wave(0.03, 0.12)
    spine = np.stack([np.sin(lean), np.cos(lean) * np.cos(bend), np.sin(bend)], -1)
    twist = wave(0, 0.35)
    across = np.stack([np.cos(twist), 0 * twist, -np.sin(twist)], -1)
    joints[:, 1] = 0.30 * spine
    _head(joints, spine, wave(0, 0.25), wave(0, 0.4))
    gait = float(rng.random())
    for side, shoulder, hip in ((-1, 2, 8), (1, 5, 11)):
        joints[:, shoulder] = joints[:, 1] + side * 0.098 * across - 0.012 * spine
        joints[:, hip] = np.array([side * 0.058, 0.0, 0.0])
        _arm(joints, shoulder, side, across, rng, wave, walking)
        _leg(joints, hip, side, time, beat, gait, rng, wave, walking)
    return joints


def _head(
    joints: NDArray[np.float32],
    spine: NDArray[np.float32],
    tilt: NDArray[np.float32],
    look: NDArray[np.float32],
) -> None:
    up = spine + 0.4 * np.stack([np.sin(tilt), 0 * tilt, 0 * tilt], -1)
    up /= np.linalg.norm(up, axis=-1, keepdims=True)
    right = np.stack([np.cos(look), 0 * look, -np.sin(look)], -1)
    front = np.cross(right, up)
    centre = joints[:, 1] + 0.105 * up
    joints[:, 0] = centre + 0.058 * front
    for side, eye, ear in ((-1, 14, 16), (1, 15, 17)):
        joints[:, eye] = centre + 0.045 * front + side * 0.022 * right + 0.022 * up
        joints[:, ear] = centre + side * 0.05 * right + 0.006 * up


def _arm(
    joints: NDArray[np.float32],
    shoulder: int,
    side: int,
    across: NDArray[np.float32],
    rng: np.random.Generator,
    wave: _Wander,
    walking: bool,
) -> None:
    raised = wave(0.25, 0.15) if walking else wave(float(rng.uniform(0.3, 1.7)), 0.9)
    raised = np.clip(raised, 0.05, 2.9)
    forward = wave(0.1, 0.6)
    upper = np.stack(
        [
            side * np.sin(raised) * np.cos(forward),
            -np.cos(raised),
            np.sin(raised) * np.sin(forward) + (0.5 * forward if walking else 0.15),
        ],
        -1,
    )
    upper /= np.linalg.norm(upper, axis=-1, keepdims=True)
    elbow = np.clip(wave(0.8, 0.8), 0.05, 2.3)[:, None]
    towards = np.array([-0.25 * side, 0.75, 0.6]) + 0.5 * across * float(rng.uniform(-1, 1))
    towards = towards - (towards * upper).sum(-1, keepdims=True) * upper
    towards /= np.linalg.norm(towards, axis=-1, keepdims=True) + 1e-6
    lower = np.cos(elbow) * upper + np.sin(elbow) * towards
    joints[:, shoulder + 1] = joints[:, shoulder] + 0.155 * upper
    joints[:, shoulder + 2] = joints[:, shoulder + 1] + 0.145 * lower


def _leg(
    joints: NDArray[np.float32],
    hip: int,
    side: int,
    time: NDArray[np.float32],
    beat: float,
    gait: float,
    rng: np.random.Generator,
    wave: _Wander,
    walking: bool,
) -> None:
    if walking:
        step = 2 * np.pi * (beat * time + gait) + (np.pi if side > 0 else 0)
        flex, knee, spread = 0.45 * np.sin(step), 0.45 + 0.4 * np.cos(step), 0.04 + 0 * step
    else:
        flex = wave(0.1, 0.4)
        knee = np.clip(wave(0.3, 0.5), 0, 1.6)
        spread = np.clip(wave(float(rng.uniform(0.05, 0.3)), 0.2), -0.05, 0.8)
    thigh = np.stack([side * np.sin(spread), -np.cos(flex) * np.cos(spread), np.sin(flex)], -1)
    thigh /= np.linalg.norm(thigh, axis=-1, keepdims=True)
    bent = flex - knee
    shin = np.stack([side * np.sin(spread * 0.6), -np.cos(bent), np.sin(bent)], -1)
    shin /= np.linalg.norm(shin, axis=-1, keepdims=True)
    joints[:, hip + 1] = joints[:, hip] + 0.245 * thigh
    joints[:, hip + 2] = joints[:, hip + 1] + 0.235 * shin


def _yaw(
    rng: np.random.Generator, time: NDArray[np.float32], beat: float, walking: bool
) -> NDArray[np.float32]:
    if walking and rng.random() < 0.7:
        base = float(rng.choice([-1, 1])) * float(rng.uniform(0.9, 1.6))
        return np.full_like(time, base)
    if rng.random() < 0.2:
        return np.asarray(rng.uniform(0, 6) + float(rng.choice([-1, 1])) * 2.2 * time, np.float32)
    return _Wave(
        float(rng.normal(0, 0.5)), float(rng.uniform(0, 0.7)), beat / 2, float(rng.random())
    )(time)


def _turn(joints: NDArray[np.float32], yaw: NDArray[np.float32]) -> NDArray[np.float32]:
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    x, y, z = joints[..., 0], joints[..., 1], joints[..., 2]
    return np.stack([cos * x + sin * z, y, cos * z - sin * x], -1)


def _visibility(joints: NDArray[np.float32]) -> NDArray[np.float32]:
    """Nose, eyes and ears vanish when the head has turned them away, as a detector would say."""
    seen = np.ones(joints.shape[:2], np.float32)
    centre = joints[:, [16, 17]].mean(1)
    for joint, limit in ((0, -0.01), (14, -0.005), (15, -0.005), (16, -0.035), (17, -0.035)):
        seen[:, joint] = joints[:, joint, 2] - centre[:, 2] > limit
    return seen
