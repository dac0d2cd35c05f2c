#!/usr/bin/env python
"""Trains the embedded model from nothing: data, VAE, decoder, text encoder, stills, clips, judge.

Every stage resumes where it was stopped; run the script again with the same folder to go on. What an earlier
training left in the package (hgc_video/puppet/training/state) is taken up where the folder is not as far.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from hgc_video.puppet.training import run
from hgc_video.puppet.training.state import keep, restore

DEFAULTS = run.Plan()
_BEFORE_DENOISER = run.STAGES[: run.STAGES.index("stills")]


def main() -> None:
    """Reads the options and trains."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/puppet"), help="checkpoints, data and curve"
    )
    parser.add_argument("--export", type=Path, default=None, help="write the trained model here")
    parser.add_argument(
        "--until-stage", choices=run.STAGES, default=run.STAGES[-1], help="stop after this stage"
    )
    parser.add_argument("--minutes", type=float, default=600, help="stop (resumable) after so long")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="render the clips in so many")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="of the stages stills and clips"
    )
    parser.add_argument("--seed", type=int, default=0)
    for name, value in vars(DEFAULTS).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--from-nothing", action="store_true", help="leave the kept state alone")
    parser.add_argument("--keep", action="store_true", help="write the state anew at the end")
    args = parser.parse_args()
    if args.export is not None and args.until_stage in _BEFORE_DENOISER:
        parser.error(f"--export writes a denoiser; --until-stage {args.until_stage} has none yet")
    torch.set_num_threads(args.threads)
    plan = run.Plan(**{name: getattr(args, name) for name in vars(DEFAULTS)})
    until = time.time() + 60 * args.minutes
    args.folder.mkdir(parents=True, exist_ok=True)
    if not args.from_nothing:
        print("taken up:", ", ".join(restore(args.folder)) or "nothing", flush=True)
    trained = run.train(
        args.folder, plan, seed=args.seed, until=until, last=args.until_stage, device=args.device,
        processes=args.processes,
    )  # fmt: skip
    if args.export is not None:
        trained.export(args.export)
        print(f"exported to {args.export}")
    if args.keep:
        keep(args.folder, plan.steps(args.folder))


if __name__ == "__main__":
    main()
