#!/usr/bin/env python
"""Measures AnimateDiff SD1.5 with a ControlNet at full width on random weights: time, MACs, peak memory.

What is in the weights does not change what a step costs. Every repetition runs the uncached loop and then
each method on the same noise, so that ratios are of one moment; the median of the repetitions is told.
The predicted peak is the planner's for the same cut. On a machine without a GPU try --small.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ControlNetModel, DDIMScheduler, UNetMotionModel

from hgc_video.cache.engine import Engine, attach
from hgc_video.denoise import ControlledUNet, denoise
from hgc_video.guidance import Guidance
from hgc_video.measure.memory import PeakMemory
from hgc_video.models.graph import build_graph
from hgc_video.models.known_models import KnownModel, known_model
from hgc_video.peak import PeakModel, Scale
from hgc_video.plan.chunks import Chunks
from hgc_video.plan.cost import full_cost, windowed
from hgc_video.plan.presets import Preset, resolve
from hgc_video.plan.windows import Windows

METHODS = (
    "lossless;quality;balanced;fast;turbo;deepcache:interval=3;tgate:gate=10;fewer-steps:steps=13"
)
_SMALL = {"block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 32}


@dataclass(frozen=True)
class Row:
    """A method at a number of frames: seconds (median), MACs and time of `off` over its own, measured and
    predicted bytes at the peak of the loop."""

    method: str
    num_frames: int
    compiled: bool
    seconds: float
    macs_ratio: float
    time_ratio: float
    peak_nbytes: int
    predicted_peak_nbytes: int


class Bench:
    """UNet and ControlNet from their configurations, on one device."""

    def __init__(self, small: bool, device: str, dtype: torch.dtype, steps: int) -> None:
        self.known: KnownModel = known_model("animatediff-sd15")
        self.side = 8 if small else self.known.height // self.known.latent_factor
        self.device, self.dtype, self.steps = device, dtype, steps
        self.unet, self.controlnet = _models(self.known, small)
        for model in (self.unet, self.controlnet):
            model.to(device, dtype).eval()
        self.scheduler = DDIMScheduler(beta_schedule="linear", clip_sample=False, steps_offset=1)

    def rows(
        self, methods: list[str], num_frames: int, repeats: int, compiled: bool
    ) -> Iterator[Row]:
        """The rows of all methods at a number of frames, `off` first."""
        windows = Windows(num_frames, min(num_frames, 32), min(num_frames, 32) // 4)
        seconds: dict[str, list[float]] = {}
        facts: dict[str, tuple[int, int]] = {}
        self.run(resolve("off"), windows, steps=2)
        for word in methods:  # compiling and caching allocators warm up on what will run
            self.run(resolve(word), windows)
        for _ in range(repeats):
            for word in ["off", *methods]:
                took, macs, peak = self.run(resolve(word), windows)
                seconds.setdefault(word, []).append(took)
                facts[word] = (macs, peak)
        for word, took in seconds.items():
            ratios = [o / s for o, s in zip(seconds["off"], took, strict=True)]
            macs, peak = facts[word]
            yield Row(
                word, num_frames, compiled, statistics.median(took), facts["off"][0] / macs,
                statistics.median(ratios), peak, self.predicted(resolve(word), windows),
            )  # fmt: skip

    @torch.no_grad()
    def run(
        self, preset: Preset, windows: Windows, steps: int | None = None
    ) -> tuple[float, int, int]:
        """Seconds of the loop, MACs executed, and bytes at its peak."""
        count = steps or preset.num_steps(self.steps)
        graph, (guidance, noise) = self.graph(windows), self.inputs(windows.num_frames)
        self.scheduler.set_timesteps(count, device=self.device)
        plan = preset.schedule(graph, count)
        with ExitStack() as stack:
            engine: Engine | None = None
            if plan is not None:
                parts = {"graph": graph, "unet": self.unet, "controlnet": self.controlnet}
                engine = stack.enter_context(attach(plan, **parts))
            models = ControlledUNet(
                self.unet, self.controlnet, guidance, count, windows=windows, engine=engine
            )
            memory = stack.enter_context(PeakMemory(self.device))
            self._wait()
            begun = time.perf_counter()
            denoise(models, self.scheduler, noise, self.scheduler.timesteps, positions=[models])
            self._wait()
            took = time.perf_counter() - begun
            plain = windowed(full_cost(graph, count), windows)
            macs = sum((engine.macs_by_part() if engine else plain).values())
        return took, macs, memory.nbytes

    def predicted(self, preset: Preset, windows: Windows) -> int:
        """The planner's peak of the loop for the whole clip or its windows, VAE and text encoder left out."""
        scale = Scale(
            windows.num_frames, self.side, self.side, self.known.num_tokens, 2,
            preset.num_steps(self.steps), self.known.latent_factor, windows.overlap,
        )  # fmt: skip
        vae = self.known.build_vae()
        model = PeakModel(
            self.unet,
            self.controlnet,
            vae,
            0,
            scale,
            preset,
            self.dtype,
            self.device.partition(":")[0],
        )
        without = sum(p.numel() for p in vae.parameters()) * self.dtype.itemsize
        return model.denoise(windows.plain[0].length, Chunks())[0] - without

    def graph(self, windows: Windows) -> Any:
        """The block graph of a window."""
        return build_graph(
            self.unet, self.controlnet, num_frames=windows.plain[0].length, height=self.side,
            width=self.side, num_tokens=self.known.num_tokens, dtype_nbytes=self.dtype.itemsize,
        )  # fmt: skip

    def inputs(self, num_frames: int) -> tuple[Guidance, torch.Tensor]:
        """Text, control and noise of random numbers, always the same."""
        generator = torch.Generator().manual_seed(0)
        width = self.unet.config.cross_attention_dim
        text = torch.randn(2, self.known.num_tokens, width, generator=generator)
        size = (num_frames, 3, 8 * self.side, 8 * self.side)
        cond = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        noise = torch.randn(1, 4, num_frames, self.side, self.side, generator=generator)
        guidance = Guidance(text.to(self.device, self.dtype), (cond,), 7.5, (1.0,))
        return guidance, noise.to(self.device, self.dtype)

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


def _models(known: KnownModel, small: bool) -> tuple[Any, Any]:
    torch.manual_seed(0)
    unet_config = {k: v for k, v in known.unet.items() if k != "_class_name"}
    net_config = dict(known.controlnet or {})
    if small:
        unet_config |= {**_SMALL, "num_attention_heads": 2, "motion_num_attention_heads": 2}
        net_config |= {**_SMALL, "attention_head_dim": 2}
    unet, net = UNetMotionModel(**unet_config), ControlNetModel(**net_config)
    # Fresh ControlNets end in zeros, whose products a clever kernel could skip.
    for conv in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        torch.nn.init.normal_(conv.weight, std=0.02)
    return unet, net


def main() -> None:
    """Reads the options, measures, prints a table and writes the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--methods", default=METHODS, help="separated by semicolons")
    parser.add_argument("--num-frames", type=int, nargs="+", default=[16])
    parser.add_argument("--num-inference-steps", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="bfloat16")
    parser.add_argument(
        "--compile", action="store_true", help="compile UNet and ControlNet in place"
    )
    parser.add_argument(
        "--small", action="store_true", help="tiny widths, to try the script on a CPU"
    )
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not args.small:
        parser.error("there is no GPU here; add --small to try the script on the CPU")
    bench = Bench(args.small, device, getattr(torch, args.dtype), args.num_inference_steps)
    if args.compile:
        bench.unet.compile()
        bench.controlnet.compile()
    print("| method | frames | seconds | MACs ratio | time ratio | of it | peak, GiB | predicted |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for num_frames in args.num_frames:
        for row in bench.rows(args.methods.split(";"), num_frames, args.repeats, args.compile):
            rows.append(asdict(row))
            print(
                f"| `{row.method}` | {num_frames} | {row.seconds:.2f} | {row.macs_ratio:.2f} "
                f"| {row.time_ratio:.2f} | {100 * row.time_ratio / row.macs_ratio:.0f} % "
                f"| {row.peak_nbytes / 2**30:.2f} | {row.predicted_peak_nbytes / 2**30:.2f} |",
                flush=True,
            )
    if args.json is not None:
        name = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
        told = {
            "date": datetime.now(UTC).date().isoformat(), "device": name, "torch": torch.__version__,
            "diffusers": diffusers.__version__, "dtype": args.dtype, "small": args.small, "rows": rows,
        }  # fmt: skip
        args.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
