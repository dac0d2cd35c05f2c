"""One depth clip, two prompts: python examples/depth_to_video.py [FOLDER]"""

from __future__ import annotations

import sys
from pathlib import Path

import hgc_video

here = Path(__file__).parent
out = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

PROMPTS = [
    "a dancer in a yellow shirt and black trousers in a city",
    "a dancer in a white shirt and green trousers in a forest",
]

for seed, prompt in enumerate(PROMPTS):
    clip = hgc_video.generate(
        here / "dance_depth.mp4", prompt, control="depth", num_frames=8, seed=seed
    )
    saved = f"{100 * clip.report.macs_saved:.0f} % of the MACs saved"
    print(clip.save(out / f"depth_{seed}.mp4"), f"{clip.report.seconds['total']:.1f} s,", saved)
