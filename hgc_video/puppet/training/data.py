"""Training clips, rendered once and kept as shards of uint8 arrays on disk.

A shard holds clips of one frame shape. Knows nothing about models.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..motion import Motion, random_motion
from ..spec import Spec, random_spec, spec_from
from ..world import render

CLIP_FRAMES = 16
CLIPS_PER_SHARD = 32
SHAPES = ((128, 128), (160, 96), (96, 160))  # (H, W): square, portrait, landscape
_SHAPE_OF = (0, 0, 0, 1, 0, 0, 1, 0, 0, 2)  # shard index modulo 10: 70 % square


@dataclass(frozen=True)
class Shard:
    """Clips of one shape: frames and pose (k f H W 3), depth (k f H W), all uint8, and their specs."""

    frames: NDArray[np.uint8]
    pose: NDArray[np.uint8]
    depth: NDArray[np.uint8]
    specs: list[Spec]


def make_shard(folder: Path, index: int, seed: int) -> Path:
    """Renders shard `index` into `folder`, or leaves it if it is there; returns its path."""
    path = folder / f"shard-{index:04d}"
    if (path / "specs.json").exists():
        return path
    path.mkdir(parents=True, exist_ok=True)
    height, width = SHAPES[_SHAPE_OF[index % len(_SHAPE_OF)]]
    rng = np.random.default_rng([seed, index])
    clips, specs = [], []
    for _ in range(CLIPS_PER_SHARD):
        spec = random_spec(rng)
        motion = hide_joints(random_motion(rng, CLIP_FRAMES, width / height), rng)
        style_seed = int(rng.integers(2**31))
        stroke = float(rng.uniform(1.5, 3.2))
        clips.append(render(spec, motion, style_seed, height=height, width=width, stroke=stroke))
        specs.append(spec)
    np.save(path / "frames.npy", np.stack([c.frames for c in clips]))
    np.save(path / "pose.npy", np.stack([c.pose for c in clips]))
    np.save(path / "depth.npy", np.stack([c.depth[..., 0] for c in clips]))
    (path / "specs.json").write_text(json.dumps([asdict(s) for s in specs]))  # last: marks it whole
    return path


def make_shards(folder: Path, count: int, seed: int, processes: int = 1) -> list[Path]:
    """Renders the shards that are not there, in so many processes; the paths of all."""
    render = partial(make_shard, folder, seed=seed)
    if processes == 1:
        return [render(index) for index in range(count)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(render, range(count)))


def load_shard(path: Path) -> Shard:
    """Opens a shard; arrays stay on disk until they are read."""
    specs = [spec_from(s) for s in json.loads((path / "specs.json").read_text())]
    arrays = {
        name: np.load(path / f"{name}.npy", mmap_mode="r") for name in ("frames", "pose", "depth")
    }
    return Shard(**arrays, specs=specs)


def hide_joints(motion: Motion, rng: np.random.Generator) -> Motion:
    """Hides joints the way detectors lose them, so that foreign skeleton clips are no surprise."""
    motion = motion.copy()
    if rng.random() < 0.15:
        motion[:, 14:18, 3] = 0
    if rng.random() < 0.05:
        motion[:, [0, 14, 15, 16, 17], 3] = 0
    if rng.random() < 0.2:
        motion[rng.random(motion.shape[:2]) < 0.04, 3] = 0
    return motion
