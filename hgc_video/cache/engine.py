"""Carries out a plan on live models: layers are computed, read from the store, or not run.

The caller gives the position before the models run; the engine decides nothing and copies no forward.
Layers that nobody reads hand on stand-ins without rows, so that the models' own forward keeps working and
costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor

from ..errors import CacheStateError, warn
from ..plan.graph import BlockGraph
from ..plan.memory.placement import RESIDENT_WINDOWS
from ..plan.schedule import Plan
from .compiled import enough_graphs
from .current_step import CurrentStep
from .drift import Observers
from .execution_log import ExecutionLog
from .idle_windows import IdleWindows
from .inputs import Inputs
from .installer import Wiring
from .model_calls import RESIDUALS, sum_residuals, transforms_skips
from .model_wrappers import ControlNetWrapper, UNetWrapper
from .noise_levels import NoiseLevels, known_levels
from .overflow import OverflowGuard
from .prediction import PredictionCache
from .prepared import PreparedSchedule, PreparedStep
from .store import Lasting, Store, Value


@contextmanager
def attach(
    schedule: Plan,
    *,
    graph: BlockGraph,
    unet: Any,
    controlnet: Any = None,
    spill: bool = False,
    scheduler: Any = None,
    guidance_scale: float | None = None,
) -> Iterator[Engine]:
    """Wraps the models while the `with` block lasts; undo is exact, also after an exception.

    `scheduler` tells the noise levels, which few plans need, and `guidance_scale` how predictions are mixed,
    which plans that compare predictions need. With `spill` the values of windows that are not at work wait
    in the offload tier.
    """
    engine = Engine(
        schedule, graph, spill=spill, scheduler=scheduler, guidance_scale=guidance_scale
    )
    engine.enable(unet, controlnet)
    try:
        yield engine
    finally:
        engine.disable()


class Engine:
    """A plan on the models of one pipeline, and what is kept for it.

    `enable` wraps the models; `at` gives the position before they run, and step 0 begins a run; `disable`
    ends it. What a run did can be read from `log` and `peak_nbytes` until the next one begins. With
    `spill` idle windows' values are sent to the host where there are more than `there` windows.

    `on_change(num_tokens)`, where it is set, is called before a model that gets another prompt, control or
    embedding than before: it plans the rest of the run, gives its first position (`at`) and returns the
    engine that carries it out: this one, after `take`; another one, where the sizes of the models' inputs
    changed; None where the rest is not cached.
    """

    def __init__(
        self, schedule: Plan, graph: BlockGraph, *, spill: bool = False,
        there: int = RESIDENT_WINDOWS, scheduler: Any = None, guidance_scale: float | None = None,
    ) -> None:  # fmt: skip
        self.graph = graph
        self.on_change: Callable[[int], Engine | None] | None = None
        self.scheduler, self.guidance_scale = scheduler, guidance_scale  # which few plans need
        self.store, self.prediction = Store(), PredictionCache()
        self.peak_nbytes = 0
        self._inputs = Inputs()
        self._wiring = Wiring(graph, lossless=schedule.lossless)
        self._models: tuple[Any, Any] = (None, None)
        self._wrappers: dict[str, UNetWrapper | ControlNetWrapper] = {}
        self._idle = IdleWindows(self.store, spill=spill, there=there)
        self._run = 0
        self._together: frozenset[int] = frozenset()  # the windows of the step, where that was told
        self.take(schedule)

    def take(self, schedule: Plan) -> None:
        """Carries out another plan, with the same lossless savings, from the next run on."""
        self.schedule = schedule
        self.log = ExecutionLog(schedule, self.graph)
        self._anchors = schedule.upper_bound().anchors
        self._prepared = PreparedSchedule(schedule, self.graph)
        self._overflow = OverflowGuard(schedule)
        # The outermost up layer, which every partial step computes.
        self._observers = Observers(self.graph.layers[-2].name if schedule.is_adaptive else None)
        self._step: CurrentStep | None = None

    def enable(self, unet: Any, controlnet: Any = None) -> None:
        """Wraps the models; CacheStateError if one of them carries another cache."""
        self._models = unet, controlnet
        try:
            self._wiring.put("unet", unet, partial(self._wrapper, UNetWrapper))
            if controlnet is not None:
                wrapper = partial(self._wrapper, ControlNetWrapper)
                self._wiring.put("controlnet", controlnet, wrapper)
        except BaseException:
            self.disable()
            raise

    def disable(self) -> None:
        """Puts the models back exactly as they were and frees all tensors."""
        self._wiring.take_off()
        self._clear()

    def pause(self) -> None:
        """The models of a step have run: until `resume` they are exactly as they were."""
        if self._step is not None:
            self._step.calls.clear()
        self._wiring.off()

    def resume(self) -> None:
        """Wraps the models again, also where some of their modules were replaced since."""
        if not self._wiring.on():
            self._wiring.take_off()
            self.enable(*self._models)

    def at(self, step_index: int, window: int = 0) -> None:
        """The models run next at this position; the first window of step 0 begins a run.

        CacheStateError beyond the schedule's steps.
        """
        if not 0 <= step_index < len(self._prepared):
            raise CacheStateError(
                f"step {step_index} is beyond the schedule's {len(self._prepared)} steps; "
                "make one of that length"
            )
        if step_index == 0 and window == self._idle.first:
            self._begin_run()
        self._step = CurrentStep(self.store, self._run, step_index, window, self._overflow)

    def only_windows(self, windows: Collection[int], following: int) -> None:
        """The windows of the coming step, and the first one of the step after it; frees what is kept from
        step to step for any other one, but for encoded hints, which hold for the whole run."""
        self._together = frozenset(windows)
        self._idle.come(windows, following)
        self.store.only_windows(windows, self.graph.names("hint"))
        self._observers.only_windows(windows)

    def kept(self, name: str) -> tuple[Value, ...]:
        """What is kept under a plan's name now, the newest first; empty before the first position."""
        return () if self._step is None else self._step.values(name)

    def give(self, name: str, value: Value) -> None:
        """Puts a value in place of what is kept: measurements ask what another one would do."""
        self.store.put(self._at_work().key(name), value)

    @property
    def nbytes(self) -> int:
        """Bytes kept now, shared rows included."""
        return self.store.nbytes + self._wiring.nbytes

    def state(self) -> dict[str, Any]:
        """All that later steps of the run read, and what its report tells: plain data and tensors, which
        are not copied. Ask between windows or steps."""
        return {
            "store": Lasting(self.store.state()), "prediction": self.prediction.state(),
            "wiring": Lasting(self._wiring.state()), "log": self.log.state(),
            "prepared": self._prepared.state(), "observers": self._observers.state(),
            "overflow": self._overflow.state(), "peak_nbytes": self.peak_nbytes,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Begins a run that goes on where another one of the same plan was when `state` was asked of it;
        the models are wrapped already. The next position is the one after that."""
        state = {
            name: part.state if isinstance(part, Lasting) else part for name, part in state.items()
        }
        self._begin_run()
        self.store.restore(state["store"], self._run, device)
        self.prediction.restore(state["prediction"], self._models[0])
        self._wiring.restore(state["wiring"])
        self.log.restore(state["log"])
        self._prepared.restore(state["prepared"])
        self._observers.restore(state["observers"])
        self._overflow.restore(state["overflow"])
        self.peak_nbytes = state["peak_nbytes"]

    def _begin_run(self) -> None:
        """Nothing of the run before is left."""
        self._clear()
        self.store.begin()
        self.log.begin()
        self._prepared.begin()
        if self._prepared.reads_clean and self.scheduler is not None:
            self.prediction.noise = self._observers.noise = NoiseLevels(self.scheduler)
        self._observers.levels = known_levels(self.scheduler)
        self._observers.guidance_scale = self.guidance_scale
        self.peak_nbytes = 0
        self._run += 1

    def _clear(self) -> None:
        self.store.clear()
        self._inputs.forget()
        self._observers.forget()
        self._overflow.forget()
        self._wiring.forget()
        self._step = None

    def _at_work(self) -> CurrentStep:
        if self._step is None:
            raise CacheStateError(
                "the engine does not know the step; call at(step_index=...) before the models, or run the "
                "models through the pipeline whose cache this is"
            )
        return self._step

    # What the models' wrappers call

    def run(self, name: str, forward: Any, call: dict[str, Any]) -> Any:
        """A model's output for these arguments (by name), by the plan of the current step."""
        return self._wrappers[name].run(forward, call)

    def responsible(self, name: str, call: dict[str, Any], *, last: bool) -> Engine | None:
        """The engine that carries out a call of a model with these arguments (by name): this one, unless
        the inputs changed and `on_change` gave the rest of the run to another one, or to none. `last` is
        the UNet, which reads what the ControlNets made."""
        step = self._at_work()
        if step.thread != get_ident():
            raise CacheStateError(
                f"{name} is at work in another thread, under a cache; give each thread models of its own, or "
                "wait until that run is done"
            )
        if name in step.calls:
            raise CacheStateError(
                f"{name} was called twice at step {step.index}: a cache follows loops that call each "
                "model once a step; disable it for this one"
            )
        if self.on_change is not None and self._inputs.changed(name, call):
            step.inputs_changed = True
        if step.inputs_changed and (last or not step.calls):
            return self._begin_anew(step, name, call)
        return self

    def enter(self, name: str, forward: Any, call: dict[str, Any], *, branches: int) -> CurrentStep:
        """The step at which a model is called with these arguments (by name); its sample has so many
        branches."""
        step, sample = self._at_work(), call["sample"]
        step.calls[name] = forward, dict(call)
        if step.prepared is None:
            self._decide(step, sample)
        clips = sample.shape[self.graph.frames_axis] if sample.ndim == 5 else 1
        step.frames = sample.shape[0] * clips // branches
        step.zero = torch.zeros((), dtype=sample.dtype, device=sample.device)
        return step

    def prepare(self, name: str, step: CurrentStep) -> None:
        """Tells a model's layers and attentions what they do at the step."""
        self._wiring.of[name].prepare(step, self._anchors, self._observers.layer)

    def call(self, name: str, forward: Any, call: dict[str, Any], step: CurrentStep) -> Any:
        """A model's own forward, with its layers as `prepare` left them; takes what they made."""
        sites = self._wiring.of[name]
        sites.prepare_shared(step, call)
        with enough_graphs(sites.compiled):
            out = forward(**call)
        sites.collect(step, self.log, partial(self._observers.see_layer, step))
        return out

    def call_in_guess_mode(
        self, name: str, forward: Any, call: dict[str, Any], step: CurrentStep
    ) -> Any:
        """A ControlNet's own forward, whole and at every step: in guess mode the pipeline runs it on the
        prompt's branch and joins zeros for the other one, so that it needs residuals of every level."""
        sites = self._wiring.of[name]
        sites.run_all()
        self._in_guess_mode(step)
        macs = sum(la.macs for la in self.graph.layers if la.name.startswith(f"{name}."))
        self.log.count(name, macs, step.frames)
        with enough_graphs(sites.compiled):
            return forward(**call)

    def leave(self, step: CurrentStep, prediction: Tensor | None) -> None:
        """The step's UNet has run, with this prediction (None: it was not computed): frees what no later
        step reads."""
        self._observers.see_output(step, prediction)
        self._overflow.sent()
        self.store.keep_only(step.window, step.work.after)
        self._idle.park(step.window, step.zero.device)

    def _decide(self, step: CurrentStep, sample: Tensor) -> None:
        t = step.calls[next(iter(step.calls))][1].get("timestep", 0.0)
        self._observers.see_input(step, sample, t)
        observer = self._observers.at(step.window)
        step.prepared = self._within_range(
            self._prepared.at(step.index, step.window, observer), step
        )
        step.whole_stand_ins = transforms_skips(self._models[0])
        self.log.at(step.index, step.work.step)
        self.peak_nbytes = max(self.peak_nbytes, self.nbytes)
        self._idle.fetch(self._prepared, step.index, step.window)

    def _within_range(self, work: PreparedStep, step: CurrentStep) -> PreparedStep:
        """The work of a step, or where what it extrapolates could exceed float16 one that computes it."""
        together = {step.window} if self.schedule.decides_apart else self._together | {step.window}
        name = self._overflow.exceeded_by(together, work.step, work.live.read, step.index)
        if not name:
            return work
        why = f"computed: {name} extrapolated could exceed float16"
        warn(f"step {step.index} is {why}; bfloat16 and float32 have the range", stacklevel=2)
        return self._prepared.computed(work, why)

    def _begin_anew(self, step: CurrentStep, name: str, call: dict[str, Any]) -> Engine | None:
        """What is kept was made of other inputs: the step begins a run of its own. ControlNets that have
        run at this step by the plan before, which leaves something of them out, run once more."""
        assert self.on_change is not None
        wasted = self.log.withdraw(step.index)
        text = call.get("encoder_hidden_states")
        engine = self.on_change(text.shape[1] if isinstance(text, Tensor) else 1)
        if engine is not None:
            engine.log.owe(wasted)
            engine._inputs.changed(name, call)
        if step.guess_mode and engine is not None:
            engine._in_guess_mode(engine._at_work())
        if step.calls and not step.guess_mode:
            nets = [
                forward(**before) if engine is None else engine.run(net, forward, before)
                for net, (forward, before) in step.calls.items()
            ]
            call |= dict(zip(RESIDUALS, sum_residuals(nets), strict=True))
        return engine

    def _in_guess_mode(self, step: CurrentStep) -> None:
        step.guess_mode, self.log.controlnet_branches = True, 1

    def _wrapper(self, kind: Any, model: Any, name: str) -> Any:
        wrapper = self._wrappers[name] = kind(self, model, name)
        return wrapper
