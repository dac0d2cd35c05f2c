"""Carries out a plan on live models: layers are computed, taken from the store, or not run.

The loop tells it the position; it decides nothing and copies no forward. Dead layers hand on
stand-ins without rows, so that the host's own forward keeps working and costs nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CacheStateError
from ..plan.graph import PREDICTION, BlockGraph
from ..plan.liveness import CFG_DELTA, delta, latents_at
from ..plan.memory.placement import RESIDENT_WINDOWS
from ..plan.schedule import Plan
from .anchors import AnchorRows, anchor_rows
from .cfg import both_branches
from .compiled import enough_graphs
from .drift import Observer
from .execution_log import ExecutionLog
from .idle_windows import IdleWindows
from .inputs import Inputs
from .installer import Wiring
from .latent_progress import own_latents, way
from .model_calls import (
    RESIDUALS,
    bound,
    drop_residuals,
    latents_of,
    prompt_half,
    prompt_residuals,
    sum_residuals,
    transforms_skips,
    with_prediction,
)
from .prepared import PreparedSchedule, PreparedStep
from .shared_rows import HintSite
from .store import Key, Store, Value
from .wrappers import ADD, RUN, AttentionSite, LayerSite


@contextmanager
def attach(
    schedule: Plan,
    *,
    graph: BlockGraph,
    unet: Any,
    controlnet: Any = None,
    spill: bool = False,
) -> Iterator[Engine]:
    """Wraps the models while the `with` block lasts; undo is exact, also after an exception.

    With `spill` the values of windows that are not at work wait in the tier beside the device.
    """
    engine = Engine(schedule, graph, spill=spill)
    engine.enable(unet, controlnet)
    try:
        yield engine
    finally:
        engine.disable()


class Engine:
    """The state of one accelerated pipeline: its plan, its store, where the run is; `account` is what it
    did. With `spill` idle windows' values are sent away where there are more than `there` windows.

    `on_change(num_tokens)`, where it is set, is called before a model that gets another prompt, control or
    embedding than before: it plans the rest of the run (`take`) and tells its first position (`at`).
    """

    def __init__(
        self, schedule: Plan, graph: BlockGraph, *, spill: bool = False,
        there: int = RESIDENT_WINDOWS,
    ) -> None:  # fmt: skip
        self.graph = graph
        self.on_change: Callable[[int], None] | None = None
        self.store = Store()
        self._inputs = Inputs()
        self._observers: dict[int, Observer] = {}
        self._wiring = Wiring(graph, lossless=schedule.lossless)
        self._models: tuple[Any, Any] = (None, None)
        self._fullest = True
        self._calls: dict[str, tuple[Any, dict[str, Any]]] = {}  # of this step, by model
        self._run, self._window, self._frames, self.peak_nbytes = 0, 0, 0, 0
        self._slope: float | Tensor = 0.0
        self._idle = IdleWindows(self.store, spill=spill, there=there)
        self._hints = graph.names("hint")
        self._whole_stand_ins = self._ran_alone = self._stale = False
        self._output_type: Any = None
        self.take(schedule)

    def take(self, schedule: Plan) -> None:
        """Carries out another plan, with the same lossless savings, from the next run on."""
        self.schedule = schedule
        self._anchors_of_run = schedule.upper_bound().anchors
        self._prepared = PreparedSchedule(schedule, self.graph)
        # The outermost up layer, which every partial step computes.
        self._probe = self.graph.layers[-2].name if self._prepared.adaptive else None
        self.log = ExecutionLog(schedule, self.graph)
        self._index: int | None = None
        self._work: PreparedStep | None = None

    def enable(self, unet: Any, controlnet: Any = None) -> None:
        """Wraps the models; CacheStateError if one of them carries another cache."""
        self._models = unet, controlnet
        try:
            self._wiring.put("unet", unet, self._unet)
            if controlnet is not None:
                self._wiring.put("controlnet", controlnet, self._controlnet)
        except BaseException:
            self.disable()
            raise

    def disable(self) -> None:
        """Puts the models back exactly as they were and lets go of all tensors."""
        self._wiring.take_off()
        self.rest()

    def pause(self) -> None:
        """The models' work of a step is done: until `resume` they are exactly as they were."""
        self._calls.clear()
        self._wiring.off()

    def resume(self) -> None:
        """Wraps the models again, also where some of their modules were replaced since."""
        if not self._wiring.on():
            self._wiring.take_off()
            self.enable(*self._models)

    def begin_run(self) -> None:
        """Starts clean: nothing of the run before is left."""
        self._clear()
        self.store.begin()
        self.peak_nbytes = 0
        self._run += 1
        self.log.begin()
        self._prepared.begin()

    def rest(self) -> None:
        """The run is over: lets go of all tensors, and waits for the next one; what was done stays told."""
        self._clear()

    def at(self, step_index: int, window: int = 0) -> None:
        """Tells the position; CacheStateError beyond the schedule's steps."""
        if not 0 <= step_index < len(self._prepared):
            raise CacheStateError(
                f"step {step_index} is beyond the schedule's {len(self._prepared)} steps; "
                "make one of that length"
            )
        if step_index == 0 and window == 0:
            self.begin_run()
        self._index, self._window, self._work = step_index, window, None
        self._ran_alone = self._stale = False
        self._calls.clear()

    def kept(self, name: str) -> tuple[Value, ...]:
        """What is kept under a plan's name now, the newest first."""
        return self.store.values(self._key(name))

    def give(self, name: str, value: Value) -> None:
        """Puts a value in place of what is kept: measurements ask what another one would do."""
        self.store.put(self._key(name), value)

    def only_windows(self, windows: Collection[int], following: int) -> None:
        """The windows of the coming step, and the first one of the step after it; lets go of what is kept
        from step to step for any other one, but for encoded hints, which hold for the whole run."""
        self._idle.come(windows, following)
        self.store.only_windows(windows, self._hints)
        self._observers = {w: seen for w, seen in self._observers.items() if w in windows}

    @property
    def nbytes(self) -> int:
        """Bytes kept now, shared rows included."""
        return self.store.nbytes + self._wiring.nbytes

    def _clear(self) -> None:
        self.store.clear()
        self._inputs.forget()
        self._calls.clear()
        self._observers.clear()
        self._zero = torch.empty(0)
        self._index = self._work = None
        self._wiring.forget()

    # What is called in place of the models

    def _unet(self, unet: nn.Module, prefix: str) -> Any:
        signature = inspect.signature(type(unet).forward)

        def around(forward: Any, *args: Any, **kwargs: Any) -> Any:
            call = bound(signature, args, kwargs)
            self._whole_stand_ins = transforms_skips(unet)
            work = self._enter(prefix, forward, call, unet=unet)
            gated = work.step.branches < self.graph.branches
            if gated:
                prompt_half(call)
                prompt_residuals(call, self._frames * self.graph.branches)
            if self._ran_alone:
                drop_residuals(call, work.live.computed, self._zero)
            if PREDICTION in work.live.added:
                out = self._same_as_before(call["sample"], work)
            else:
                out = self._forward(prefix, forward, call, work)
            return self._finish(out, call["sample"], work, gated)

        return around

    def _controlnet(self, net: nn.Module, prefix: str) -> Any:
        signature = inspect.signature(type(net).forward)

        def around(forward: Any, *args: Any, **kwargs: Any) -> Any:
            return self._run_controlnet(prefix, forward, bound(signature, args, kwargs))

        return around

    def _run_controlnet(self, prefix: str, forward: Any, call: dict[str, Any]) -> Any:
        alone = bool(call.get("guess_mode")) and self.graph.branches > 1
        work = self._enter(prefix, forward, call, alone=alone)
        if alone:
            return self._for_prompt_alone(forward, call, prefix)
        if work.idle(prefix):
            several = sum(name.startswith(f"{prefix}.") for name in self.graph.residuals()) - 1
            return (self._zero,) * several, self._zero
        if work.step.branches < self.graph.branches:
            prompt_half(call)
        return self._forward(prefix, forward, call, work)

    def _for_prompt_alone(self, forward: Any, call: dict[str, Any], prefix: str) -> Any:
        """In guess mode the host runs a ControlNet on the prompt's latents and joins zeros for the other
        branch, so that it must get residuals of every level: the net runs whole, at every step."""
        self._wiring.of[prefix].run_all()
        self._ran_alone, self.log.controlnet_branches = True, 1
        macs = sum(la.macs for la in self.graph.layers if la.name.startswith(f"{prefix}."))
        self._count(prefix, macs)
        with enough_graphs(self._wiring.of[prefix].compiled):
            return forward(**call)

    # One step

    def _current(self) -> PreparedStep:
        if self._work is None:
            raise CacheStateError(
                "the engine was not told the step; call at(step_index=...) before the models, or run the "
                "models through the pipeline whose cache this is"
            )
        return self._work

    def _enter(
        self, prefix: str, forward: Any, call: dict[str, Any], *, alone: bool = False, unet: Any = None
    ) -> PreparedStep:  # fmt: skip
        """Makes a model's sites ready; at the first model of a step the step is decided. `alone` says
        that the sample has the prompt's branch only; `unet` is the model where it is the UNet."""
        if self._work is None and self._index is None:
            return self._current()
        if prefix in self._calls:
            raise CacheStateError(
                f"{prefix} was called twice at step {self._index}: a cache follows loops that call each "
                "model once a step; disable it for this one"
            )
        if self.on_change is not None and self._inputs.changed(prefix, call):
            self._stale = True
        if self._stale and (unet is not None or not self._calls):
            self._begin_anew(prefix, call)
        self._calls[prefix] = forward, dict(call)
        sample = call["sample"]
        if self._work is None:
            self._decide(sample)
        work = self._current()
        clips = sample.shape[self.graph.frames_axis] if sample.ndim == 5 else 1
        self._frames = sample.shape[0] * clips // (1 if alone else self.graph.branches)
        self._zero = torch.zeros((), dtype=sample.dtype, device=sample.device)
        if alone:
            return work
        if unet is not None:
            self._slope = self._sloped(sample, unet, work)
        for site in self._wiring.of[prefix].layers:
            self._prepare(site, work)
        anchors = self._anchors(work, sample.device)
        for attention in self._wiring.of[prefix].attentions:
            self._prepare_attention(attention, work, anchors)
        return work

    def _begin_anew(self, prefix: str, call: dict[str, Any]) -> None:
        """What is kept was made of other inputs: the step begins a run of its own. ControlNets that have
        run at this step by the plan before, which leaves something of them out, run once more."""
        assert self.on_change is not None and self._index is not None
        ran, alone = self._calls, self._ran_alone
        self._calls = {}
        in_vain = self.log.withdraw(self._index)
        text = call.get("encoder_hidden_states")
        self.on_change(text.shape[1] if isinstance(text, Tensor) else 1)
        self.log.owe(in_vain)
        self._inputs.changed(prefix, call)
        if ran and not alone:
            nets = [self._run_controlnet(name, *of_it) for name, of_it in ran.items()]
            call |= dict(zip(RESIDUALS, sum_residuals(nets), strict=True))
        if alone:
            self._ran_alone, self.log.controlnet_branches = True, 1

    def _forward(self, prefix: str, forward: Any, call: dict[str, Any], work: PreparedStep) -> Any:
        """The model's own forward, with its sites as they were made ready."""
        self._prepare_shared(prefix, call, work)
        with enough_graphs(self._wiring.of[prefix].compiled):
            out = forward(**call)
        self._wiring.of[prefix].collect(work, self.log, self._frames, self._put, self._see)
        return out

    def _prepare_shared(self, prefix: str, call: dict[str, Any], work: PreparedStep) -> None:
        """Makes ready what is computed once for all steps, frames or branches: text and control."""
        sites = self._wiring.of[prefix]
        sites.read_text(self._window, call.get("encoder_hidden_states"), work.step.branches)
        for hint in sites.hints:
            self._prepare_hint(hint, call["controlnet_cond"], work)

    def _prepare_hint(self, site: HintSite, conditioning: Any, work: PreparedStep) -> None:
        name, key = site.name, self._key(site.name)
        if name in work.live.held and key in self.store:
            site.hand_on(self.store.values(key)[0].tensor, dead=False)
        elif name in work.live.computed | work.live.held:
            keep, share = name in work.keep, self.schedule.lossless
            site.encode(conditioning, work.step.branches, share=share, keep=keep)
        else:
            site.hand_on(self._zero.expand(self._dead_rows(work), 1, 1, 1), dead=True)

    def _decide(self, sample: Tensor) -> None:
        assert self._index is not None
        observer = self._observer
        if self._prepared.adaptive:
            observer.see_input(sample)
        self._work, self._fullest = self._prepared.at(self._index, self._window, observer)
        self._slope = (
            self._work.step.slope
        )  # ControlNets run before the UNet, whose latents may refine it
        self.log.at(self._index, self._work.step)
        self.peak_nbytes = max(self.peak_nbytes, self.nbytes)
        self._idle.fetch(self._prepared, self._index, self._window)

    @property
    def _observer(self) -> Observer:
        return self._observers.setdefault(self._window, Observer())

    def _prepare(self, site: LayerSite, work: PreparedStep) -> None:
        name = site.name
        site.ran, site.keep, site.keep_contribution = False, False, False
        site.copies = self._whole_stand_ins
        if name in work.live.computed:
            site.mode = RUN
            site.keep = name in work.keep or name == self._probe
            site.keep_contribution = delta(name) in work.keep
        elif name in work.live.held:
            site.give(self._stored(name, name, work))
        elif name in work.live.added:
            kept = self._stored(delta(name), name, work)
            site.mode, site.value = ADD, kept
        else:
            site.give(site.stand_in(self._zero, self._dead_rows(work)))

    def _anchors(self, work: PreparedStep, device: torch.device) -> AnchorRows | None:
        anchors = self._anchors_of_run
        if anchors is None:
            return None
        return anchor_rows(anchors, work.step.branches, self._frames, device)

    def _prepare_attention(
        self, site: AttentionSite, work: PreparedStep, anchors: AnchorRows | None
    ) -> None:
        name = site.name
        site.ran, site.keep = False, name in work.keep
        if name in work.live.held:
            site.give(self._stored(name, name, work))
            return
        if name not in work.live.attended:
            return
        site.mode, site.average_branches = RUN, name in work.step.average_branches
        if name.startswith("unet.") and site.attention.per_frame:
            site.anchors = anchors

    def _sloped(self, sample: Tensor, unet: Any, work: PreparedStep) -> float | Tensor:
        """The step's slope, by the way of the latents (b) where it follows them; keeps them for later."""
        here, follow, slope = latents_at(work.index), work.step.latent_progress, work.step.slope
        if here not in work.keep and follow is None:
            return slope
        channels, axis = unet.config.out_channels, self.graph.frames_axis
        latents = own_latents(sample, channels, self.graph.branches, axis)
        if here in work.keep:
            self._put(here, latents, work, 1)
        if follow is None:
            return slope
        older, newer = (
            self.store.get(self._key(latents_at(i)), branches=1, frames=self._frames)
            for i in follow
        )
        ahead = (work.index - follow[1]) / (follow[1] - follow[0])
        return slope * way(latents, newer, older, ahead)

    def _stored(self, stored_name: str, name: str, work: PreparedStep) -> Tensor:
        slope = self._slope if name in work.step.extrapolate else 0.0
        return self.store.get(
            self._key(stored_name), branches=work.step.branches, frames=self._frames, slope=slope
        )

    def _see(self, name: str, made: Tensor) -> None:
        if name == self._probe:
            self._observer.see_outermost(made, self._fullest)

    def _finish(self, out: Any, sample: Tensor, work: PreparedStep, gated: bool) -> Any:
        """Keeps what concerns the whole prediction, and gives both branches back where one was run."""
        prediction = out[0] if isinstance(out, tuple) else out.sample
        computed = self.graph.output in work.live.computed
        if computed and delta(PREDICTION) in work.keep:
            self._put(delta(PREDICTION), prediction - latents_of(sample, prediction), work)
            self._output_type = type(out)
        if computed and CFG_DELTA in work.keep and work.step.branches == 2:
            uncond, cond = prediction.chunk(2)
            self._put(CFG_DELTA, uncond - cond, work, 1)
        if self._prepared.adaptive:
            self._observer.see_output(prediction if computed else None)
        weights, difference = work.step.cfg_delta, None
        if weights is not None:
            difference = self.store.get(self._key(CFG_DELTA), branches=1, frames=self._frames)
        self.store.keep_only(self._window, work.keep)
        self._idle.park(self._window, sample.device)
        if not gated:
            return out
        return with_prediction(out, both_branches(prediction, difference, weights or (1.0, 1.0)))

    def _same_as_before(self, sample: Tensor, work: PreparedStep) -> Any:
        """The whole prediction from its kept delta, in the host's own type of output."""
        kept = self._stored(delta(PREDICTION), PREDICTION, work)
        value = latents_of(sample, kept) + kept
        return (value,) if self._output_type is tuple else self._output_type(sample=value)

    def _key(self, name: str) -> Key:
        return Key(self._run, self._window, name)

    def _put(
        self, name: str, tensor: Tensor, work: PreparedStep, branches: int | None = None
    ) -> None:
        value = Value(tensor, branches or work.step.branches, self._frames)
        self.store.put(self._key(name), value, work.keep[name])

    def _rows(self, work: PreparedStep) -> int:
        return self._frames * work.step.branches

    def _dead_rows(self, work: PreparedStep) -> int:
        """The rows of stand-ins: none, unless the host joins them with live tensors."""
        return self._rows(work) if work.mixed or self._whole_stand_ins else 0

    def _count(self, name: str, macs: int) -> None:
        self.log.count(name, macs, self._frames)
