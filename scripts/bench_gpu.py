#!/usr/bin/env python
"""Measures a video model with a ControlNet at full width on random weights: time, MACs, peak memory.

--layout animatediff is AnimateDiff on SD1.5 (16 frames of 512x512), sdxl AnimateDiff on SDXL (16 of
1024x1024), svd Stable Video Diffusion XT (25 of 576x1024).

What is in the weights does not change what a step costs. Every repetition runs the uncached loop and then
each method on the same noise; the table has the median of the repetitions' ratios. Each run is printed and
written to --json as it ends, so that an interrupted benchmark keeps its runs. The predicted peak is the
planner's for the same cut, computed after the runs.
On a machine without a GPU try --small.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from hgc_video.cache.engine import Engine, attach
from hgc_video.cache.residual_inputs import residual_inputs
from hgc_video.files import write_text
from hgc_video.measure.peak_memory import PeakMemory
from hgc_video.models.configurations import KnownModel, known_model, model_class
from hgc_video.models.dry_run import added_inputs
from hgc_video.models.graph_builder import build_graph
from hgc_video.plan.clip_shape import ClipShape
from hgc_video.plan.cost import full_cost
from hgc_video.plan.memory.budget import Chunks
from hgc_video.plan.memory.windows import Windows, windowed
from hgc_video.plan.presets import Preset, resolve
from hgc_video.sampling.conditioning import Conditioning, ImageConditioning, TextConditioning
from hgc_video.sampling.loop import ControlledUNet, denoise
from hgc_video.sampling.predict_peak import PeakModel, RunScale
from hgc_video.sampling.trial_step import TrialRuns

METHODS = (
    "lossless;quality;balanced;fast;turbo;deepcache:interval=3;tgate:gate=10;fewer-steps:steps=13"
)
LAYOUTS = {"animatediff": "animatediff-sd15", "sdxl": "animatediff-sdxl", "svd": "svd"}
# Tiny widths of UNet and ControlNet.
_HINT = {"conditioning_embedding_out_channels": (4, 8, 8, 8)}
_XL = {
    "block_out_channels": (32, 64, 64), "cross_attention_dim": 32, "transformer_layers_per_block": (1, 1, 2),
    "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 32 + 6 * 8,
}  # fmt: skip
_WIDE = {"block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 32}
_SMALL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "animatediff": (
        {**_WIDE, "num_attention_heads": 2, "motion_num_attention_heads": 2},
        {**_WIDE, **_HINT, "attention_head_dim": 2},
    ),
    "sdxl": (
        {**_XL, "num_attention_heads": 2, "motion_num_attention_heads": 2},
        {**_XL, **_HINT, "attention_head_dim": 2},
    ),
    "svd": ({**_WIDE, "num_attention_heads": 2}, {**_WIDE, **_HINT, "num_attention_heads": 2}),
}


@dataclass(frozen=True)
class OneRun:
    """One run of the loop: seconds, MACs, bytes at its peak; `repeat` -1 is the one that warms up."""

    method: str
    num_frames: int
    repeat: int
    seconds: float
    macs: int
    peak_nbytes: int


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

    def __init__(
        self, layout: str, small: bool, device: str, dtype: torch.dtype, steps: int
    ) -> None:
        self.layout, self.known = layout, known_model(LAYOUTS[layout])
        factor = self.known.latent_factor
        # Small, SVD's frames are wide and the others square, as at full size.
        self.height = 8 if small else self.known.height // factor
        self.width = (16 if layout == "svd" else 8) if small else self.known.width // factor
        self.max_frames = self.known.num_frames if layout == "svd" else 32
        self.device, self.dtype, self.steps = device, dtype, steps
        self.unet, self.controlnet = _models(self.known, _SMALL[layout] if small else ({}, {}))
        for model in (self.unet, self.controlnet):
            torch.nn.Module.to(model, device, dtype).eval()
        self.scheduler = _scheduler(layout)
        self.graph = cache(self._graph)  # of the full models it takes longer than a cached run

    def runs(self, methods: list[str], num_frames: int, repeats: int) -> Iterator[OneRun]:
        """All methods once to warm up, as compiled code and allocators do on what will run, then `repeats`
        times, `off` first in each repetition."""
        windows = self.windows(num_frames)
        self.run(resolve("off"), windows, steps=2)
        for repeat in range(-1, repeats):
            for word in ["off", *methods] if repeat >= 0 else methods:
                yield OneRun(word, num_frames, repeat, *self.run(resolve(word), windows))

    def rows(self, runs: list[OneRun], compiled: bool) -> Iterator[Row]:
        """The rows of what was measured at a number of frames; ratios are those within each repetition."""
        measured = [one for one in runs if one.repeat >= 0]
        off = {one.repeat: one for one in measured if one.method == "off"}
        for word in dict.fromkeys(one.method for one in measured):
            own = [one for one in measured if one.method == word]
            ratios = [off[one.repeat].seconds / one.seconds for one in own]
            windows = self.windows(own[0].num_frames)
            yield Row(
                word, own[0].num_frames, compiled, statistics.median(one.seconds for one in own),
                off[0].macs / own[0].macs, statistics.median(ratios), own[-1].peak_nbytes,
                self.predicted(resolve(word), windows),
            )  # fmt: skip

    def windows(self, num_frames: int) -> Windows:
        """The windows of a clip, of as many frames as the model holds."""
        length = min(num_frames, self.max_frames)
        return Windows(num_frames, length, length // 4)

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
            stack.enter_context(residual_inputs(self.unet))
            engine: Engine | None = None
            if not plan.is_stock:
                parts = {"graph": graph, "unet": self.unet, "controlnet": self.controlnet}
                engine = stack.enter_context(attach(plan, **parts))
            models = ControlledUNet(
                self.unet,
                self.controlnet,
                guidance,
                count,
                windows=windows,
                listeners=[engine] if engine else [],
            )
            memory = stack.enter_context(PeakMemory(self.device))
            self._wait()
            begun = time.perf_counter()
            denoise(models, self.scheduler, noise, self.scheduler.timesteps)
            self._wait()
            took = time.perf_counter() - begun
            plain = windowed(full_cost(graph, count), windows)
            macs = sum((engine.log.macs_by_part() if engine else plain).values())
        return took, macs, memory.nbytes

    def predicted(self, preset: Preset, windows: Windows) -> int:
        """The planner's peak of the loop for the whole clip or its windows, VAE and text encoder left out."""
        scale = RunScale(
            self.shape(windows.num_frames), preset.num_steps(self.steps), self.known.latent_factor,
            windows.overlap,
        )  # fmt: skip
        vae = self.known.build_vae()
        parts = (self.unet, self.controlnet, vae)
        trials = TrialRuns(*parts, scale, self.dtype, self.device.partition(":")[0])
        model = PeakModel(trials, 0, scale, preset)
        without = sum(p.numel() for p in vae.parameters()) * self.dtype.itemsize
        return model.denoise(windows.plain[0].length, Chunks())[0] - without

    def _graph(self, windows: Windows) -> Any:
        """The block graph of a window."""
        shape = self.shape(windows.plain[0].length)
        return build_graph(self.unet, self.controlnet, shape, dtype_nbytes=self.dtype.itemsize)

    def shape(self, num_frames: int) -> ClipShape:
        """The shape of a clip of so many frames."""
        return ClipShape(num_frames, self.height, self.width, self.known.num_tokens)

    def inputs(self, num_frames: int) -> tuple[Conditioning, torch.Tensor]:
        """Text or image, control and noise of random numbers, always the same."""
        generator = torch.Generator().manual_seed(0)

        def random(*size: int) -> torch.Tensor:
            return torch.randn(size, generator=generator).to(self.device, self.dtype)

        read = random(2, self.known.num_tokens, self.unet.config.cross_attention_dim)
        frame = (self.height, self.width)
        pixels = (num_frames, 3, *(self.known.latent_factor * side for side in frame))
        cond = (torch.randint(0, 256, pixels, dtype=torch.uint8, generator=generator),)
        if self.layout == "svd":
            ids = torch.tensor([[6.0, 127.0, 0.02]] * 2).to(self.device, self.dtype)
            pull = torch.linspace(1, 3, num_frames).view(1, -1, 1, 1, 1).to(read)
            image = ImageConditioning(read, random(2, 1, 4, *frame), ids, cond, pull, (1.0,))
            return image, random(1, num_frames, 4, *frame) * self.scheduler.init_noise_sigma
        added = None
        if self.unet.config.addition_embed_type == "text_time":
            inputs = added_inputs(self.unet, 2)["added_cond_kwargs"]
            added = {name: random(*tensor.shape) for name, tensor in inputs.items()}
        guidance = TextConditioning(read, cond, 7.5, (1.0,), added=added)
        return guidance, random(1, 4, num_frames, *frame)

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


def _models(known: KnownModel, small: tuple[dict[str, Any], dict[str, Any]]) -> tuple[Any, Any]:
    """UNet and ControlNet with random weights, narrowed by what `small` says of each."""
    torch.manual_seed(0)
    made = []
    for config, fields in zip((known.unet, known.controlnet or {}), small, strict=True):
        told = {**config, **fields}
        made.append(model_class(told.pop("_class_name", "ControlNetModel"))(**told))
    unet, net = made
    # Fresh ControlNets end in zeros, whose products a clever kernel could skip.
    hint = net.controlnet_cond_embedding.conv_out
    for conv in (*net.controlnet_down_blocks, net.controlnet_mid_block, hint):
        torch.nn.init.normal_(conv.weight, std=0.02)
    return unet, net


def _scheduler(layout: str) -> Any:
    """The one that the layout's model comes with."""
    if layout == "svd":
        return EulerDiscreteScheduler(
            beta_schedule="scaled_linear", prediction_type="v_prediction", use_karras_sigmas=True,
            timestep_type="continuous", sigma_min=0.002, sigma_max=700.0,
        )  # fmt: skip
    return DDIMScheduler(beta_schedule="linear", clip_sample=False, steps_offset=1)


def main() -> None:
    """Reads the options, measures, prints a table and writes the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--layout", choices=tuple(LAYOUTS), default="animatediff")
    parser.add_argument("--methods", default=METHODS, help="separated by semicolons")
    parser.add_argument(
        "--num-frames", type=int, nargs="+", default=None, help="None: the model's own"
    )
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
    bench = Bench(
        args.layout, args.small, device, getattr(torch, args.dtype), args.num_inference_steps
    )
    counts = args.num_frames or [bench.known.num_frames]
    if args.layout == "svd" and max(counts) > bench.max_frames:
        parser.error(f"svd makes at most {bench.max_frames} frames at once, in no windows")
    if args.compile:
        bench.unet.compile()
        bench.controlnet.compile()
    told = _header(args, device)
    for num_frames in counts:
        runs: list[OneRun] = []
        for one in bench.runs(args.methods.split(";"), num_frames, args.repeats):
            runs.append(one)
            print(
                f"{one.method}, {num_frames} frames: {one.seconds:.2f} s, {one.macs / 1e12:.1f} TMACs, "
                f"{one.peak_nbytes / 2**30:.2f} GiB{' to warm up' if one.repeat < 0 else ''}",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            told["runs"].append(asdict(one))
            _write(args.json, told)
        print(_HEAD if not told["rows"] else "", end="")
        for row in bench.rows(runs, args.compile):
            told["rows"].append(asdict(row))
            print(_line(row), flush=True)
            _write(args.json, told)


_HEAD = """\
| method | frames | seconds | MACs ratio | time ratio | of it | peak, GiB | predicted |
|---|---|---|---|---|---|---|---|
"""


def _line(row: Row) -> str:
    return (
        f"| `{row.method}` | {row.num_frames} | {row.seconds:.2f} | {row.macs_ratio:.2f} "
        f"| {row.time_ratio:.2f} | {100 * row.time_ratio / row.macs_ratio:.0f} % "
        f"| {row.peak_nbytes / 2**30:.2f} | {row.predicted_peak_nbytes / 2**30:.2f} |"
    )


def _header(args: argparse.Namespace, device: str) -> dict[str, Any]:
    """What the figures are of, without any figure yet."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    return {
        "date": datetime.now(UTC).date().isoformat(), "device": name, "torch": torch.__version__,
        "diffusers": diffusers.__version__, "layout": args.layout, "dtype": args.dtype,
        "small": args.small, "compiled": args.compile, "rows": [], "runs": [],
    }  # fmt: skip


def _write(path: Path | None, told: dict[str, Any]) -> None:
    if path is not None:
        write_text(path, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
