#!/usr/bin/env python
"""Measures what the engine itself costs: time saved against MACs saved, on the denoising loop alone.

Each method runs in turn with the uncached loop, in pairs, same noise; the median of the pairs' ratios
is told. Overhead is what the time ratio lacks to the MACs ratio. After each run no tensor may be kept.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from hgc_video.cache.engine import Engine
from hgc_video.evaluate.results_header import results_header, write_results
from hgc_video.models.graph_builder import build_graph
from hgc_video.models.load import default_guidance_scale, load_pipeline
from hgc_video.plan.clip_shape import ClipShape
from hgc_video.plan.cost import full_cost
from hgc_video.plan.presets import resolve
from hgc_video.sampling.conditioning import TextConditioning
from hgc_video.sampling.loop import ControlledUNet, denoise

METHODS = "full;lossless;quality;balanced;fast;turbo;deepcache:interval=3"


@dataclass(frozen=True)
class Row:
    """A method's ratios, uncached over cached: of MACs, and of seconds (median of pairs)."""

    method: str
    macs_ratio: float
    time_ratio: float
    time_ratio_range: tuple[float, float]
    kept_nbytes: int

    @property
    def efficiency(self) -> float:
        """How much of what the MACs promise the clock shows."""
        return self.time_ratio / self.macs_ratio


class Bench:
    """The embedded model's loop on random control and noise; what is in them does not change its cost."""

    def __init__(self, num_frames: int, steps: int, device: str, dtype: torch.dtype) -> None:
        self.pipe = load_pipeline("puppet", "pose", device=device, dtype=dtype)
        self.steps, options = steps, {"device": device, "dtype": dtype}
        height, width, tokens = 16, 16, self.pipe.tokenizer.model_max_length
        text = torch.randn(2, tokens, self.pipe.unet.config.cross_attention_dim, **options)
        cond = torch.rand(num_frames, 3, 8 * height, 8 * width, **options)
        scale = default_guidance_scale("puppet")
        self.guidance = TextConditioning(
            text.repeat_interleave(num_frames, 0), (cond,), scale, (1.0,)
        )
        channels = self.pipe.unet.config.in_channels
        self.noise = torch.randn(1, channels, num_frames, height, width, **options)
        self.graph = build_graph(
            self.pipe.unet, self.pipe.controlnet, ClipShape(num_frames, height, width, tokens)
        )

    def row(self, method: str, pairs: int) -> Row:
        """The ratios of a method."""
        plan = resolve(method).schedule(self.graph, self.steps)
        if plan.is_stock:
            raise SystemExit(f"{method} wraps nothing; it is what the others are compared with")
        engine = Engine(plan, self.graph)
        self._run(None, steps=2)
        before, ratios, kept = _tensor_nbytes(), [], 0
        for _ in range(pairs):
            plain = self._run(None)
            engine.enable(self.pipe.unet, self.pipe.controlnet)
            cached = self._run(engine)
            macs = sum(engine.log.macs_by_part().values())
            engine.disable()
            kept = max(kept, _tensor_nbytes() - before)
            ratios.append(plain / cached)
        return Row(
            method, full_cost(self.graph, self.steps).total / macs, statistics.median(ratios),
            (min(ratios), max(ratios)), kept,
        )  # fmt: skip

    def _run(self, engine: Engine | None, steps: int | None = None) -> float:
        """Seconds of one run of the loop."""
        scheduler = self.pipe.scheduler
        scheduler.set_timesteps(self.steps, device=self.noise.device)
        timesteps = scheduler.timesteps[:steps]
        models = ControlledUNet(
            self.pipe.unet,
            self.pipe.controlnet,
            self.guidance,
            self.steps,
            listeners=[engine] if engine else [],
        )
        _wait(self.noise)
        begun = time.perf_counter()
        denoise(models, scheduler, self.noise, timesteps)
        _wait(self.noise)
        return time.perf_counter() - begun


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def _tensor_nbytes() -> int:
    """Bytes of all tensors that are alive."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and thing.device.type != "meta":
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


def main() -> None:
    """Reads the options, measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--methods", default=METHODS, help="separated by semicolons")
    parser.add_argument("--num-frames", type=int, default=16)
    parser.add_argument("--num-inference-steps", type=int, default=25)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    bench = Bench(args.num_frames, args.num_inference_steps, args.device, dtype)
    rows = []
    print(f"{'method':<24} {'MACs':>6} {'time':>6} {'range':>13} {'of it':>6}  kept")
    for method in args.methods.split(";"):
        row = bench.row(method, args.pairs)
        rows.append(row)
        low, high = row.time_ratio_range
        print(
            f"{method:<24} {row.macs_ratio:5.2f}x {row.time_ratio:5.2f}x {low:5.2f} .. {high:4.2f} "
            f"{100 * row.efficiency:5.0f} %  {row.kept_nbytes} bytes",
            flush=True,
        )
    if args.json is not None:
        header = results_header("puppet", clips=1, seeds=args.pairs)
        write_results(
            args.json, header, num_frames=args.num_frames, num_inference_steps=args.num_inference_steps,
            device=args.device, dtype=args.dtype, rows=[asdict(row) for row in rows],
        )  # fmt: skip


if __name__ == "__main__":
    main()
