#!/usr/bin/env python
"""Early steps at half the size, as SPEED (2605.18736) takes them, on the embedded model.

The first steps run on latents of half the height and width. Averaging four values halves the noise, so that
they are at the timestep of four times the signal-to-noise ratio. At the change the predicted clean latents
are enlarged, and the noise that the small latents had not is put back. Writes --json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from hgc_video.evaluate.quality import psnr
from hgc_video.evaluate.results_header import results_header, write_results
from hgc_video.evaluate.samples import SampleSet
from hgc_video.evaluate.trials import Trial, trials
from hgc_video.models.load import EMBEDDED

ROOT = Path(__file__).resolve().parent.parent
FIRST = 3000  # clips that took no part in any search


class SmallControl:
    """The conditioning of a clip, with the control clip at half the size."""

    def __init__(self, whole: Any) -> None:
        self._whole = whole

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def controlnet_inputs(self, sample: Tensor, frames: slice) -> dict[str, Any]:
        """The ControlNet's inputs."""
        given = dict(self._whole.controlnet_inputs(sample, frames))
        given["controlnet_cond"] = functional.interpolate(
            given["controlnet_cond"], scale_factor=0.5, mode="area"
        )
        return given


class Levels:
    """Signal and noise of a scheduler's timesteps: z = signal x0 + noise eps."""

    def __init__(self, alphas_cumprod: Tensor) -> None:
        self.alphas = alphas_cumprod.double()
        self.ratios = (self.alphas / (1 - self.alphas).clamp(min=1e-12)).sqrt()

    def of(self, t: int) -> tuple[float, float]:
        """Signal and noise at t."""
        return float(self.alphas[t].sqrt()), float((1 - self.alphas[t]).clamp(min=0).sqrt())

    def small(self, t: int) -> int:
        """The timestep of latents of half the size: four times the signal-to-noise ratio."""
        last = len(self.alphas) - 1
        return last if t >= last else int((self.ratios - 2 * self.ratios[t]).abs().argmin())


def halved(latents: Tensor) -> Tensor:
    """Latents (b c f h w) averaged over squares of four values."""
    return functional.avg_pool3d(latents, (1, 2, 2))


def doubled(latents: Tensor, mode: str) -> Tensor:
    """Latents (b c f h w) at twice the height and width."""
    frames = rearrange(latents, "b c f h w -> (b f) c h w")
    larger = functional.interpolate(frames, scale_factor=2, mode=mode)
    return rearrange(larger, "(b f) c h w -> b c f h w", b=len(latents))


def final_latents(trial: Trial, low_steps: int) -> Tensor:
    """Final latents (1 c f h w) of DDIM with the first `low_steps` steps at half the size."""
    models, noise, timesteps, options = trial.start()
    scheduler = trial.pipe.scheduler
    levels, latents = Levels(scheduler.alphas_cumprod), noise
    if low_steps:
        whole, models.guidance = models.guidance, SmallControl(models.guidance)
        small = 2 * halved(noise)
        for i in range(low_steps):
            t = levels.small(int(timesteps[i]))
            signal, share = levels.of(t)
            v = models(small, torch.tensor(t), i)
            x0, eps = signal * small - share * v, share * small + signal * v
            if i + 1 < low_steps:
                signal, share = levels.of(levels.small(int(timesteps[i + 1])))
                small = signal * x0 + share * eps
        models.guidance = whole
        fresh = noise - doubled(halved(noise), "nearest") + doubled(eps, "nearest") / 2
        signal, share = levels.of(int(timesteps[low_steps]))
        latents = (signal * doubled(x0, "bicubic") + share * fresh).to(noise.dtype)
    for i in range(low_steps, len(timesteps)):
        v = models(latents, timesteps[i], i)
        latents = scheduler.step(v, timesteps[i], latents, **options, return_dict=False)[0]
    return latents


@torch.no_grad()
def main() -> None:
    """Writes what a number of early steps saves and costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--num-frames", type=int, default=4)
    parser.add_argument("--num-inference-steps", type=int, default=25)
    parser.add_argument("--low-steps", type=int, nargs="+", default=[2, 4, 8, 12])
    parser.add_argument("--json", type=Path, default=ROOT / "configs/results/low-resolution.json")
    args = parser.parse_args()
    steps, total = args.num_inference_steps, dict.fromkeys(args.low_steps, 0.0)
    clips = trials(SampleSet(EMBEDDED, None, FIRST, args.clips, args.num_frames))
    for clip in range(args.clips):
        trial = clips(clip, steps)
        off = trial.decode(final_latents(trial, 0))
        for low in args.low_steps:
            db = psnr(trial.decode(final_latents(trial, low)), off)
            print(f"clip {FIRST + clip}, {low} steps at half the size: {db:.1f} dB", flush=True)
            total[low] += db / args.clips
    rows = [
        {"low_steps": low, "macs_saved": 0.75 * low / steps, "psnr_db": round(db, 2)}
        for low, db in total.items()
    ]
    header = results_header(EMBEDDED, clips=args.clips, seeds=1)
    write_results(
        args.json, header, num_frames=args.num_frames, num_inference_steps=steps, rows=rows
    )


if __name__ == "__main__":
    main()
