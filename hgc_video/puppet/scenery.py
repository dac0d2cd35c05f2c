"""Backgrounds: six kinds of scene, each rich in what the style seed decides.

A background is drawn once per clip, with a margin for the camera's sway. Knows nothing about dancers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]


def paint(scene: str, rng: np.random.Generator, height: int, width: int) -> Array:
    """A background (H W 3), 0..255, of the named scene."""
    picture = _PAINTERS[scene](rng, height, width)
    tint = 1 + rng.normal(0, 0.04, 3)
    return np.clip(picture * tint * rng.uniform(0.88, 1.06), 0, 255).astype(np.float32)


def noise(rng: np.random.Generator, height: int, width: int, cells: float) -> Array:
    """Smooth noise (H W) in about -1..1 with `cells` cells over the height."""
    rows = max(2, round(cells))
    cols = max(2, round(cells * width / height))
    grid = rng.uniform(-1, 1, (rows, cols)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def _rgb(*values: float) -> Array:
    return np.asarray(values, np.float32)


def _gradient(top: Array, bottom: Array, height: int, width: int) -> Array:
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    return np.broadcast_to(top + share * (bottom - top), (height, width, 3)).copy()


def _cover(picture: Array, mask: NDArray[np.bool_] | Array, colour: Array) -> None:
    share = mask.astype(np.float32)[..., None]
    picture += share * (colour - picture)


def _rows(height: int, width: int) -> tuple[Array, Array]:
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    return ys / height, xs / height


def _sky(rng: np.random.Generator, height: int, width: int) -> Array:
    tops = (
        _rgb(70, 130, 210),
        _rgb(110, 170, 230),
        _rgb(90, 90, 150),
        _rgb(225, 150, 110),
        _rgb(150, 165, 185),
    )
    top = tops[int(rng.integers(len(tops)))]
    sky = _gradient(top, 0.45 * top + 0.55 * _rgb(245, 235, 220), height, width)
    clouds = 0.6 * noise(rng, height, width, 5) + 0.4 * noise(rng, height, width, 13)
    thick = np.clip((clouds - rng.uniform(-0.1, 0.5)) * 3, 0, 0.85).astype(np.float32)
    _cover(sky, thick, _rgb(246, 244, 242))
    if rng.random() < 0.5:
        ys, xs = _rows(height, width)
        disc = np.hypot(ys - rng.uniform(0.08, 0.3), xs - rng.uniform(0.1, 0.9)) < rng.uniform(
            0.03, 0.07
        )
        _cover(sky, disc, _rgb(255, 242, 190))
    return sky


def _ground(
    picture: Array, rng: np.random.Generator, horizon: float | Array, colour: Array, rough: float
) -> None:
    height, width, _ = picture.shape
    ys, _ = _rows(height, width)
    grain = noise(rng, height, width, 9) + 0.8 * noise(rng, height, width, 30)
    tone = colour + rough * grain[..., None] + 30 * (ys - 0.8)[..., None]
    share = (ys > horizon).astype(np.float32)[..., None]
    picture += share * (tone - picture)


def _ridge(rng: np.random.Generator, width: int, level: float, swing: float, cells: float) -> Array:
    """A skyline: one height (share of the frame) per column, shape (1 W)."""
    return level + swing * noise(rng, width, width, cells)[:1]


def _beach(rng: np.random.Generator, height: int, width: int) -> Array:
    picture = _sky(rng, height, width)
    ys, _ = _rows(height, width)
    horizon, shore = rng.uniform(0.3, 0.48), rng.uniform(0.55, 0.72)
    sea = (_rgb(35, 110, 160), _rgb(40, 150, 170), _rgb(30, 80, 130))[int(rng.integers(3))]
    waves = np.sin((ys - horizon) * rng.uniform(60, 130) + 2 * noise(rng, height, width, 6))
    _cover(picture, ys > horizon, sea)
    _cover(picture, (ys > horizon) & (waves > 0.75), sea + 55)
    edge = _ridge(rng, width, shore, 0.03, 3)
    _ground(picture, rng, edge, _rgb(222, 196, 140) + rng.normal(0, 8), 11)
    _cover(picture, (np.abs(ys - edge) < 0.012), _rgb(245, 245, 240))
    for _ in range(int(rng.integers(0, 4))):
        _blob(picture, rng, rng.uniform(0.75, 0.97), 0.012, _rgb(150, 120, 90))
    return picture


def _forest(rng: np.random.Generator, height: int, width: int) -> Array:
    picture = _gradient(_rgb(120, 160, 120), _rgb(60, 95, 60), height, width)
    picture += 20 * noise(rng, height, width, 10)[..., None]
    ys, xs = _rows(height, width)
    floor = rng.uniform(0.6, 0.75)
    for depth in np.sort(rng.uniform(0.2, 1, int(rng.integers(6, 13)))):
        x, half = rng.uniform(0, width / height), 0.012 + 0.035 * depth
        bark = _rgb(95, 70, 48) * (0.55 + 0.5 * depth) + rng.normal(0, 6, 3)
        lean = rng.normal(0, 0.03)
        trunk = (np.abs(xs - x - lean * ys) < half) & (ys < floor + 0.12 * depth)
        _cover(picture, trunk, bark.astype(np.float32))
    leaves = noise(rng, height, width, 8) + 0.8 * noise(rng, height, width, 22) - 5.5 * (ys - 0.3)
    green = _rgb(45, 105, 42) + rng.normal(0, 12, 3).astype(np.float32)
    _cover(picture, leaves > 0.15, green)
    _cover(picture, leaves > 0.75, green + 28)
    _ground(
        picture, rng, _ridge(rng, width, floor, 0.02, 4), _rgb(86, 102, 52) + rng.normal(0, 8), 17
    )
    return picture


def _city(rng: np.random.Generator, height: int, width: int) -> Array:
    picture = _sky(rng, height, width)
    street = rng.uniform(0.62, 0.74)
    x = -rng.uniform(0, 0.1)
    ys, xs = _rows(height, width)
    while x < width / height:
        wide, top = rng.uniform(0.12, 0.3), rng.uniform(0.05, 0.42)
        wall = _rgb(*rng.uniform(70, 190) * (1 + rng.normal(0, 0.09, 3)))
        house = (xs >= x) & (xs < x + wide) & (ys > top) & (ys < street)
        _cover(picture, house, wall)
        step_x, step_y = rng.uniform(0.04, 0.07), rng.uniform(0.05, 0.09)
        pane = ((xs - x) % step_x > 0.45 * step_x) & ((ys - top) % step_y > 0.5 * step_y)
        glow = _rgb(245, 225, 140) if rng.random() < 0.35 else wall * 0.5
        _cover(picture, house & pane, glow)
        x += wide + rng.uniform(0, 0.03)
    _ground(picture, rng, street, _rgb(92, 92, 97) + rng.normal(0, 9), 7)
    _cover(picture, (ys > street) & (ys < street + 0.035), _rgb(170, 168, 160))
    dash = (np.abs(ys - rng.uniform(0.84, 0.92)) < 0.008) & ((xs + rng.random()) % 0.2 < 0.11)
    _cover(picture, dash, _rgb(235, 230, 200))
    return picture


def _desert(rng: np.random.Generator, height: int, width: int) -> Array:
    picture = _sky(rng, height, width)
    ys, xs = _rows(height, width)
    sand = _rgb(216, 152, 86) + rng.normal(0, 10, 3).astype(np.float32)
    for level in np.linspace(rng.uniform(0.35, 0.5), 0.82, int(rng.integers(3, 6))):
        ridge = _ridge(rng, width, float(level), 0.07, rng.uniform(2, 4))
        tone = sand * rng.uniform(0.78, 1.08)
        _cover(picture, ys > ridge, tone)
        ripple = np.sin((ys - ridge) * rng.uniform(70, 160) + 5 * noise(rng, height, width, 4))
        _cover(picture, (ys > ridge) & (ripple > 0.6), tone * 0.92)
    for _ in range(int(rng.integers(0, 3))):
        _cactus(picture, rng, xs, ys)
    return picture


def _cactus(picture: Array, rng: np.random.Generator, xs: Array, ys: Array) -> None:
    x, foot = rng.uniform(0.05, 0.95) * xs.max(), rng.uniform(0.6, 0.75)
    tall = rng.uniform(0.15, 0.3)
    body = (np.abs(xs - x) < 0.018) & (ys > foot - tall) & (ys < foot)
    arm = (np.abs(xs - x - 0.045) < 0.012) & (ys > foot - 0.8 * tall) & (ys < foot - 0.45 * tall)
    link = (xs > x) & (xs < x + 0.055) & (np.abs(ys - foot + 0.45 * tall) < 0.012)
    _cover(picture, body | arm | link, _rgb(60, 115, 60))


def _snow(rng: np.random.Generator, height: int, width: int) -> Array:
    picture = _sky(rng, height, width)
    ys, xs = _rows(height, width)
    far = _ridge(rng, width, rng.uniform(0.25, 0.38), 0.16, rng.uniform(3, 6))
    rock = _rgb(112, 122, 142) + rng.normal(0, 10, 3).astype(np.float32)
    _cover(picture, ys > far, rock)
    cap = far + 0.08 + 0.05 * noise(rng, height, width, 14)
    _cover(picture, (ys > far) & (ys < cap), _rgb(240, 244, 250))
    floor = _ridge(rng, width, rng.uniform(0.55, 0.68), 0.04, 3)
    for _ in range(int(rng.integers(2, 9))):
        x, foot, tall = rng.uniform(0, xs.max()), rng.uniform(0.58, 0.72), rng.uniform(0.14, 0.3)
        share = (ys - foot + tall) / tall
        saw = 0.75 + 0.35 * ((share * 4) % 1)
        pine = (np.abs(xs - x) < 0.28 * tall * share * saw) & (share > 0) & (share < 1)
        _cover(picture, pine, _rgb(34, 74, 56) + rng.normal(0, 7))
    _ground(picture, rng, floor, _rgb(228, 233, 242), 7)
    flakes = rng.random((height, width)) < rng.uniform(0, 0.006)
    _cover(picture, flakes, _rgb(252, 252, 255))
    return picture


def _stage(rng: np.random.Generator, height: int, width: int) -> Array:
    ys, xs = _rows(height, width)
    cloth = _rgb(*rng.uniform(50, 130, 3))
    folds = np.sin(xs * rng.uniform(35, 80) + 1.5 * noise(rng, height, width, 3) + 6 * rng.random())
    picture = cloth + 30 * folds[..., None] + np.zeros((height, width, 3), np.float32)
    floor = rng.uniform(0.66, 0.76)
    wood = _rgb(124, 86, 56) + rng.normal(0, 10, 3).astype(np.float32)
    _ground(picture, rng, floor, wood, 6)
    middle = 0.5 * width / height
    plank = ((xs - middle) / (ys - floor + 0.25) * rng.uniform(3, 6)) % 1 < 0.08
    _cover(picture, plank & (ys > floor), wood * 0.7)
    for _ in range(int(rng.integers(1, 4))):
        x, lamp = rng.uniform(0.1, 0.9) * xs.max(), _rgb(*rng.uniform(150, 255, 3))
        aim = x + rng.normal(0, 0.2)
        beam = np.abs(xs - x - (aim - x) * ys) < 0.03 + 0.16 * ys
        picture += (beam * rng.uniform(0.12, 0.3))[..., None] * (lamp - picture)
    for _ in range(int(rng.integers(0, 7))):
        _blob(picture, rng, rng.uniform(0.04, 0.2), 0.016, _rgb(255, 240, 200))
    return np.asarray(picture, np.float32)


def _blob(
    picture: Array, rng: np.random.Generator, level: float, size: float, colour: Array
) -> None:
    ys, xs = _rows(*picture.shape[:2])
    radius = size * rng.uniform(0.6, 1.5)
    _cover(picture, np.hypot(ys - level, xs - rng.uniform(0, xs.max())) < radius, colour)


_PAINTERS: dict[str, Callable[[np.random.Generator, int, int], Array]] = {
    "beach": _beach,
    "forest": _forest,
    "city": _city,
    "desert": _desert,
    "snow": _snow,
    "stage": _stage,
}
