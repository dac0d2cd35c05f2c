"""Steps that would extrapolate beyond float16 are computed, and said to be."""

from __future__ import annotations

import pytest
import torch

from hgc_video.cache.engine import attach
from hgc_video.cache.late_numbers import LateNumbers, largest
from hgc_video.errors import HGCVideoWarning
from hgc_video.plan.coefficients import linear
from hgc_video.plan.policies.full import Full
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.tiny_models import Clip, controlnet, graph_of, motion_unet


@pytest.fixture
def clip():
    return Clip(motion_unet(), controlnet())


def in_dtype(clip, dtype):
    clip.unet.to(dtype)
    clip.controlnet.to(dtype)
    for name in ("latents", "text", "hint"):
        setattr(clip, name, getattr(clip, name).to(dtype))
    clip.timesteps = clip.timesteps[:4]
    return clip


def plan(clip, *coefficients, **more):
    """Two steps that compute, and one for each of the coefficients, which extrapolates the innermost cut."""
    cut = graph_of(clip).depths[0]
    steps = [
        StepPlan(frozenset({cut}), extrapolate=frozenset({cut}), coefficients=c, **more)
        for c in coefficients
    ]
    return Schedule("test", (StepPlan(), StepPlan(), *steps))


def run(clip, schedule):
    graph = graph_of(clip)
    with attach(schedule, graph=graph, unet=clip.unet, controlnet=clip.controlnet) as engine:
        return clip.run(engine), engine.log.record(), engine


FAR = [linear(60_000.0), (9e4, 1e4, -1e5)[:2]]  # a slope, and coefficients of another rule


@pytest.mark.parametrize("far", FAR)
def test_a_step_that_could_exceed_float16_is_computed_and_later_ones_read_as_planned(clip, far):
    in_dtype(clip, torch.float16)
    near = linear(0.5)
    with pytest.warns(HGCVideoWarning, match=r"step 2 is computed: .* could exceed float16"):
        made, record, _ = run(clip, plan(clip, far, near))
    stock, *_ = run(clip, Full()(graph_of(clip), 4))
    assert torch.equal(made[2], stock[2]) and made[2].isfinite().all()
    assert "could exceed float16" in record.steps[2].reason and not record.steps[2].reuse
    held, *_ = run(clip, plan(clip, (), near))
    assert torch.equal(made[3], held[3]) and not torch.equal(made[3], stock[3])


def test_the_range_of_other_dtypes_is_never_exceeded_so(clip, recwarn):
    in_dtype(clip, torch.bfloat16)
    schedule = plan(clip, linear(60_000.0), linear(0.5))
    made, record, _ = run(clip, schedule)
    assert record == schedule and made[2].isfinite().all()
    assert not [w for w in recwarn if issubclass(w.category, HGCVideoWarning)]


def test_what_float16_holds_is_extrapolated_as_planned(clip, recwarn):
    in_dtype(clip, torch.float16)
    schedule = plan(clip, linear(0.5), (1.4, -0.3))
    assert run(clip, schedule)[1] == schedule
    assert not [w for w in recwarn if issubclass(w.category, HGCVideoWarning)]


def test_a_run_that_goes_on_knows_what_was_kept(clip):
    """The magnitudes are part of the state: without them the step that is read next would overflow."""
    in_dtype(clip, torch.float16)
    schedule, graph = plan(clip, linear(60_000.0), linear(0.5)), graph_of(clip)
    models = {"graph": graph, "unet": clip.unet, "controlnet": clip.controlnet}
    with attach(schedule, **models) as engine:
        for index in range(2):
            engine.at(index)
            clip.step(clip.timesteps[index])
        state = engine.state()
        with attach_other(engine, schedule, models) as other, pytest.warns(HGCVideoWarning):
            kept = {name: getattr(part, "state", part) for name, part in state.items()}
            other.restore(kept, torch.device("cpu"))
            other.at(2)
            assert clip.step(clip.timesteps[2]).isfinite().all()


def attach_other(engine, schedule, models):
    engine.pause()
    return attach(schedule, **models)


def test_magnitudes_of_numbers():
    values = torch.tensor([[-7.0, 3.0], [0.5, 6.0]])
    numbers = torch.stack([largest(values), largest(values[1]), largest(torch.tensor([torch.nan]))])
    first, second, third = LateNumbers(numbers.half()).read()
    assert (first, second) == (7.0, 6.0) and third != third
