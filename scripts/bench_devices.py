#!/usr/bin/env python
"""One clip over several processes, against one process: the difference, seconds, and bytes exchanged.

Processes on the CPU share the cores of this machine, so that there is no time to win but on GPUs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import hgc_video
from hgc_video.puppet.evaluation import held_out
from hgc_video.puppet.prompts import plain_prompt


def row(args: argparse.Namespace, preset: str) -> dict[str, Any]:
    """Both runs of one preset, compared."""
    case = held_out(args.case, args.num_frames)
    clips = [
        hgc_video.generate(
            case.truth.pose, plain_prompt(case.spec), preset=preset, seed=case.seed, progress=False,
            num_inference_steps=args.num_inference_steps, height=args.size, width=args.size,
            context_length=args.context_length, device=args.device, devices=devices,
        )
        for devices in (1, args.devices)
    ]  # fmt: skip
    one, several = (clip.report for clip in clips)
    difference = np.abs(clips[0].frames.astype(int) - clips[1].frames)
    return {
        "preset": preset, "devices": args.devices, "largest_difference": int(difference.max()),
        "differing": float((difference > 0).mean()), "exchanged_nbytes": several.exchanged_nbytes,
        "exchange_s": several.seconds["exchange"], "denoise_s": several.seconds["denoise"],
        "one_denoise_s": one.seconds["denoise"], "one_macs": one.macs, "macs": several.macs,
    }  # fmt: skip


def main() -> None:
    """Reads the options, makes the clips and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--presets", default="off;balanced;deepcache:interval=3")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--num-frames", type=int, default=48)
    parser.add_argument("--num-inference-steps", type=int, default=10)
    parser.add_argument("--context-length", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--case", type=int, default=6)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    print(
        "| preset | difference, of 255 | MiB exchanged | s exchanging | s denoising | one process, s |"
    )
    print("|---|---|---|---|---|---|")
    rows = []
    for preset in args.presets.split(";"):
        rows.append(found := row(args, preset))
        print(
            f"| `{preset}` | {found['largest_difference']} (in {100 * found['differing']:.3f} % of values) | "
            f"{found['exchanged_nbytes'] / 2**20:.2f} | {found['exchange_s']:.2f} | "
            f"{found['denoise_s']:.1f} | {found['one_denoise_s']:.1f} |",
            flush=True,
        )
    if args.json is not None:
        told = {"options": {**vars(args), "json": None}, "rows": rows}
        args.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
