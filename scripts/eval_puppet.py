#!/usr/bin/env python
"""Measures the embedded model on held-out clips: prompt, control, limbs, hats, freedom, fairness of samplers.

Prints a table against the aims and, with --json, writes every figure. Seeds are apart from training's.
Several models are put side by side: scripts/eval_puppet.py --model puppet runs/puppet/model
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from hgc_video.evaluate.results_header import results_header, write_results
from hgc_video.puppet.evaluation import Options, evaluate
from hgc_video.puppet.evaluation_table import table


def main() -> None:
    """Reads the options, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    defaults = Options()
    parser.add_argument(
        "--model", nargs="+", default=[defaults.model], help="puppet, or folders, or both"
    )
    parser.add_argument(
        "--clips", type=int, default=defaults.clips, help="held-out (spec, motion) pairs"
    )
    parser.add_argument("--num-frames", type=int, default=defaults.num_frames)
    parser.add_argument("--num-inference-steps", type=int, default=defaults.num_inference_steps)
    parser.add_argument("--guidance-scale", type=float, default=defaults.guidance_scale)
    parser.add_argument(
        "--extras", type=int, default=defaults.extras, help="clips for the slower questions"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--memory", type=Path, help="file of clips measured so far, so that a stopped run goes on"
    )
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    given = {name: getattr(args, name) for name in vars(defaults) if name != "model"}
    found = {}
    for model in args.model:
        print(model, flush=True)
        options = Options(model=model, **given)
        found[model] = evaluate(options, lambda line: print(line, flush=True), args.memory)
    print(table(found))
    if args.json is not None:
        header = results_header(args.model[0], clips=args.clips, seeds=1)
        write_results(args.json, header, evaluations=found)


if __name__ == "__main__":
    main()
