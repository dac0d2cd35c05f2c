#!/usr/bin/env python
"""Draws what the embedded model makes of held-out prompts and controls, the world's own rendering above it.

Pose and depth take turns; four frames of each clip. The world's patterns, light and scenery are another draw
than the model's: only colours, scene, silhouette and limbs can be compared.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hgc_video.evaluate.results_header import results_header, save_png
from hgc_video.puppet.evaluation import Options, Sampler, held_out
from hgc_video.puppet.prompts import plain_prompt
from hgc_video.puppet.reconstruction import sheet

SHOWN = 4


def main() -> None:
    """Makes the clips and draws them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", default="puppet", help="puppet or a folder")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="number of the first held-out case")
    parser.add_argument("--num-frames", type=int, default=16)
    parser.add_argument("--num-inference-steps", type=int, default=25)
    parser.add_argument("--scale", type=int, default=1, help="pixels of the sheet per pixel")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sample = Sampler(
        Options(
            args.model, num_frames=args.num_frames, num_inference_steps=args.num_inference_steps
        )
    )
    shown = np.linspace(0, args.num_frames - 1, SHOWN).round().astype(int)
    truth, made = [], []
    for index in range(args.first, args.first + args.prompts):
        case, kind = held_out(index, args.num_frames), ("pose", "depth")[index % 2]
        truth.append(case.truth.frames[shown])
        made.append(sample(case, kind)[shown])
        print(f"{index} {kind}: {plain_prompt(case.spec)}", flush=True)
    picture = sheet(
        np.concatenate(truth), np.concatenate(made), columns=2 * SHOWN, scale=args.scale
    )
    header = results_header(args.model, clips=args.prompts, seeds=1)
    save_png(Image.fromarray(picture), args.out, header)


if __name__ == "__main__":
    main()
