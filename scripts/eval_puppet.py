#!/usr/bin/env python
"""Measures the embedded model on held-out clips: prompt fidelity, control fidelity, freedom, fairness.

Prints one table and, with --json, writes it. Seeds are apart from training's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from hgc_video.puppet.evaluation import Options, evaluate


def main() -> None:
    """Reads the options, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    defaults = Options()
    parser.add_argument("--model", default=defaults.model, help="puppet or a folder")
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
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    options = Options(**{name: getattr(args, name) for name in vars(defaults)})
    figures = evaluate(options, log=lambda line: print(line, flush=True))
    print(json.dumps(figures, indent=2))
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
