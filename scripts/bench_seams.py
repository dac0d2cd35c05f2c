#!/usr/bin/env python
"""Looks for seams in long clips: the change from frame to frame at the borders of windows, against inside.

Both are divided by the true clip's change at the same frames, so that a fast movement that happens to
fall on a border is no seam. 1 is none.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

import hgc_video
from hgc_video.plan.memory.windows import Windows
from hgc_video.puppet.evaluation import held_out
from hgc_video.puppet.prompts import plain_prompt


def changes(frames: np.ndarray) -> np.ndarray:
    """Mean absolute change of each frame (f H W 3) against the one before: (f - 1,)."""
    return np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))


def borders(num_frames: int, length: int, overlap: int) -> np.ndarray:
    """Which changes cross the start or the end of a window."""
    at = np.zeros(num_frames - 1, bool)
    for window in Windows(num_frames, length, overlap).plain:
        for edge in (window.start, window.start + window.length):
            if 0 < edge < num_frames:
                at[edge - 1] = True
    return at


def main() -> None:
    """Reads the options, makes clips and prints their ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--num-frames", type=int, default=128)
    parser.add_argument("--num-inference-steps", type=int, default=15)
    parser.add_argument("--presets", default="off;balanced")
    parser.add_argument("--context-length", type=int, default=16)
    parser.add_argument("--context-overlap", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    at = borders(args.num_frames, args.context_length, args.context_overlap)
    for preset in args.presets.split(";"):
        ratios = []
        for index in range(args.clips):
            case = held_out(3000 + index, args.num_frames)
            clip = hgc_video.generate(
                case.truth.pose, plain_prompt(case.spec), preset=preset, num_frames=args.num_frames,
                num_inference_steps=args.num_inference_steps, seed=case.seed, progress=False,
                context_length=args.context_length, context_overlap=args.context_overlap,
            )  # fmt: skip
            change = changes(clip.frames) / changes(case.truth.frames)
            ratios.append(float(change[at].mean() / change[~at].mean()))
        print(f"{preset:<12} border / inside: {np.mean(ratios):.3f} of {ratios}", flush=True)


if __name__ == "__main__":
    main()
