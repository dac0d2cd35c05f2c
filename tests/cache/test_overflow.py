"""Steps that would extrapolate beyond float16 are computed, and said to be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hgc_video.cache.engine import attach
from hgc_video.cache.late_numbers import LateNumbers, largest
from hgc_video.cache.overflow import OverflowGuard
from hgc_video.errors import HGCVideoWarning
from hgc_video.measure.macs import MacCounter
from hgc_video.plan.coefficients import linear
from hgc_video.plan.cost import cost
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
            other.restore(state, torch.device("cpu"))
            other.at(2)
            assert clip.step(clip.timesteps[2]).isfinite().all()


def attach_other(engine, schedule, models):
    engine.pause()
    return attach(schedule, **models)


def guard_of(*coefficients, follows=None):
    """A guard of a plan whose last step extrapolates the layer "a", that step, and how it is asked."""
    name = frozenset({"a"})
    step = StepPlan(name, extrapolate=name, coefficients=coefficients, latent_progress=follows)
    guard = OverflowGuard(Schedule("test", (*[StepPlan()] * 4, step)))

    def exceeded_by(*magnitudes, reads=("a",), name="a", step=step):
        """What the step says after values of these magnitudes, the newest first."""
        guard.forget()
        for magnitude in reversed(magnitudes):
            guard.put(0, name, torch.tensor([1.0, -magnitude]).half())
            guard.sent()
        return guard.exceeded_by({0}, step, reads, 4)

    return guard, step, exceeded_by


@pytest.mark.parametrize(
    ("coefficients", "follows", "just", "beyond"),
    [
        # The newest, and the slope times both: 30000 + (30000 + 5504) is the largest of float16, 65504.
        (linear(1.0), None, (30000, 5504), (30000, 5508)),
        # 43680 + 0.5 * 43648 = 65504; the older one may be as large with the other sign.
        (linear(-0.5), None, (43648, 64), (43680, 64)),
        # The difference alone exceeds it before it is weighed: 35504 + 30000.
        (linear(0.1), None, (35488, 30016), (35520, 30016)),
        # The latents may be 3 * (4 - 3) / (3 - 1) times as far: 20000 + 1.5 * (20000 + 10336) = 65504.
        (linear(1.0), (1, 3), (20000, 10336), (20000, 10344)),
        # Another rule's: 2 * 20000 + 0.5 * 51008 = 65504.
        ((2.0, 0.5), None, (20000, 51008), (20000, 51040)),
        # 2 * 8000 + 0.5 * 28672 = 30336, of which 8000 + 1.5 * (30336 + 8000) = 65504.
        ((2.0, 0.5), (1, 3), (8000, 28672), (8000, 28688)),
        # Progress of 1 at most is measured all the same, and goes from the newest by what differs from it:
        # 1.5 * 16000 + 0.5 * 19008 = 33504, and 16000 + 1 * (33504 + 16000) = 65504.
        ((-1.5, 0.5), (0, 3), (16000, 19008), (16000, 19040)),
        # One value is known so far, of which there are twice as much.
        (linear(1.0), None, (32752,), (32768,)),
    ],
)
def test_the_largest_that_a_step_can_meet_by_hand(coefficients, follows, just, beyond):
    _, _, exceeded_by = guard_of(*coefficients, follows=follows)
    assert (exceeded_by(*just), exceeded_by(*beyond)) == ("", "a")


def test_a_kept_contribution_is_watched_beside_its_layer_and_other_layers_are_not():
    _, _, exceeded_by = guard_of(*linear(1.0))
    assert exceeded_by(6e4, 6e4, name="a+", reads=("a", "a+", "b")) == "a+"
    assert exceeded_by(6e4, 6e4, name="b", reads=("a", "a+", "b")) == ""


def test_all_windows_of_a_step_do_the_same():
    """One that computes takes residuals of the frames that it shares from the window before it."""
    guard, step, _ = guard_of(*linear(1.0))
    for window, magnitudes in ((0, (1.0, 2.0)), (1, (6e4, 6e4)), (5, (6e4, 6e4))):
        for magnitude in magnitudes:
            guard.put(window, "a", torch.tensor([magnitude]).half())
        guard.sent()
    assert guard.exceeded_by({0, 1}, step, ("a",), 4) == "a"
    guard.put(1, "a", torch.tensor([1.0]).half())  # the first window has run, and tells less now
    guard.put(1, "a", torch.tensor([1.0]).half())
    guard.sent()
    assert guard.exceeded_by({0, 1}, step, ("a",), 4) == "a", "as the windows before it were told"
    gone_on = guard_of(*linear(1.0))[0]
    gone_on.restore(guard.state())
    assert gone_on.exceeded_by({0, 1}, step, ("a",), 4) == "a"
    assert guard.exceeded_by({0, 1}, step, ("a",), 5) == ""
    assert guard.exceeded_by({0}, step, ("a",), 4) == "", "a window alone is asked anew"
    for index in range(5):
        guard.forget()
        for _ in range(2):
            guard.put(1, "a", torch.tensor([6e4]).half())
        guard.sent()
        assert guard.exceeded_by({0, 1}, step, ("a",), index) == "a", (
            "at whichever step a run begins"
        )


def test_no_more_magnitudes_are_known_than_a_step_reads():
    guard, _, exceeded_by = guard_of(*linear(1.0))
    assert exceeded_by(4.0, 3.0, 2.0) == ""
    assert guard.state()["known"] == [[0, "a", [4.0, 3.0]]]


def test_a_step_that_extrapolates_nothing_waits_for_no_magnitude():
    guard, step, exceeded_by = guard_of(*linear(1.0))
    for held, reads in ((replace(step, coefficients=()), ("a",)), (step, ("b",))):
        assert exceeded_by(6e4, 6e4, step=held, reads=reads) == ""
        assert len(guard._pending) == 2
    assert exceeded_by(6e4, 6e4) == "a" and not guard._pending


def test_magnitudes_of_numbers():
    values = torch.tensor([[-7.0, 3.0], [0.5, 6.0]])
    numbers = torch.stack([largest(values), largest(values[1]), largest(torch.tensor([torch.nan]))])
    first, second, third = LateNumbers(numbers.half()).read()
    assert (first, second) == (7.0, 6.0) and third != third


def test_what_a_step_computes_in_place_of_extrapolating_is_counted_in_full(clip):
    """Also the ControlNet's text, whose share begins at that step."""
    in_dtype(clip, torch.float16)
    graph, off = graph_of(clip), StepPlan(inactive_controlnets=frozenset({"controlnet"}))
    cut = frozenset({graph.depths[1]})
    far = StepPlan(cut, extrapolate=cut, coefficients=linear(6e4))
    clip.timesteps = clip.timesteps[:3]
    with pytest.warns(HGCVideoWarning, match="could exceed float16"), MacCounter() as counter:
        _, record, engine = run(clip, Schedule("test", (off, off, far)))
    executed = sum(engine.log.macs_by_part().values())
    assert executed == counter.macs == cost(graph, record).total
