#!/usr/bin/env python
"""Compares the predicted memory peak with the one that the allocator reports, on the embedded model.

On the CPU every allocation is read from torch's profiler, which does not see the mapped file that idle
windows' caches wait in; on CUDA from its own peak counter. A few steps are enough: what is alive does not
grow with them. The bytes beside the device are the store's own account.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import hgc_video
from hgc_video.models.load import load_pipeline
from hgc_video.puppet.evaluation import held_out

PROMPT = "a dancer in a red shirt and blue trousers on a beach"


@dataclass(frozen=True)
class Row:
    """A run's peaks in bytes."""

    num_frames: int
    preset: str
    memory: str
    predicted_nbytes: int
    measured_nbytes: int
    host_nbytes: int
    copied_nbytes: int
    cut: str

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted_nbytes / self.measured_nbytes


def measure(num_frames: int, preset: str, memory: str, device: str, steps: int) -> Row:
    """One run."""
    pose = held_out(4, min(num_frames, 64)).truth.pose
    pose = np.concatenate([pose] * -(-num_frames // len(pose)))[:num_frames]
    options = {
        "preset": preset, "memory": memory, "num_frames": num_frames, "num_inference_steps": steps,
        "device": device, "progress": False,
    }  # fmt: skip
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        clip = hgc_video.generate(pose, PROMPT, **options)
        measured = torch.cuda.max_memory_allocated()
    else:
        clip, measured = _profiled(pose, options)
    told = clip.report
    return Row(
        num_frames, preset, memory, told.predicted_peak_nbytes, measured, told.cache_host_nbytes,
        told.copied_to_host_nbytes + told.copied_to_device_nbytes, told.memory,
    )  # fmt: skip


def _profiled(pose: np.ndarray, options: dict[str, object]) -> tuple[hgc_video.Clip, int]:
    """The clip, and the weights' bytes plus the most that the CPU allocator held beside them."""
    pipe = load_pipeline("puppet", "pose")
    parts = (pipe.unet, pipe.controlnet, pipe.vae, pipe.text_encoder)
    weights = sum(
        t.numel() * t.element_size() for m in parts for t in (*m.parameters(), *m.buffers())
    )
    begun: list[int] = []
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        clip = hgc_video.generate(pose, PROMPT, **options, callback=lambda *_: begun.append(1))  # type: ignore[arg-type]
    now = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    # Loading happens inside as well; by the peak all weights are there, so they count once.
    return clip, max(peak, weights)


def main() -> None:
    """Reads the options, measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--frames", default="16,64,256")
    parser.add_argument("--presets", default="off;balanced", help="Presets or policies, by ;.")
    parser.add_argument("--memory", default="8GiB")
    parser.add_argument("--num-inference-steps", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    print(
        f"{'frames':>6}  {'preset':<10} {'predicted':>11} {'measured':>11}  ratio  {'beside it':>11} "
        f"{'copied':>12}"
    )
    for preset in args.presets.split(";"):
        for num_frames in map(int, args.frames.split(",")):
            row = measure(num_frames, preset, args.memory, args.device, args.num_inference_steps)
            rows.append(row)
            print(
                f"{num_frames:6d}  {preset:<10} {row.predicted_nbytes / 2**20:7.1f} MiB "
                f"{row.measured_nbytes / 2**20:7.1f} MiB  {row.ratio:.3f}  "
                f"{row.host_nbytes / 2**20:7.1f} MiB {row.copied_nbytes / 2**20:8.1f} MiB",
                flush=True,
            )
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
