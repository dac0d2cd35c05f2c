"""The procedural world: a spec, a motion and a style seed give a clip whose truth is known.

The spec fixes colours and scene, the motion fixes the body; everything else (cloth patterns, light,
hair, skin, shoes, scenery, sway) is drawn from `style_seed` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..media.skeleton import draw_skeleton
from . import scenery
from .body import PARTS, Build, Canvas, Material, draw, limbs
from .motion import Motion
from .spec import NO_HAT, PALETTE, Spec

_MARGIN = 6  # pixels of background kept outside the frame for the camera's sway
SKINS = ((241, 205, 178), (224, 172, 132), (198, 134, 92), (141, 85, 54), (92, 58, 40))
_HAIRS = (
    (30, 24, 20),
    (80, 52, 32),
    (148, 100, 52),
    (214, 178, 110),
    (120, 120, 122),
    (150, 60, 40),
)
_SHOES = (
    (240, 240, 240),
    (40, 40, 42),
    (120, 76, 46),
    (190, 190, 196),
    (80, 30, 30),
    (60, 90, 110),
)
_PATTERNS = ("plain", "plain", "stripes", "pinstripes", "checks", "dots")


@dataclass(frozen=True)
class Rendering:
    """A clip and its truth, all of f frames.

    frames (f H W 3) uint8, pose (f H W 3) uint8, depth (f H W 3) uint8 grey, near is bright,
    parts (f H W) uint8 index into `PARTS`, members (f H W) uint8 index into `MEMBERS`: the arm or leg
    that is seen there, silhouette (f H W) bool.
    """

    frames: NDArray[np.uint8]
    pose: NDArray[np.uint8]
    depth: NDArray[np.uint8]
    parts: NDArray[np.uint8]
    members: NDArray[np.uint8]

    @property
    def silhouette(self) -> NDArray[np.bool_]:
        """Where the dancer is, (f H W)."""
        return np.asarray(self.parts > 0)

    def mask(self, part: str) -> NDArray[np.bool_]:
        """Where a part is visible, (f H W)."""
        return np.asarray(self.parts == PARTS.index(part))


@dataclass(frozen=True)
class _Style:
    """Everything that neither prompt nor control decides."""

    build: Build
    materials: dict[str, Material]
    light: NDArray[np.float32]
    background: NDArray[np.float32]
    sway: NDArray[np.float32]


def render(
    spec: Spec,
    motion: Motion,
    style_seed: int,
    *,
    height: int = 128,
    width: int = 128,
    stroke: float | None = None,
) -> Rendering:
    """Renders a motion (f 18 4), lengths in frame heights, as a clip of `height` x `width` pixels."""
    num_frames = len(motion)
    style = _draw_style(spec, np.random.default_rng(style_seed), num_frames, height, width)
    joints = motion.copy()
    joints[..., :3] *= height
    body = body_height(joints)
    out = Rendering(
        np.empty((num_frames, height, width, 3), np.uint8),
        np.empty((num_frames, height, width, 3), np.uint8),
        np.empty((num_frames, height, width, 3), np.uint8),
        *np.empty((2, num_frames, height, width), np.uint8),
    )
    for i, frame_joints in enumerate(joints):
        canvas = Canvas.over(_shifted(style.background, style.sway[i], height, width))
        _shadow(canvas, frame_joints, body)
        for limb in limbs(frame_joints, body, style.build, spec.hat != NO_HAT):
            draw(canvas, limb, style.materials[limb.part], style.light, body)
        out.frames[i] = np.clip(canvas.colour + 0.5, 0, 255)
        out.parts[i], out.members[i] = canvas.part, canvas.member
        out.depth[i] = depth_map(canvas, body)[..., None]
        out.pose[i] = draw_skeleton(frame_joints[:, [0, 1, 3]], height, width, stroke=stroke)
    return out


def body_height(joints: NDArray[np.float32]) -> float:
    """The body's height in the joints' unit, from the longest torso and legs seen in the picture.

    Depth is left out: detectors guess it badly.
    """

    def length(a: int, b: int) -> float:
        return float(
            np.percentile(np.linalg.norm(joints[:, a, :2] - joints[:, b, :2], axis=-1), 95)
        )

    torso = max(length(1, 8), length(1, 11))
    leg = max(length(8, 9) + length(9, 10), length(11, 12) + length(12, 13))
    return 0.5 * (torso / 0.306 + leg / 0.48)


def depth_map(canvas: Canvas, body: float) -> NDArray[np.uint8]:
    """Depth as depth estimators draw it: near is bright; the ground rises to the viewer."""
    height, width = canvas.depth.shape
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    ground = np.clip((rows - 0.6) / 0.4, 0, 1) * 0.5 + 0.06
    near = np.clip(0.66 + 0.5 * canvas.depth / body, 0.3, 1)
    value = np.where(canvas.part > 0, near, np.broadcast_to(ground, (height, width)))
    return (value * 255).astype(np.uint8)


def _draw_style(
    spec: Spec, rng: np.random.Generator, num_frames: int, height: int, width: int
) -> _Style:
    build = Build(
        long_sleeves=bool(rng.random() < 0.5),
        long_hair=bool(rng.random() < 0.4),
        brim=bool(rng.random() < 0.5),
        thickness=float(rng.uniform(0.95, 1.12)),
    )
    light = np.array([rng.uniform(-1, 1), rng.uniform(-1, 0.1), rng.uniform(0.4, 1)], np.float32)
    background = scenery.paint(spec.scene, rng, height + 2 * _MARGIN, width + 2 * _MARGIN)
    time = np.arange(num_frames, dtype=np.float32)[:, None] / 8
    sway = rng.uniform(0, 3, 2) * np.sin(
        2 * np.pi * (rng.uniform(0.1, 0.5, 2) * time + rng.random(2))
    )
    return _Style(
        build,
        _materials(spec, rng),
        light / np.linalg.norm(light),
        background,
        sway.astype(np.float32),
    )


def _materials(spec: Spec, rng: np.random.Generator) -> dict[str, Material]:
    made = {}
    for part in ("shirt", "trousers", "hat"):
        colour = PALETTE.get(getattr(spec, part), (128, 128, 128))
        made[part] = Material(
            np.asarray(colour, np.float32) + rng.normal(0, 5, 3).astype(np.float32),
            str(rng.choice(_PATTERNS)),
            float(rng.uniform(0.25, 1)),
            float(rng.uniform(70, 200)),
            float(rng.uniform(0, 6)),
        )
    for part, choices in (("skin", SKINS), ("hair", _HAIRS), ("shoes", _SHOES)):
        made[part] = Material(np.asarray(choices[int(rng.integers(len(choices)))], np.float32))
    return made


def _shifted(
    background: NDArray[np.float32], sway: NDArray[np.float32], height: int, width: int
) -> NDArray[np.float32]:
    """The frame's part of the background, moved by a fraction of pixels (bilinear)."""
    y, x = _MARGIN + float(sway[1]), _MARGIN + float(sway[0])
    y0, x0 = int(y), int(x)
    fy, fx = y - y0, x - x0
    rows = background[y0 : y0 + height + 1]
    rows = (1 - fy) * rows[:-1] + fy * rows[1:]
    cols = rows[:, x0 : x0 + width + 1]
    return np.asarray((1 - fx) * cols[:, :-1] + fx * cols[:, 1:], np.float32)


def _shadow(canvas: Canvas, joints: NDArray[np.float32], body: float) -> None:
    height, width = canvas.depth.shape
    foot_x = float(joints[[10, 13], 0].mean())
    foot_y = float(joints[[10, 13], 1].max()) + 0.03 * body
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    inside = ((xs - foot_x) / (0.2 * body)) ** 2 + ((ys - foot_y) / (0.045 * body)) ** 2
    canvas.colour *= (1 - 0.4 * np.clip(1.3 - inside, 0, 1))[..., None]
