#!/usr/bin/env python
"""What checkpoints cost: a run that is kept, and how long a state of a size takes to write.

The share is of the run without them; of a state alone, of the seconds between two checkpoints.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

import hgc_video
from hgc_video.jobs.checkpoint.work_folder import WorkFolder
from hgc_video.puppet.evaluation import held_out
from hgc_video.puppet.prompts import plain_prompt


def of_a_run(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Seconds of a run, and of its checkpoints."""
    case = held_out(args.case, args.num_frames)
    clip = hgc_video.generate(
        case.truth.pose, plain_prompt(case.spec), preset=args.preset, num_frames=args.num_frames,
        num_inference_steps=args.num_inference_steps, height=args.size, width=args.size, progress=False,
        work=folder / "run", checkpoint_every_s=args.every_s, memory=args.memory or None,
    )  # fmt: skip
    seconds = clip.report.seconds
    run_s, write_s = seconds["denoise"] + seconds["decode"], seconds.get("checkpoint", 0.0)
    return {"run_s": run_s, "write_s": write_s, "share": write_s / max(run_s - write_s, 1e-9)}


def of_a_state(nbytes: int, every_s: float, folder: Path) -> dict[str, float]:
    """Seconds that a state of so many bytes takes to write, and its share of the interval."""
    work = WorkFolder(folder / "state")
    work.open()
    state = {"tensors": [torch.rand(2**18) for _ in range(max(1, nbytes // 2**20))]}
    began = time.perf_counter()
    written = work.keep(state)
    write_s = time.perf_counter() - began
    work.remove()
    return {"nbytes": written, "write_s": write_s, "share": write_s / (every_s or 60.0)}


def main() -> None:
    """Reads the options, measures and prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--every-s", type=float, default=60.0, help="seconds between checkpoints")
    parser.add_argument("--nbytes", default="16,256,1024", help="MiB of the states")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--memory", default="", help="a budget that has idle caches offloaded")
    parser.add_argument("--num-frames", type=int, default=96)
    parser.add_argument("--num-inference-steps", type=int, default=10)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--case", type=int, default=6)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench_checkpoint-") as place:
        states = [
            of_a_state(int(size) * 2**20, args.every_s, Path(place))
            for size in args.nbytes.split(",")
        ]
        run = of_a_run(args, Path(place))
    print(f"| state | seconds to write | share of {args.every_s:g} s |\n|---|---|---|")
    for state in states:
        mebi = state["nbytes"] / 2**20
        print(f"| {mebi:.0f} MiB | {state['write_s']:.2f} | {100 * state['share']:.2f} % |")
    print(
        f"a run of {run['run_s']:.1f} s: {run['write_s']:.2f} s of checkpoints, "
        f"{100 * run['share']:.2f} %"
    )
    if args.json:
        args.json.write_text(json.dumps({"every_s": args.every_s, "run": run, "states": states}))


if __name__ == "__main__":
    main()
