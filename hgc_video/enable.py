"""enable_cache(): the cache under somebody's own diffusers pipeline, whose loop stays as it is.

The pipeline's scheduler tells where the loop is; its first step tells the sizes, from which the plan of
the run is made. Composes plan, cache and models.
"""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Any

from torch import Tensor

from .cache.clock import Clock
from .cache.engine import Engine
from .errors import CacheStateError, InputError, PresetError, nearest
from .models.graph import build_graph
from .models.layout import read_layout
from .models.pipelines import Shape, num_evaluations, num_tokens, probe_pipeline, read_shape
from .plan.chart import chart
from .plan.cost import full_cost
from .plan.graph import BlockGraph
from .plan.presets import Preset, resolve
from .plan.registry import Fill
from .plan.schedule import Schedule
from .saved import CacheReport

_HANDLE = "_hgc_video_cache"  # where a pipeline keeps its handle, so that disable_cache finds it


def enable_cache(
    pipe: Any, preset_or_policy: str | Fill | None = None, **overrides: Any
) -> CacheHandle:
    """Puts a cache under a stock pipeline; every call from then on is cached, until it is disabled.

    Args:
        pipe: an instance of one of `hgc_video.models.pipelines.PIPELINES`, with one, several or no
            ControlNets, LoRA, IP-Adapter, offloading, FreeInit or few-step schedulers.
        preset_or_policy: "balanced" (the default) or another preset, a policy such as
            "deepcache:interval=3", or a policy object. A preset that runs more steps than it is asked
            for does so in `generate` alone: here the loop is the pipeline's.
        overrides: fields of the policy, as `enable_cache(pipe, "hgc", interval=4)`.

    Returns:
        A handle, also a context manager: `.report` tells the last run, `.disable()` undoes all.

    Raises:
        AdapterError: a pipeline or model that is not supported; the message lists what is.
        PresetError: an unknown preset, policy or field.
        CacheStateError: this pipeline has a cache already.
    """
    probe_pipeline(pipe)
    preset = _preset(preset_or_policy, overrides)
    if getattr(pipe, _HANDLE, None) is not None:
        raise CacheStateError(
            "this pipeline has a cache already; disable it first with hgc_video.disable_cache(pipe)"
        )
    handle = CacheHandle(pipe, preset)
    handle.start()
    setattr(pipe, _HANDLE, handle)
    return handle


def disable_cache(pipe: Any) -> None:
    """Takes the cache off a pipeline; nothing happens where there is none."""
    handle = getattr(pipe, _HANDLE, None)
    if handle is not None:
        handle.disable()


def _preset(given: str | Fill | None, overrides: dict[str, Any]) -> Preset:
    if given is None or isinstance(given, str):
        preset = resolve(given or "balanced")
    elif callable(given):
        preset = Preset(type(given).__name__, (given,))
    else:
        raise InputError(f"{given!r} is neither a preset, nor a policy; give its name or an object")
    if not overrides:
        return preset
    fields = {f for fill in preset.fills for f in getattr(fill, "__dataclass_fields__", {})}
    unknown = [name for name in overrides if name not in fields]
    if unknown or len(preset.fills) != 1:
        raise PresetError(
            f'{preset.name} has no field "{unknown[0]}": {nearest(unknown[0], fields)}'
        )
    fill = replace(preset.fills[0], **overrides)  # type: ignore[type-var]
    return Preset(preset.name, (fill,), preset.steps)


def _models(pipe: Any) -> tuple[Any, Any]:
    """The pipeline's UNet and its ControlNet or ControlNets, None where there is none. One that was put
    beside the pipeline, for our own loop, the pipeline's never calls."""
    return pipe.unet, pipe.controlnet if "controlnet" in pipe.config else None


class CacheHandle:
    """The cache of one pipeline: made by `enable_cache`."""

    def __init__(self, pipe: Any, preset: Preset) -> None:
        self.pipe, self.preset = pipe, preset
        self._models = _models(pipe)
        self._frames_axis = read_layout(*self._models).frames_axis  # refuses what is unknown now
        self._clock = Clock(pipe.scheduler, self._begins, self._stepped)
        self._graphs: dict[Shape, BlockGraph] = {}
        self._run: _Run | None = None
        self._guard: Any = None

    def start(self) -> None:
        """Begins to listen to the scheduler."""
        self._clock.start()
        self._guard = self.pipe.unet.register_forward_pre_hook(self._refuse_unheard)

    def disable(self) -> None:
        """Puts the pipeline back exactly as it was and lets go of all tensors."""
        try:
            if self._run is not None:
                self._run.end()
        finally:
            self._guard.remove()
            self._clock.stop()
            if getattr(self.pipe, _HANDLE, None) is self:
                delattr(self.pipe, _HANDLE)

    @property
    def report(self) -> CacheReport:
        """What the last run took; CacheStateError before there was one."""
        if self._run is None:
            raise CacheStateError("there is no run to report yet; call the pipeline first")
        return self._run.report(type(self.pipe).__name__, self.preset.name)

    def __enter__(self) -> CacheHandle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.disable()

    def _refuse_unheard(self, module: Any, args: Any) -> None:
        if self.pipe.scheduler is not self._clock.scheduler:
            raise CacheStateError(
                "the pipeline's scheduler was replaced after enable_cache, so that the cache cannot tell "
                "where the run is; disable the cache and enable it again"
            )

    def _begins(self, step_index: int, latents: Tensor) -> None:
        """Before the models of a step: at the first one, and where the branches change because a callback
        dropped guidance, the rest of the run is planned."""
        shape = read_shape(self.pipe, latents, self._frames_axis)
        run = self._run
        if step_index == 0 or run is None or run.ended or run.shape != shape:
            self._plan(shape, step_index)
        assert self._run is not None
        self._run.at(step_index)

    def _plan(self, shape: Shape, step_index: int) -> None:
        pipe, models = self.pipe, _models(self.pipe)
        if models != self._models:  # a part was replaced, and may be laid out differently
            self._models, self._frames_axis = models, read_layout(*models).frames_axis
            self._graphs.clear()
        left = num_evaluations(pipe) - step_index
        before = self._run if step_index else None
        engine = self._run.engine if self._run and self._run.fits(pipe, shape, left) else None
        if engine is None and self._run is not None:
            self._run.end()
        if shape not in self._graphs:
            self._graphs[shape] = build_graph(
                *models, num_frames=shape.num_frames,
                height=shape.height, width=shape.width, num_tokens=num_tokens(pipe),
                branches=shape.branches, dtype_nbytes=pipe.unet.dtype.itemsize,
            )  # fmt: skip
        graph = self._graphs[shape]
        if engine is None:
            plan = self.preset.schedule(graph, left)
            engine = None if plan is None else Engine(plan, graph)
            if engine is not None:
                engine.enable(*models)
        self._run = _Run(pipe, shape, graph, engine, step_index, left, before)

    def _stepped(self, step_index: int) -> None:
        run = self._run
        if run is not None and step_index + 1 == run.first + run.length:
            run.rest()
            self._clock.rewind()


class _Run:
    """One run of the pipeline's loop, or what was left of it when guidance was dropped."""

    def __init__(
        self, pipe: Any, shape: Shape, graph: BlockGraph, engine: Engine | None, first: int,
        length: int, before: _Run | None,
    ) -> None:  # fmt: skip
        self.shape, self.graph, self.engine = shape, graph, engine
        self.first, self.length, self.ended = first, length, False
        self._models = _models(pipe)
        self._earlier = before._told() if before is not None and not before.ended else ()
        self._kept: tuple[Any, ...] = ()

    def fits(self, pipe: Any, shape: Shape, length: int) -> bool:
        """Whether the same wrapped models can carry out a run of this shape and length."""
        same = self._models == _models(pipe)
        return same and self.shape == shape and self.length == length and self.first == 0

    def at(self, step_index: int) -> None:
        """Tells the engine the position."""
        if self.engine is not None:
            self.engine.at(step_index - self.first)

    def rest(self) -> None:
        """The loop is done: lets go of the tensors; the models stay wrapped for the next one."""
        self._kept, self.ended = self._told(), True
        if self.engine is not None:
            self.engine.rest()

    def end(self) -> None:
        """Takes the wrappers off."""
        if not self._kept:
            self._kept = self._told()
        if self.engine is not None:
            self.engine.disable()

    def report(self, pipeline: str, preset: str) -> CacheReport:
        """What was done so far."""
        parts = self._kept or self._told()
        uncached: dict[str, int] = {}
        spent: dict[str, int] = {}
        lines: list[str] = []
        for part in parts:
            for totals, added in ((uncached, part[0]), (spent, part[1])):
                for name, macs in added.items():
                    totals[name] = totals.get(name, 0) + macs
            lines += part[2]
        shape = self.shape
        return CacheReport(
            pipeline=pipeline, preset=preset, num_inference_steps=self.first + self.length,
            num_frames=shape.num_frames, height=shape.height, width=shape.width, macs_by_part=spent,
            macs_baseline_by_part=uncached, cache_nbytes=max(part[3] for part in parts),
            steps=tuple(lines),
        )  # fmt: skip

    def _told(self) -> tuple[Any, ...]:
        """(MACs uncached, MACs executed, chart lines, cache bytes) of this and what went before it."""
        done = self.length if self.engine is None else len(self.engine.executed)
        clips = self.shape.rows // self.shape.num_frames
        full = {k: v * clips for k, v in full_cost(self.graph, done).by_part().items()}
        if self.engine is None:
            lines = tuple(f"{self.first + i:3d}  stock" for i in range(done))
            return (*self._earlier, (full, full, lines, 0))
        full["controlnet"] = (
            full["controlnet"] * self.engine.controlnet_branches // self.graph.branches
        )
        record = self.engine.record()
        assert isinstance(record, Schedule)
        spent = self.engine.macs_by_part()
        return (*self._earlier, (full, spent, chart(self.graph, record), self.engine.peak_nbytes))
