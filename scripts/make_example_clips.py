"""Makes the control clips in examples/ from the keypoints that ship with the package.

Run from anywhere: `python scripts/make_example_clips.py [--out FOLDER]`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hgc_video.media.video import write_video
from hgc_video.preprocess.pose import skeleton_frames
from hgc_video.puppet.motion import load_recorded
from hgc_video.puppet.spec import Spec
from hgc_video.puppet.world import render

ROOT = Path(__file__).resolve().parent.parent
MOTIONS = ROOT / "hgc_video" / "puppet" / "motions"
SIDE = 256  # pixels; twice the embedded model's default, so that lines survive resizing
START_S, COUNT, FPS = 7.0, 24, 8.0  # three lively seconds: steps to either side, both arms moving
FILLED = 0.8  # share of the frame's height the dancer takes
EXAMPLE = Spec("red", "blue", "none", "beach")  # depth shows none of it
HEAD = 0.07  # of the height eyes to ankles: what lies above the eyes


def at_times(keypoints: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keypoints (f 18 4) between frames, at the frame numbers `at`."""
    before = np.floor(at).astype(int)
    share = (at - before)[:, None, None]
    mixed: NDArray[np.float64] = (1 - share) * keypoints[before] + share * keypoints[before + 1]
    return mixed


def centred(keypoints: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Keypoints (f 18 4) in pixels, moved as one so that the dancer is centred and fills FILLED."""
    x, y = keypoints[..., 0], keypoints[..., 1]
    low = y.max()
    high = y.min() - HEAD * (low - y.min())
    scale = FILLED * height / (low - high)
    placed = keypoints.copy()
    placed[..., 0] = (x - (x.max() + x.min()) / 2) * scale + width / 2
    placed[..., 1] = (y - (low + high) / 2) * scale + height / 2
    placed[..., 2] *= scale
    return placed


def dance(motion: NDArray[np.float64], fps: float) -> NDArray[np.float64]:
    """COUNT frames (f 18 4) in pixels, from a motion (f 18 4) recorded at `fps`."""
    frames = at_times(motion, fps * (START_S + np.arange(COUNT) / FPS))
    return centred(frames, SIDE, SIDE)


def make_dance_pose(folder: Path) -> Path:
    """Writes dance_pose.mp4: COUNT frames of a real dance as skeletons."""
    motion = json.loads((MOTIONS / "dance.json").read_text())
    keypoints = dance(np.array(motion["keypoints"]), motion["fps"])
    return write_video(folder / "dance_pose.mp4", skeleton_frames(keypoints, SIDE, SIDE), FPS)


def make_dance_depth(folder: Path) -> Path:
    """Writes dance_depth.mp4: the same frames of the same dance as a depth clip, near is bright."""
    fps = json.loads((MOTIONS / "dance.json").read_text())["fps"]
    keypoints = dance(load_recorded("dance").astype(np.float64), fps)
    keypoints[..., :3] /= SIDE  # the world counts in frame heights
    keypoints[..., 2] -= keypoints[..., 2].mean()
    clip = render(EXAMPLE, keypoints.astype(np.float32), 0, height=SIDE, width=SIDE)
    return write_video(folder / "dance_depth.mp4", clip.depth, FPS)


def main() -> None:
    """Writes every example clip."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "examples", help="folder to write to")
    out = parser.parse_args().out
    print(make_dance_pose(out), make_dance_depth(out), sep="\n")


if __name__ == "__main__":
    main()
