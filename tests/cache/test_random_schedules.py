"""Random schedules through the engine: what is executed, stored and given is what was planned.

The reference is the stock models with plain forward hooks: every module runs at every step, and the output
of a reused one is replaced by what it gave when it was last computed.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hgc_video.cache.engine import attach
from hgc_video.measure.macs import MacCounter
from hgc_video.plan.coefficients import linear
from hgc_video.plan.cost import cost
from hgc_video.plan.graph import PREDICTION
from hgc_video.plan.liveness import delta, live
from hgc_video.plan.schedule import Schedule, StepPlan
from hgc_video.plan.validate import check
from tests.tiny_models import Clip, controlnet, graph_of, motion_unet

STEPS = 5
COEFFICIENTS = [linear(0.5), linear(-0.25), (0.75,), (0.5, 0.25), (1.75, -1.0, 0.25)]


@lru_cache(maxsize=1)
def tiny():
    """The clip, its graph, and the names that a schedule may reuse, with their modules."""
    clip = Clip(motion_unet(), controlnet())
    clip.timesteps = clip.timesteps[:STEPS]
    graph, found = graph_of(clip), {}
    models = {"unet": clip.unet, "controlnet": clip.controlnet}
    for name in (*graph.by_name, *graph.attentions):
        part, _, path = name.partition(".")
        if name in graph.attentions or graph.by_name[name].kind not in ("join", "time"):
            found[name] = models[part].get_submodule(path)
    return clip, graph, found


class Reference:
    """The stock models under forward hooks that put a reused output in its place."""

    def __init__(self, schedule: Schedule) -> None:
        self.clip, self.graph, self.modules = tiny()
        self.schedule = schedule
        self.past: dict[str, list[torch.Tensor]] = {}  # the values that were computed, newest first
        self.step, self.live = StepPlan(), live(self.graph, StepPlan())

    def run(self) -> list[torch.Tensor]:
        """Both branches' predictions of all steps."""
        handles = [
            module.register_forward_hook(partial(self._hook, name), with_kwargs=True)
            for name, module in self.modules.items()
        ]
        try:
            return [
                self._prediction(*at)
                for at in zip(self.schedule.steps, self.clip.timesteps, strict=True)
            ]
        finally:
            for handle in handles:
                handle.remove()

    def _prediction(self, step: StepPlan, t: torch.Tensor) -> torch.Tensor:
        self.step, self.live = step, live(self.graph, step, lossless=self.schedule.lossless)
        out, sample = self.clip.step(t), self.clip.latents.repeat(2, 1, 1, 1, 1) * (0.5 + t / 1000)
        if PREDICTION in self.live.added:
            out = sample + self._reused(PREDICTION, delta(PREDICTION))
        elif self.graph.output in self.live.computed:
            self._computed(delta(PREDICTION), out - sample)
        if step.branches == 1:  # rows of the branches never meet: the prompt's are the same alone
            out = out.chunk(2)[1].repeat(2, 1, 1, 1, 1)
        return out

    def _hook(self, name: str, module: Any, args: Any, kwargs: Any, out: Any) -> Any:
        first = out[0] if isinstance(out, tuple) else out
        given = args[0] if args else kwargs.get("hidden_states")
        if name in self.live.held:
            made = self._reused(name, name)
        elif name in self.live.added:
            made = given + self._reused(name, delta(name))
        else:
            if name in self.live.computed | self.live.attended:
                self._computed(name, first)
            if name in self.live.computed and self.graph.by_name[name].has_delta:
                self._computed(delta(name), first - given)
            return out
        return (made,) if isinstance(out, tuple) else made

    def _computed(self, stored: str, value: torch.Tensor) -> None:
        self.past.setdefault(stored, []).insert(0, value)

    def _reused(self, name: str, stored: str) -> torch.Tensor:
        past = self.past[stored]
        coefficients = self.step.coefficients if name in self.step.extrapolate else ()
        if not coefficients:
            return past[0]
        pairs = zip(coefficients, past, strict=False)
        return sum((c * value for c, value in pairs), torch.zeros(()))


def reference(schedule: Schedule) -> list[torch.Tensor]:
    """The predictions of a schedule carried out by hooks."""
    return Reference(schedule).run()


def steps(
    names: list[str], deltas: list[str], hints: frozenset[str]
) -> st.SearchStrategy[StepPlan]:
    """Steps that may come after three full ones."""
    return st.builds(
        lambda reuse, added, prediction, coefficients, extrapolated: StepPlan(
            reuse, added | ({PREDICTION} if prediction else frozenset()),
            extrapolate=frozenset(
                sorted((reuse | added | {PREDICTION}) - hints)[::2] if extrapolated else ()
            ),
            coefficients=coefficients if extrapolated else (),
        ),
        st.frozensets(st.sampled_from(names), max_size=6), st.frozensets(st.sampled_from(deltas), max_size=3),
        st.integers(0, 9).map(lambda n: n == 9), st.sampled_from(COEFFICIENTS), st.booleans(),
    )  # fmt: skip


@st.composite
def schedules(draw) -> Schedule:
    """Three full steps and two of any kind; once one has one branch, so have those after it."""
    _, graph, modules = tiny()
    lossless = draw(st.booleans())
    # An encoded control clip is reused for lossless savings alone, and kept for one branch.
    hints = frozenset(graph.names("hint"))  # which are the same at every step: not extrapolated
    names, deltas = (
        sorted(set(modules) - (set() if lossless else hints)),
        [la.name for la in graph.layers if la.has_delta],
    )
    later = draw(st.lists(steps(names, deltas, hints), min_size=2, max_size=2))
    gate = draw(st.integers(3, STEPS))
    planned = [StepPlan(), StepPlan(), StepPlan(), *later]
    gated = (
        StepPlan(
            s.reuse, s.deltas, branches=1 if i >= gate else 2, extrapolate=s.extrapolate,
            coefficients=s.coefficients,
        )
        for i, s in enumerate(planned)
    )  # fmt: skip
    return check(Schedule("random", tuple(gated), lossless), graph)


def attempt(schedule: Schedule) -> None:
    """Carries a schedule out and holds it against its plan and the reference."""
    clip, graph, _ = tiny()
    planned, stored, outputs = cost(graph, schedule), [], []
    parts = {"graph": graph, "unet": clip.unet, "controlnet": clip.controlnet}
    with attach(schedule, **parts) as engine, MacCounter() as counter:
        for i, t in enumerate(clip.timesteps):
            engine.at(i)
            stored.append(engine.store.nbytes)
            outputs.append(clip.step(t))
        assert engine.log.record() == schedule
        assert engine.log.macs_by_part() == planned.by_part()
    assert counter.macs == pytest.approx(planned.total, rel=1e-9)
    assert stored == [0, *planned.nbytes[:-1]]
    for ours, expected in zip(outputs, reference(schedule), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=12)
@given(schedules())
def test_what_is_planned_is_executed_stored_and_given(schedule):
    attempt(schedule)


def test_the_reference_reuses_what_it_is_told():
    """Full schedules reuse nothing; another one gives another result, so that the comparison can fail."""
    clip, graph, _ = tiny()
    whole = Schedule("full", (StepPlan(),) * STEPS)
    stock = clip.run()
    assert all(torch.equal(a, b) for a, b in zip(reference(whole), stock, strict=True))
    attempt(whole)
    held = Schedule("held", (StepPlan(),) * 4 + (StepPlan(frozenset({graph.depths[0]})),))
    changed = reference(held)
    assert torch.equal(changed[3], stock[3])
    assert (changed[4] - stock[4]).abs().max() > 1e-3
    attempt(held)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize(
    "name",
    ["controlnet.controlnet_down_blocks.0", "controlnet.mid_block.attentions.0", "unet.mid_block.resnets.0"],
)  # fmt: skip
def test_every_model_extrapolates_by_the_slope_of_its_own_step(name, lossless):
    """ControlNets run before the UNet, and had the slope of the step before."""
    names = frozenset({name})
    one, other, third = (
        StepPlan(names, extrapolate=names, coefficients=c) for c in (*COEFFICIENTS[:2], (0.5, 0.25))
    )
    attempt(Schedule("sloped", (StepPlan(), StepPlan(), one, other, third), lossless))


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("name", ["controlnet.conv_in", "unet.conv_in"])
def test_the_timestep_embedding_runs_for_resnets_also_where_what_comes_before_them_is_reused(
    name, branches
):
    reused = StepPlan(frozenset({name}), branches=branches)
    full = StepPlan()
    attempt(Schedule("late", (full, full, full, StepPlan(branches=branches), reused)))
