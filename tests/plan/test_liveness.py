"""What is alive, read, made and kept, on the graph that can be worked out by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hgc_video.plan.coefficients import linear
from hgc_video.plan.graph import PREDICTION
from hgc_video.plan.liveness import (
    CFG_DELTA,
    clean_at,
    delta,
    kept,
    latents_at,
    live,
    made,
    reads,
)
from hgc_video.plan.schedule import Schedule, StepPlan
from hgc_video.plan.validate import check
from tests.plan.policies.test_policies import tower
from tests.plan.test_graph import ladder

DEEP = frozenset({"unet.deep"})


def computed(lossless=True, **options):
    return live(ladder(), StepPlan(**options), lossless=lossless).computed


def test_everything_is_alive_without_reuse():
    alive = live(ladder(), StepPlan())
    assert alive.computed == {layer.name for layer in ladder().layers}
    assert alive.attended == {"unet.deep.attn1", "unet.deep.attn2"}
    assert not alive.read


def test_what_only_feeds_a_reused_output_is_dead():
    assert computed(reuse=DEEP) == set(ladder().by_name) - {"unet.deep"}
    assert computed(reuse=frozenset({"unet.up"})) == set()
    assert computed(reuse=frozenset({"controlnet.zero"})) == {
        "unet.up", "unet.deep", "unet.in", "unet.skip",
    }  # fmt: skip


def test_a_sum_is_reused_by_holding_what_it_adds_up():
    alive = live(ladder(), StepPlan(frozenset({"unet.skip"})))
    assert alive.held == {"unet.in", "controlnet.zero"}
    assert alive.computed == {"unet.up", "unet.deep"}


def test_only_what_a_live_layer_reads_is_read():
    both = StepPlan(frozenset({"controlnet.zero", "controlnet.hint"}))
    assert live(ladder(), both).read == {"controlnet.zero"}
    inside = StepPlan(frozenset({"unet.deep", "unet.deep.attn2"}))
    assert live(ladder(), inside).read == {"unet.deep"}


def test_a_reused_attention_leaves_its_layer_alive():
    alive = live(ladder(), StepPlan(frozenset({"unet.deep.attn2"})))
    assert "unet.deep" in alive.computed
    assert alive.attended == {"unet.deep.attn1"}
    assert alive.held == {"unet.deep.attn2"}


def test_a_contribution_keeps_its_input_alive():
    alive = live(ladder(), StepPlan(frozenset({"controlnet.zero"}), deltas=DEEP))
    assert alive.added == DEEP
    assert alive.computed == {"unet.up", "unet.in", "unet.skip"}
    assert alive.read == {"controlnet.zero", delta("unet.deep")}


def test_the_whole_prediction_leaves_nothing():
    step = StepPlan(frozenset({"controlnet.zero"}), deltas=frozenset({PREDICTION}))
    alive = live(ladder(), step, lossless=False)
    assert not alive.computed and alive.read >= {delta(PREDICTION)}


def test_a_published_method_runs_the_controlnet_that_nobody_reads():
    step = {"reuse": frozenset({"unet.up"})}
    assert computed(**step) == set()
    assert computed(lossless=False, **step) == {"controlnet.zero", "controlnet.hint"}


def test_a_silent_controlnet_is_dead_where_savings_are_exact():
    silent = frozenset({"controlnet"})
    assert not any(n.startswith("controlnet") for n in computed(inactive_controlnets=silent))
    assert "controlnet.hint" in computed(lossless=False, inactive_controlnets=silent)


def test_what_a_step_makes_and_for_which_branches():
    step = StepPlan(average_branches=frozenset({"unet.deep.attn2"}))
    names = made(ladder(), step, live(ladder(), step), 7)
    assert names[latents_at(7)] == 1  # both branches have the same
    assert names["unet.deep"] == names[delta("unet.deep")] == 2
    assert names["unet.deep.attn1"] == 2 and names["unet.deep.attn2"] == 1
    assert names[CFG_DELTA] == 1 and delta(PREDICTION) in names
    assert "unet.skip" not in names


def test_an_extrapolated_value_needs_the_one_before_it():
    step = StepPlan(DEEP, extrapolate=DEEP, coefficients=linear(0.5))
    schedule = Schedule("x", (StepPlan(), StepPlan(), step))
    assert [dict(keep) for keep in kept(ladder(), schedule)] == [
        {"unet.deep": 1}, {"unet.deep": 2}, {},
    ]  # fmt: skip


NAMES = ["unet.deep", "unet.in", "unet.up", "controlnet.hint", "controlnet.zero", "unet.deep.attn2"]
steps = st.builds(
    lambda reuse, deltas, coefficients: StepPlan(
        frozenset(reuse),
        frozenset(deltas),
        extrapolate=frozenset(reuse - {"controlnet.hint"}),
        coefficients=coefficients,
    ),
    st.sets(st.sampled_from(NAMES)),
    st.sets(st.sampled_from(["unet.deep"])),
    st.sampled_from([(), (1.5, -0.5), (2.0, -1.5, 0.5)]),
)


@given(st.lists(steps, min_size=1, max_size=8), st.booleans())
def test_kept_is_exactly_what_makes_every_read_possible(later, lossless):
    """Plays the schedule with lists as the store: every read is there, and nothing is kept in vain."""
    graph = ladder()
    schedule = check(Schedule("x", (StepPlan(),) * 3 + tuple(later), lossless), graph)
    stored: dict[str, int] = {}
    wanted = [reads(s, live(graph, s, lossless=lossless)) for s in schedule.steps]
    for i, (step, keep) in enumerate(zip(schedule.steps, kept(graph, schedule), strict=True)):
        assert all(stored.get(name, 0) >= depth for name, depth in wanted[i].items())
        for name in made(graph, step, live(graph, step, lossless=lossless), i):
            stored[name] = stored.get(name, 0) + 1
        stored = {n: min(depth, keep[n]) for n, depth in stored.items() if n in keep}
        assert stored == dict(keep)
        assert all(any(name in later for later in wanted[i + 1 :]) for name in keep)


def test_what_a_step_reads_with_how_many_values():
    """As many as there are coefficients of what it extrapolates, of its contribution too; of all else one."""
    graph = tower()
    whole = PREDICTION
    step = StepPlan(
        frozenset(graph.residuals()), frozenset({whole}), branches=1, cfg_delta=(1.0, 1.0),
        extrapolate=frozenset({whole}), coefficients=(1.5, -0.5), latent_progress=(0, 1),
    )  # fmt: skip
    found = reads(step, live(graph, step))
    assert found[delta(whole)] == 2 and found[CFG_DELTA] == 1
    assert found[latents_at(0)] == found[latents_at(1)] == 1
    assert {n for name, n in found.items() if name != delta(whole)} == {1}


def test_estimates_of_a_step_are_kept_from_it_on_and_no_longer_than_they_are_read():
    graph = tower()
    held = frozenset(graph.residuals())
    steps = [StepPlan() for _ in range(6)]
    steps[4] = StepPlan(held, clean=((1, 1.5), (3, -0.5)))
    keeps = kept(graph, check(Schedule("x", tuple(steps), lossless=False), graph))
    for name, first in ((clean_at(1), 1), (clean_at(3), 3)):
        assert [name in at_end for at_end in keeps] == [first <= i < 4 for i in range(6)]


def test_a_controlnet_that_adds_nothing_is_dead_and_the_rest_is_alive():
    everything = set(ladder().by_name)
    quiet = frozenset({"controlnet"})
    assert computed(inactive_controlnets=quiet) == {n for n in everything if n.startswith("unet.")}
    assert computed(False, inactive_controlnets=quiet) == everything


def test_only_what_is_extrapolated_is_read_more_than_once():
    step = StepPlan(
        frozenset({"unet.deep", "controlnet.zero"}), extrapolate=DEEP, coefficients=linear(0.5)
    )
    assert reads(step, live(ladder(), step)) == {"unet.deep": 2, "controlnet.zero": 1}


def test_what_a_published_method_makes_at_a_step_need_not_be_kept_until_then():
    """Without the lossless savings residuals are computed although no layer reads them."""
    zero, up = frozenset({"controlnet.zero"}), frozenset({"unet.up"})
    steps = (StepPlan(), StepPlan(up), StepPlan(zero))
    for lossless, held in ((False, set()), (True, {"controlnet.zero"})):
        schedule = Schedule("x", steps, lossless)
        assert set(kept(ladder(), schedule)[0]) - {"controlnet.hint"} == {"unet.up", *held}
