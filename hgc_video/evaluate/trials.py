"""Runs of one clip that are stopped, repeated and compared: what calibration, search and comparison share.

A trial knows its clip, prompt and noise, and gives the final latents under any schedule.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cache.engine import Engine, attach
from ..errors import InputError
from ..models.device import choose_device
from ..models.identity import model_hash
from ..models.load import load_pipeline, read_facts
from ..options import GenerateOptions
from ..plan.calibration import Setting
from ..plan.graph import BlockGraph
from ..plan.memory.budget import Chunks, MemoryPlan, Peak
from ..plan.policies.registry import split_fields
from ..plan.presets import resolve
from ..plan.schedule import Plan
from ..report import Stopwatch
from ..sampling.controls import read_controls
from ..sampling.loop import ControlledUNet, Listener, denoise
from ..sampling.run import Run
from .samples import Sample, SampleSet

_OTHER_NOISE = 50_000  # between the seeds of a sample's noises


class Trial:
    """One sample on a loaded pipeline."""

    def __init__(
        self, pipe: Any, model: str, sample: Sample, num_frames: int, num_inference_steps: int
    ) -> None:
        facts = read_facts(model)
        options = GenerateOptions(
            control_video=sample.control, control=sample.kind, prompt=sample.prompt, model=model,
            num_inference_steps=num_inference_steps, num_frames=num_frames, seed=sample.seed,
            force=True,  # figures of any clip are figures; a warning says what is wrong with it
        ).for_model(
            from_image=facts.from_image, num_inference_steps=facts.num_inference_steps,
            guidance_scale=facts.guidance_scale,
        )  # fmt: skip
        (clip,) = read_controls(options, facts)
        memory_plan = MemoryPlan(1, len(clip.frames), Chunks(), Peak(0, 0), None)
        self._run = Run(options, resolve("off"), [clip], pipe, Stopwatch(), memory_plan, 0)
        self.pipe, self.model, self.control = pipe, model, clip
        self.guidance_scale = facts.guidance_scale
        self.prompt = sample.prompt
        self.num_inference_steps = num_inference_steps
        self.engine: Engine | None = None  # of the last cached run, for what it did

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Frames (f H W 3) uint8 of final latents (1 c f h w)."""
        return self._run.decode(latents)

    @property
    def graph(self) -> BlockGraph:
        """The block graph of the sample's size."""
        return self._run.graph

    @torch.no_grad()
    def start(
        self, listeners: Sequence[Listener] = ()
    ) -> tuple[ControlledUNet, Tensor, Tensor, dict[str, Any]]:
        """The callable, the noise (1 c f h w), the timesteps and the scheduler's options of a fresh run."""
        guidance, latents, timesteps, options = self._run.encode()
        models = ControlledUNet(
            self.pipe.unet, self.pipe.controlnet, guidance, len(timesteps), listeners=listeners
        )
        return models, latents, timesteps, options

    @contextmanager
    def attached(self, schedule: Plan) -> Iterator[Engine]:
        """An engine for a schedule on the pipeline's models, while the `with` block lasts."""
        unet, controlnet = self.pipe.unet, self.pipe.controlnet
        models = {"graph": self.graph, "unet": unet, "controlnet": controlnet}
        attached = attach(
            schedule, **models, scheduler=self.pipe.scheduler, guidance_scale=self.guidance_scale
        )
        with attached as engine:
            yield engine

    def latents(self, schedule: Plan | None = None) -> Tensor:
        """The final latents (1 c f h w) under a schedule, or of the uncached run."""
        if schedule is None or schedule.is_stock:
            return self._denoise()
        with self.attached(schedule) as self.engine:
            return self._denoise([self.engine])

    def _denoise(self, listeners: Sequence[Listener] = ()) -> Tensor:
        models, noise, timesteps, options = self.start(listeners)
        return denoise(models, self.pipe.scheduler, noise, timesteps, **options)

    @cached_property
    def uncached(self) -> Tensor:
        """The final latents (1 c f h w) of the uncached run."""
        return self.latents()

    def error(self, schedule: Plan, target: Tensor | None = None) -> float:
        """Mean square of what a schedule changes in the final latents against `target` or the uncached
        ones, as a share of their variance."""
        target = self.uncached if target is None else target
        return float((self.latents(schedule) - target).square().mean() / target.var())


@lru_cache(maxsize=2)
def trials(source: SampleSet) -> Trials:
    """The trials of a source; made once in every process, and kept until `kept_trials` ends."""
    return Trials(source)


_KEEPING: ContextVar[bool] = ContextVar("keeping", default=False)


@contextmanager
def kept_trials() -> Iterator[None]:
    """Within this block trials and their pipelines are made once; at its end, or that of the outermost such
    block, they are given up and their memory is free."""
    if _KEEPING.get():
        yield
        return
    token = _KEEPING.set(True)
    try:
        yield
    finally:
        _KEEPING.reset(token)
        trials.cache_clear()
        gc.collect()  # modules and their hooks refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class Trials:
    """Trials by number, on pipelines that are loaded once."""

    def __init__(self, source: SampleSet) -> None:
        self.model, self.num_frames = source.model, source.num_frames
        self.scheduler = source.scheduler
        self._loading: dict[str, Any] = {"dtype": source.dtype, "offline": source.offline}
        self._device = source.device
        self.samples = source.samples()
        self._pipes: dict[str, Any] = {}
        self._made: dict[tuple[int, int, int], Trial] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __call__(self, index: int, num_inference_steps: int, variant: int = 0) -> Trial:
        """The trial of a sample with so many steps, and another noise for every variant; made once."""
        at = index, num_inference_steps, variant
        if at not in self._made:
            sample = self.samples[index]
            sample = replace(sample, seed=sample.seed + _OTHER_NOISE * variant)
            self._made[at] = Trial(
                self._pipe(sample.kind), self.model, sample, self.num_frames, num_inference_steps
            )
        return self._made[at]

    def _pipe(self, kind: str) -> Any:
        if kind not in self._pipes:
            pipe = self._pipes[kind] = load_pipeline(
                self.model, kind, device=choose_device(self._device), **self._loading
            )
            if self.scheduler:
                pipe.scheduler = make_scheduler(self.scheduler, pipe.scheduler)
        return self._pipes[kind]


def make_scheduler(name: str, own: Any) -> Any:
    """A scheduler of diffusers with the settings of the model's own, beside those that stand behind its name,
    as in DPMSolverMultistepScheduler:algorithm_type=sde-dpmsolver++; InputError where there is none."""
    import diffusers

    name, _, given = name.partition(":")
    made = getattr(diffusers, name, None)
    if made is None or not name.endswith("Scheduler") or not hasattr(made, "from_config"):
        raise InputError(
            f'"{name}" is no scheduler of diffusers; name a class, as EulerAncestralDiscreteScheduler'
        )
    return made.from_config(own.config, **split_fields(name, given))


def setting(model: str, num_inference_steps: int, guidance_scale: float, scheduler: Any) -> Setting:
    """What a calibration of a model with these holds for."""
    return Setting(
        model, model_hash(model), num_inference_steps, type(scheduler).__name__, guidance_scale
    )
