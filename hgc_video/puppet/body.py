"""Draws one dancer: tapered limbs with a depth buffer, cloth patterns and light.

Gives colour, depth and the part of every pixel. Knows nothing about scenes or prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

PARTS = ("background", "shirt", "trousers", "hat", "skin", "hair", "shoes")
MEMBERS = ("", "right arm", "left arm", "right leg", "left leg")  # "": neither arm nor leg


@dataclass(frozen=True)
class Limb:
    """A tapered capsule between two points (x, y, z) in pixels, made of one material.

    `member` says which arm or leg it belongs to, as in `MEMBERS`.
    """

    part: str
    start: Array
    end: Array
    radius_start: float
    radius_end: float
    member: str = ""


@dataclass(frozen=True)
class Material:
    """Base colour (0..255) and a pattern fixed to the cloth: its kind, strength and frequency."""

    colour: Array
    pattern: str = "plain"
    strength: float = 0.0
    frequency: float = 60.0
    phase: float = 0.0


@dataclass
class Canvas:
    """What is drawn so far: colour (H W 3) 0..255, depth (H W) in pixels, part and member index (H W)."""

    colour: Array
    depth: Array
    part: NDArray[np.uint8]
    member: NDArray[np.uint8]

    @classmethod
    def over(cls, background: Array) -> Canvas:
        """An empty canvas on a background (H W 3)."""
        height, width, _ = background.shape
        depth = np.full((height, width), -1e6, np.float32)
        part, member = np.zeros((2, height, width), np.uint8)
        return cls(background.astype(np.float32).copy(), depth, part, member)


@dataclass(frozen=True)
class Build:
    """The free choices of a body: sleeves, hair, hat shape, thickness."""

    long_sleeves: bool
    long_hair: bool
    brim: bool
    thickness: float


def limbs(joints: Array, body: float, build: Build, hat: bool) -> list[Limb]:
    """The limbs of one frame's joints (18, 3+) in pixels; `body` is the body's height in pixels."""
    p = joints[:, :3]
    hips = (p[8] + p[11]) / 2
    unit = body * build.thickness
    cloth = [
        Limb("shirt", p[1] + 0.03 * (hips - p[1]), hips, 0.072 * unit, 0.068 * unit),
        Limb("shirt", p[2], p[5], 0.038 * unit, 0.038 * unit),
        Limb("shirt", p[2], p[8] + 0.1 * (p[2] - p[8]), 0.036 * unit, 0.042 * unit),
        Limb("shirt", p[5], p[11] + 0.1 * (p[5] - p[11]), 0.036 * unit, 0.042 * unit),
        Limb("trousers", p[8], p[11], 0.058 * unit, 0.058 * unit),
        Limb(
            "skin",
            p[1] + 0.15 * (hips - p[1]),
            p[1] + 0.3 * (p[1] - hips),
            0.026 * unit,
            0.026 * unit,
        ),
    ]
    for shoulder in (2, 5):
        cloth += _arm(p, shoulder, unit, build)
    for hip in (8, 11):
        cloth += _leg(p, hip, unit)
    return cloth + _head(p, hips, unit, build, hat)


def _arm(p: Array, shoulder: int, unit: float, build: Build) -> list[Limb]:
    elbow, wrist = p[shoulder + 1], p[shoulder + 2]
    member = "right arm" if shoulder == 2 else "left arm"
    hand = wrist + 0.18 * (wrist - elbow)
    return [
        Limb("shirt", p[shoulder], elbow, 0.036 * unit, 0.03 * unit, member),
        Limb(
            "shirt" if build.long_sleeves else "skin",
            elbow,
            wrist,
            0.029 * unit,
            0.021 * unit,
            member,
        ),
        Limb("skin", wrist, hand, 0.022 * unit, 0.024 * unit, member),
    ]


def _leg(p: Array, hip: int, unit: float) -> list[Limb]:
    knee, ankle = p[hip + 1], p[hip + 2]
    member = "right leg" if hip == 8 else "left leg"
    across = p[11] - p[8]
    front = np.array([-across[2], 0, across[0]], np.float32)
    front /= np.linalg.norm(front) + 1e-6
    toe = ankle + 0.055 * unit * front + np.array([0, 0.018 * unit, 0], np.float32)
    return [
        Limb("trousers", p[hip], knee, 0.054 * unit, 0.041 * unit, member),
        Limb("trousers", knee, ankle, 0.04 * unit, 0.028 * unit, member),
        Limb("shoes", ankle, toe, 0.026 * unit, 0.022 * unit, member),
    ]


def _head(p: Array, hips: Array, unit: float, build: Build, hat: bool) -> list[Limb]:
    ears = (p[16] + p[17]) / 2
    front = p[0] - ears
    front /= np.linalg.norm(front) + 1e-6
    up = ears - p[1]
    up /= np.linalg.norm(up) + 1e-6
    centre = ears + 0.012 * unit * up
    parts = [
        Limb(
            "skin", centre - 0.02 * unit * up, centre + 0.01 * unit * up, 0.054 * unit, 0.058 * unit
        ),
        Limb(
            "hair",
            centre - 0.022 * unit * front,
            centre + unit * (0.022 * up - 0.02 * front),
            0.056 * unit,
            0.058 * unit,
        ),
    ]
    if build.long_hair:
        tail = p[1] - 0.05 * unit * front + 0.12 * (hips - p[1])
        parts.append(Limb("hair", centre - 0.04 * unit * front, tail, 0.045 * unit, 0.03 * unit))
    if hat:
        crown = centre + 0.05 * unit * up
        parts.append(
            Limb(
                "hat",
                crown - 0.012 * unit * front,
                crown + 0.012 * unit * (up + front),
                0.064 * unit,
                0.056 * unit,
            )
        )
        if build.brim:
            edge = crown + 0.085 * unit * front - 0.012 * unit * up
            parts.append(Limb("hat", crown - 0.01 * unit * up, edge, 0.05 * unit, 0.022 * unit))
    return parts


def draw(canvas: Canvas, limb: Limb, material: Material, light: Array, body: float) -> None:
    """Draws one limb into the canvas where it is nearest; `light` is a unit vector (x, y, z)."""
    window = _window(canvas, limb)
    if window is None:
        return
    rows, cols = window
    ys, xs = np.mgrid[rows, cols].astype(np.float32) + 0.5
    bone = (limb.end - limb.start)[:2]
    length = max(float(np.hypot(*bone)), 1e-3)
    dx, dy = xs - limb.start[0], ys - limb.start[1]
    along = np.clip((dx * bone[0] + dy * bone[1]) / length**2, 0, 1)
    ox, oy = dx - along * bone[0], dy - along * bone[1]
    distance = np.hypot(ox, oy)
    radius = limb.radius_start + along * (limb.radius_end - limb.radius_start)
    bulge = np.sqrt(np.maximum(radius**2 - distance**2, 0))
    depth = limb.start[2] + along * (limb.end[2] - limb.start[2]) + bulge
    cover = np.clip(radius + 0.5 - distance, 0, 1)
    cover = cover * (depth >= canvas.depth[rows, cols])
    side = (dx * -bone[1] + dy * bone[0]) / length
    span = float(np.linalg.norm(limb.end - limb.start))
    tint = _cloth(material, along * span / body, side / body)
    shade = _shade(np.stack([ox, oy, bulge]) / np.maximum(radius, 1e-3), light)
    painted = tint * shade[..., None]
    patch = canvas.colour[rows, cols]
    patch += cover[..., None] * (painted - patch)
    solid = cover > 0.5
    canvas.depth[rows, cols][solid] = depth[solid]
    canvas.part[rows, cols][solid] = PARTS.index(limb.part)
    canvas.member[rows, cols][solid] = MEMBERS.index(limb.member)


def _window(canvas: Canvas, limb: Limb) -> tuple[slice, slice] | None:
    height, width = canvas.depth.shape
    reach = max(limb.radius_start, limb.radius_end) + 1
    low = np.floor(np.minimum(limb.start, limb.end)[:2] - reach).astype(int)
    high = np.ceil(np.maximum(limb.start, limb.end)[:2] + reach).astype(int) + 1
    x0, y0 = np.maximum(low, 0)
    x1, y1 = min(high[0], width), min(high[1], height)
    return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None


def _cloth(material: Material, along: Array, side: Array) -> Array:
    """Colour (H W 3) of the cloth at a place on the limb, in body heights; its mean is the base."""
    u = material.frequency * along + material.phase
    v = material.frequency * side + material.phase
    waves = {
        "plain": 0 * u,
        "stripes": np.sign(np.sin(u)),
        "pinstripes": np.sign(np.sin(v)),
        "checks": np.sign(np.sin(u) * np.sin(v)),
        "dots": 2.0 * (np.sin(u) * np.sin(v) > 0.45) - 0.5,
    }
    level = 48 * material.strength * waves[material.pattern]
    return np.asarray(np.clip(material.colour + level[..., None], 0, 255), np.float32)


def _shade(normal: Array, light: Array) -> Array:
    facing = np.clip(np.tensordot(light, normal, 1), -0.2, 1)
    return np.asarray(0.76 + 0.32 * facing, np.float32)
