#!/usr/bin/env python
"""Measures presets and policies on the embedded model: MACs, time, likeness to the uncached clip, truth.

Every method meets the same held-out clips and noise, in one run. Beside each stands its equal-cost
control: plain fewer steps. Seconds are of the denoising loop alone, as a ratio to `off` of that clip.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import hgc_video
from hgc_video.measure.quality import psnr
from hgc_video.models.load import model_folder
from hgc_video.puppet.evaluation import Case, accuracy, held_out
from hgc_video.puppet.fidelity import part_colours, silhouette_iou
from hgc_video.puppet.judge import Judge, load_judge
from hgc_video.puppet.prompts import plain_prompt

METHODS = "off;lossless;quality;balanced;fast;turbo;deepcache:interval=3"


@dataclass(frozen=True)
class Row:
    """One method's figures: means over clips, and the spread of the PSNR."""

    method: str
    macs_saved: float
    time_ratio: float
    psnr_db: float
    psnr_spread_db: float
    part_colour_accuracy: float
    silhouette_iou: float


class Bench:
    """Runs methods on the same clips; the uncached clips are the reference."""

    def __init__(
        self, clips: int, num_frames: int, num_inference_steps: int, first_clip: int = 2000
    ) -> None:
        self.cases = [held_out(first_clip + i, num_frames) for i in range(clips)]
        self.num_inference_steps = num_inference_steps
        self.judge: Judge = load_judge(model_folder("puppet") / "judge.safetensors")
        self.off = [self._clip(case, "off") for case in self.cases]

    def row(self, method: str) -> Row:
        """The figures of a method."""
        clips = [self._clip(case, method) for case in self.cases]
        likeness = [psnr(c.frames, o.frames) for c, o in zip(clips, self.off, strict=True)]
        ratios = [
            c.report.seconds["denoise"] / o.report.seconds["denoise"]
            for c, o in zip(clips, self.off, strict=True)
        ]
        pairs = list(zip(clips, self.cases, strict=True))
        colours = [f for c, case in pairs for f in part_colours(c.frames, case.truth, case.spec)]
        ious = [silhouette_iou(c.frames, case.truth.silhouette, self.judge) for c, case in pairs]
        return Row(
            method, clips[0].report.macs_saved, float(np.median(ratios)), float(np.mean(likeness)),
            float(np.std(likeness)), accuracy(colours), float(np.mean(ious)),
        )  # fmt: skip

    def equal_cost(self, row: Row) -> Row:
        """Fewer plain steps at no less than the method's cost."""
        steps = max(1, round(self.num_inference_steps * (1 - row.macs_saved)))
        return self.row(f"fewer-steps:steps={steps}")

    def _clip(self, case: Case, method: str) -> hgc_video.Clip:
        kind = "pose" if case.seed % 2 == 0 else "depth"
        return hgc_video.generate(
            case.control(kind), plain_prompt(case.spec), control=kind, preset=method, seed=case.seed,
            num_inference_steps=self.num_inference_steps, progress=False,
        )  # fmt: skip


def rows(bench: Bench, methods: list[str]) -> Iterator[Row]:
    """Every method, each that saves a tenth or more followed by its equal-cost control."""
    for method in methods:
        row = bench.row(method)
        yield row
        if row.macs_saved >= 0.1 and not method.startswith("fewer-steps"):
            yield bench.equal_cost(row)


def main() -> None:
    """Reads the options, measures, prints a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default=METHODS, help="presets and policies, divided by ;")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--first-clip", type=int, default=2000, help="number of the first one")
    parser.add_argument("--num-frames", type=int, default=16)
    parser.add_argument("--num-inference-steps", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bench = Bench(args.clips, args.num_frames, args.num_inference_steps, args.first_clip)
    print(
        "| method | MACs saved | time, off = 1 | PSNR to off, dB | part colours | silhouette IoU |"
    )
    print("|---|---|---|---|---|---|")
    measured = []
    for row in rows(bench, args.methods.split(";")):
        measured.append(asdict(row))
        print(
            f"| {row.method} | {100 * row.macs_saved:.1f} % | {row.time_ratio:.2f} "
            f"| {row.psnr_db:.1f} ± {row.psnr_spread_db:.1f} | {row.part_colour_accuracy:.3f} "
            f"| {row.silhouette_iou:.3f} |",
            flush=True,
        )
    if args.json is not None:
        args.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
