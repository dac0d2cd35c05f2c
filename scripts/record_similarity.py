#!/usr/bin/env python
"""Records how the embedded model's layers change from step to step, for policies that refresh by it.

Writes the YAML file that `block-caching:calibration=FILE` and `hgc:threshold=...,calibration=FILE` read.
With --fit THRESHOLD it also fits scales and shifts for what Block Caching keeps at that threshold, for
`block-caching:...,adjust=FILE`. The clips take no part in any evaluation.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from hgc_video.cache.adjust import Fit, adjustment_name
from hgc_video.denoise import ControlledUNet, denoise
from hgc_video.guidance import Guidance
from hgc_video.measure.similarity import Changes, Recorder
from hgc_video.models.graph import build_graph
from hgc_video.models.load import default_guidance_scale, load_pipeline
from hgc_video.plan.policies.block_caching import BlockCaching
from hgc_video.puppet.evaluation import held_out
from hgc_video.puppet.prompts import plain_prompt

FIRST_CLIP = 7000  # far from the seeds of any evaluation


class Runs:
    """Uncached runs of the embedded model, watched."""

    def __init__(self, num_frames: int, num_inference_steps: int) -> None:
        self.pipe, self.num_frames = load_pipeline("puppet", "pose"), num_frames
        self.num_inference_steps = num_inference_steps
        self.graph = build_graph(
            self.pipe.unet, self.pipe.controlnet, num_frames=num_frames, height=16, width=16,
            num_tokens=self.pipe.tokenizer.model_max_length,
        )  # fmt: skip

    def run(self, clip: int, see: object) -> None:
        """One clip; `see` gets every layer's features."""
        pipe, case = self.pipe, held_out(FIRST_CLIP + clip, self.num_frames)
        text, negative = pipe.encode_prompt(plain_prompt(case.spec), "cpu", 1, True, None)
        cond = torch.from_numpy(case.truth.pose).permute(0, 3, 1, 2)
        guidance = Guidance(
            torch.cat([negative, text]).repeat_interleave(self.num_frames, 0),
            (cond,), default_guidance_scale("puppet"), (1.0,),
        )  # fmt: skip
        generator = torch.Generator().manual_seed(clip)
        shape = (1, pipe.unet.config.in_channels, self.num_frames, 16, 16)
        pipe.scheduler.set_timesteps(self.num_inference_steps)
        timesteps = pipe.scheduler.timesteps
        parts = {"unet": pipe.unet, "controlnet": pipe.controlnet}
        with Recorder(self.graph, parts, see) as recorder:  # type: ignore[arg-type]
            models = ControlledUNet(
                pipe.unet, pipe.controlnet, guidance, len(timesteps), engine=recorder
            )
            noise = torch.randn(shape, generator=generator)
            denoise(models, pipe.scheduler, noise, timesteps, positions=[models])


class Fits:
    """Fits of what a Block Caching schedule keeps."""

    def __init__(self, runs: Runs, policy: BlockCaching) -> None:
        steps = policy(runs.graph, runs.num_inference_steps).steps
        self.held = [step.contributions for step in steps]
        self.fits: dict[str, Fit] = defaultdict(Fit)
        self._kept: dict[str, torch.Tensor] = {}

    def __call__(self, layer: str, step_index: int, features: torch.Tensor) -> None:
        """Takes in a layer's features at a step."""
        if layer in self.held[step_index]:
            self.fits[adjustment_name(layer, step_index)].add(self._kept[layer], features)
        else:
            self._kept[layer] = features


def main() -> None:
    """Reads the options, runs the clips and writes the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("configs/puppet-similarity.yaml"))
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--num-frames", type=int, default=8)
    parser.add_argument("--num-inference-steps", type=int, default=25)
    parser.add_argument("--fit", type=float, default=None, help="threshold to fit adjustments for")
    parser.add_argument("--adjust-out", type=Path, default=Path("runs/adjust.safetensors"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs = Runs(args.num_frames, args.num_inference_steps)
    changes = Changes(args.num_inference_steps)
    for clip in range(args.clips):
        runs.run(clip, changes)
    changes.similarity("puppet").save(args.out)
    print(f"wrote {args.out}")
    if args.fit is not None:
        fits = Fits(runs, BlockCaching(threshold=args.fit, calibration=str(args.out)))
        for clip in range(args.clips):
            runs.run(clip, fits)
        args.adjust_out.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: fit.solve() for name, fit in fits.fits.items()}, args.adjust_out)
        print(f"wrote {args.adjust_out}")


if __name__ == "__main__":
    main()
