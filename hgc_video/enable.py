"""enable_cache(): the cache under somebody's own diffusers pipeline, whose loop stays as it is.

The pipeline's progress bar tells when its loop begins and ends, its scheduler where it is; its first step
tells the sizes, from which the plan of the run is made. Where a callback changes what the run is made of
(prompt, control, guidance, adapters), the rest of it is planned as a run of its own. The models are
wrapped from the scaling of a step's latents to the scheduler's step alone: whatever is done to them in a
callback or between calls, and whoever else uses them, meets them as they are.
Composes plan, cache and models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock
from types import TracebackType
from typing import Any

from torch import Tensor

from .cache.engine import Engine
from .cache.finite import FiniteLatents
from .cache.stock_loop import LoopListener, SchedulerListener
from .errors import CacheStateError, InputError, PresetError
from .models.layout import Layout, read_layout
from .models.loaded_graph import loaded_graph
from .models.rebuilt import probe_rebuilt
from .models.schedulers import adds_noise
from .models.state import ModelState
from .models.supported_pipelines import (
    Batch,
    guidance_scale,
    known_calls,
    num_evaluations,
    probe_pipeline,
    read_batch,
)
from .plan.clip_shape import ClipShape
from .plan.cost import full_cost
from .plan.explain import StepSummary, summaries
from .plan.graph import BlockGraph
from .plan.policies.base import Policy
from .plan.policies.full import Off
from .plan.presets import PRESETS, Preset, resolve
from .plan.schedule import Plan, Schedule
from .report import CacheReport

_HANDLE = "_hgc_video_cache"  # where a pipeline keeps its handle, so that disable_cache finds it
_ENABLING = Lock()  # one thread at a time looks whether there is one


def enable_cache(
    pipe: Any, preset_or_policy: str | Policy | None = None, **overrides: Any
) -> CacheHandle:
    """Puts a cache under a stock pipeline; every call from then on is cached, until it is disabled.

    Args:
        pipe: an instance of one of `hgc_video.models.supported_pipelines.PIPELINES`, with one, several or no
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
        CacheStateError: this pipeline has a cache already. While it is enabled, of calls of the pipeline: one
            comes from another thread than the one that is under way.
    """
    probe_pipeline(pipe)
    preset = _preset(preset_or_policy, overrides)
    with _ENABLING:
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


def _preset(given: str | Policy | None, overrides: dict[str, Any]) -> Preset:
    if isinstance(given, Policy):
        preset = Preset(given.text, (given,))
    elif given is None or isinstance(given, str):
        preset = resolve(given or "balanced")
    elif callable(given):
        preset = Preset(getattr(given, "__name__", type(given).__name__), (given,))
    else:
        raise InputError(
            f"{given!r} is neither a preset nor a policy; give its name or an instance, as "
            "DeepCache(interval=3)"
        )
    if not overrides:
        return preset
    if len(preset.policies) != 1:
        raise PresetError(
            f"{preset.name} is {len(preset.policies)} policies, and fields belong to one; write them in the "
            'text, as in "deepcache:interval=3+gate:at=0.5"'
        )
    (policy,) = preset.policies
    if not isinstance(policy, Policy) or preset.name in PRESETS:
        raise PresetError(f'"{preset.name}" takes no fields; fields belong to policies')
    changed = type(policy)(**(policy.model_dump() | overrides))
    return Preset(changed.text, (changed,))


def _models(pipe: Any) -> tuple[Any, Any]:
    """The pipeline's UNet and its ControlNet or ControlNets, None where there is none. One that was put
    beside the pipeline, for our own loop, the pipeline's never calls."""
    return pipe.unet, pipe.controlnet if "controlnet" in pipe.config else None


@dataclass(frozen=True)
class Segment:
    """What a run did under one plan, from step `first` on: MACs by part that the stock models take and that
    were executed, the schedule that was carried out, a row of figures for each step, and the most bytes
    that the cache held."""

    first: int
    uncached: dict[str, int]
    spent: dict[str, int]
    schedule: Schedule
    steps: tuple[StepSummary, ...]
    cache_nbytes: int


class CacheHandle:
    """The cache of one pipeline: made by `enable_cache`."""

    def __init__(self, pipe: Any, preset: Preset) -> None:
        self.pipe, self.preset = pipe, preset
        self._loop = LoopListener(pipe, known_calls(pipe), self._loop_begins, self._loop_ends)
        self._clock: SchedulerListener | None = None  # of the loop that runs
        self._outer: list[
            tuple[SchedulerListener, _Run | None]
        ] = []  # loops in whose callbacks it runs
        self._graphs: dict[ClipShape, BlockGraph] = {}
        self._plans: dict[tuple[ClipShape, int, bool], Plan] = {}
        self._run: _Run | None = None
        self._models: tuple[Any, Any] = (None, None)
        self._seen: tuple[Layout, Any] | None = None
        self._state = ModelState()
        self._frames_axis = 2
        self._look()  # refuses what is unknown now

    def start(self) -> None:
        """Begins to listen to the pipeline."""
        self._loop.start()

    def disable(self) -> None:
        """Puts the pipeline back exactly as it was and frees all tensors; within a loop too, which
        goes on without a cache. What was put over our methods since stays. CacheStateError, and nothing is
        done, while another thread is in a call of the pipeline."""
        self._loop.check_thread()
        try:
            while self._clock is not None:
                self._loop_ends(whole=False)
        finally:
            self._loop.stop()
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

    def _look(self) -> None:
        """Reads how the models are laid out, and their dtype, which may have changed since the last loop."""
        models = _models(self.pipe)
        layout = read_layout(*models)
        seen = (layout, self.pipe.unet.dtype)
        if models != self._models or seen != self._seen:
            probe_rebuilt(*models)
            self._models, self._seen = models, seen
            self._frames_axis = layout.frames_axis
            self._graphs.clear()
            self._plans.clear()

    def _loop_begins(self) -> None:
        self._look()
        if self._clock is not None:  # that of a call in whose callback this one is made
            self._clock.stop()
            self._outer.append((self._clock, self._run))
            self._run = None
        self._state.forget()
        finite = FiniteLatents(num_evaluations(self.pipe), self._done_at)
        self._clock = SchedulerListener(
            self.pipe.scheduler, self._step_begins, self._step_ends, finite
        )
        self._clock.start()

    def _loop_ends(self, whole: bool) -> None:
        clock, self._clock = self._clock, None
        if clock is None:
            return
        clock.stop()
        self._state.forget()
        if self._run is not None:
            self._run.end()
        if self._outer:
            self._clock, self._run = self._outer.pop()
            self._clock.start()
        if whole and self.pipe.scheduler is not clock.scheduler:
            raise CacheStateError(
                "the pipeline's scheduler was replaced within its loop, so that the cache could not tell "
                "where the run was; replace it between calls"
            )
        if whole:
            clock.finite.settle()

    def _done_at(self, step_index: int) -> str:
        """What was done at a step of the loop that runs, as half a sentence."""
        rows = () if self._run is None else self._run.segments()[-1].steps
        reasons = [row.reason for row in rows if row.step == step_index]
        return ": ".join([self.preset.name, *filter(None, reasons)])

    def _step_begins(self, step_index: int, latents: Tensor) -> None:
        """Before the models of a step: at the first one the run is planned, and the rest of it where
        guidance was dropped, or the models or what is loaded into them changed since the step before."""
        changed = self._state.changed(*_models(self.pipe))
        if changed:
            self._look()
        batch = read_batch(self.pipe, latents, self._frames_axis, self._loop.num_tokens)
        run = self._run
        if step_index == 0 or run is None or run.ended or changed or run.batch != batch:
            run = self._run = self._plan(batch, step_index)
        run.at(step_index)

    def _step_ends(self) -> None:
        if self._run is not None:
            self._run.pause()

    def _inputs_change(self, num_tokens: int) -> Engine | None:
        """A model gets another prompt, control or embedding than before: the rest of the run is planned, and
        the engine that carries it out returned."""
        assert self._run is not None and self._clock is not None
        self._loop.num_tokens = num_tokens
        batch = self._run.batch
        batch = replace(batch, clip=replace(batch.clip, num_tokens=num_tokens))
        self._run = self._plan(batch, self._clock.index)
        self._run.at(self._clock.index)
        return self._run.engine

    def _plan(self, batch: Batch, step_index: int) -> _Run:
        left = num_evaluations(self.pipe) - step_index
        before = self._run
        earlier: tuple[Segment, ...] = ()
        if before is not None and not before.ended:
            earlier = before.segments()
            before.end()
        graph = self._graph(batch.clip)
        engine = self._engine(before, graph, self._planned(batch.clip, left))
        return _Run(self._models, batch, graph, engine, step_index, left, earlier)

    def _planned(self, shape: ClipShape, length: int) -> Plan:
        noisy = adds_noise(self.pipe.scheduler)
        key = (shape, length, noisy)
        if key not in self._plans:
            preset = self.preset.for_sampler(adds_noise=noisy)
            self._plans[key] = preset.schedule(self._graph(shape), length)
        return self._plans[key]

    def _engine(self, before: _Run | None, graph: BlockGraph, plan: Plan) -> Engine | None:
        """An engine for a plan, on the models: the one before, whose wrappers compiled code knows, where
        it was made for the same models."""
        if plan.is_stock:
            return None
        engine = None if before is None else before.engine_for(self._models, graph, plan)
        if engine is None:
            engine = Engine(plan, graph)
            engine.on_change = self._inputs_change
        elif engine.schedule is not plan:
            engine.take(plan)
        engine.scheduler = self.pipe.scheduler
        engine.guidance_scale = guidance_scale(self.pipe)
        engine.enable(*self._models)
        return engine

    def _graph(self, shape: ClipShape) -> BlockGraph:
        if shape not in self._graphs:
            self._graphs[shape] = loaded_graph(
                *self._models, shape, dtype_nbytes=self.pipe.unet.dtype.itemsize
            )
        return self._graphs[shape]


class _Run:
    """One run of the pipeline's loop, or what was left of it when guidance was dropped."""

    def __init__(
        self, models: tuple[Any, Any], batch: Batch, graph: BlockGraph, engine: Engine | None, first: int,
        length: int, earlier: tuple[Segment, ...],
    ) -> None:  # fmt: skip
        self.models, self.batch, self.graph, self.engine = models, batch, graph, engine
        self.first, self.length, self.ended = first, length, False
        self._begun = 0
        self._earlier, self._parts = earlier, earlier

    def engine_for(self, models: tuple[Any, Any], graph: BlockGraph, plan: Plan) -> Engine | None:
        """Its engine, if that can carry out a plan of these models."""
        if self.engine is None or self.models != models or self.graph is not graph:
            return None
        return self.engine if self.engine.schedule.lossless == plan.lossless else None

    def at(self, step_index: int) -> None:
        """Tells the engine the position."""
        self._begun = step_index - self.first + 1
        if self.engine is not None:
            self.engine.resume()
            self.engine.at(step_index - self.first)

    def pause(self) -> None:
        """A step's models have run: they are as they were until the next one."""
        if self.engine is not None and not self.ended:
            self.engine.pause()

    def end(self) -> None:
        """The loop is done: takes the wrappers off and frees the tensors; the report keeps what was done."""
        if not self.ended:
            self._parts, self.ended = self.segments(), True
            if self.engine is not None:
                self.engine.disable()

    def report(self, pipeline: str, preset: str) -> CacheReport:
        """What was done so far."""
        parts = self._parts if self.ended else self.segments()
        uncached: dict[str, int] = {}
        spent: dict[str, int] = {}
        rows: list[StepSummary] = []
        for part in parts:
            for totals, added in ((uncached, part.uncached), (spent, part.spent)):
                for name, macs in added.items():
                    totals[name] = totals.get(name, 0) + macs
            rows += [replace(row, step=part.first + row.step) for row in part.steps]
        shape = self.batch.clip
        return CacheReport(
            schedules=tuple(part.schedule for part in parts), pipeline=pipeline, preset=preset,
            num_inference_steps=self.first + self.length,
            num_frames=shape.num_frames, height=shape.height, width=shape.width, macs_by_part=spent,
            macs_baseline_by_part=uncached, cache_nbytes=max(part.cache_nbytes for part in parts),
            steps=tuple(rows),
        )  # fmt: skip

    def segments(self) -> tuple[Segment, ...]:
        """What this and what went before it in the same loop did."""
        done = self._begun if self.engine is None else len(self.engine.log.executed)
        full = {
            k: v * self.batch.num_clips for k, v in full_cost(self.graph, done).by_part().items()
        }
        if self.engine is None:
            stock = Off()(self.graph, done)
            rows = summaries(self.graph, stock)
            return (*self._earlier, Segment(self.first, full, full, stock, rows, 0))
        full["controlnet"] = (
            full["controlnet"] * self.engine.log.controlnet_branches // self.graph.branches
        )
        record = self.engine.log.record()
        spent = self.engine.log.macs_by_part()
        rows = summaries(self.graph, record)
        nbytes = self.engine.peak_nbytes
        return (*self._earlier, Segment(self.first, full, spent, record, rows, nbytes))
