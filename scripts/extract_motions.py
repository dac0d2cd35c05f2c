"""Takes the keypoints of one person out of a clip, as a motion for the puppet's world.

`python scripts/extract_motions.py CLIP OUT.json --source "where it is from, licence"`; needs the
extra `pose`. The motions in hgc_video/puppet/motions/ were made like this from MIT-licensed clips.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from hgc_video.media.control import plan_frames
from hgc_video.media.video import iter_frames, probe
from hgc_video.preprocess.pose import extract_pose

_SMOOTHING = np.array([1, 4, 6, 4, 1]) / 16  # binomial, over frames at the source's rate


def extract_motion(clip: Path, source: str) -> dict[str, object]:
    """Keypoints (f 18 4) in units of the frame's height, smoothed and thinned to about 12 fps."""
    info = probe(clip)
    indices, fps = plan_frames(info.num_frames, info.fps)
    keypoints = extract_pose(iter_frames(clip)) / np.array([info.height] * 3 + [1])
    padded = np.pad(keypoints, ((2, 2), (0, 0), (0, 0)), "edge")
    smooth = sum(w * padded[i : i + len(keypoints)] for i, w in enumerate(_SMOOTHING))
    return {
        "fps": round(fps, 3),
        "size": [info.width, info.height],
        "source": source,
        "keypoints": np.round(np.asarray(smooth)[indices], 4).tolist(),
    }


def main() -> None:
    """Reads the command line and writes the motion."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", required=True, help="origin and licence of the clip")
    asked = parser.parse_args()
    motion = extract_motion(asked.clip, asked.source)
    asked.out.write_text(json.dumps(motion, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
