"""A dancer in your colours, moved by a pose clip: python examples/quickstart.py [OUT.mp4]"""

from __future__ import annotations

import sys
from pathlib import Path

import hgc_video

here = Path(__file__).parent
out = sys.argv[1] if len(sys.argv) > 1 else "quickstart.mp4"

clip = hgc_video.generate(
    here / "dance_pose.mp4",
    "a dancer in a red shirt and blue trousers on a beach",
    preset="balanced",
    num_frames=16,
    seed=1,
)
print(clip.report)
print("clip", clip.save(out))
