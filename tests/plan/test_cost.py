"""Bytes that a plan keeps, makes and reads at every step, on a graph small enough to work out by hand."""

from __future__ import annotations

from hgc_video.plan.cost import Cost, cost, full_cost, kept_for_any
from hgc_video.plan.liveness import CFG_DELTA, clean_at, delta, latents_at
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.plan.test_graph import ladder

DEEP = frozenset({"unet.deep"})  # 16 bytes a branch; the prediction has 8


def unet(*nbytes):
    return tuple({"unet": n, "controlnet": 0} for n in nbytes)


def test_stock_models_compute_everything_and_keep_nothing():
    graph = ladder()
    everything = {"unet": 2 * (1 + 100 + 10), "controlnet": 2 * (5 + 7)}
    full = Cost((everything,) * 3, unet(0, 0, 0), unet(0, 0, 0), unet(0, 0, 0))
    assert full_cost(graph, 3) == full
    assert cost(graph, Schedule("off", (StepPlan(),) * 3, stock=True)) == full
    assert (full.nbytes, full.peak_nbytes, full.total) == ((0, 0, 0), 0, 3 * 246)


def test_a_value_is_kept_from_where_it_is_made_to_where_it_is_last_read():
    """Two values of the deep layer, 32 bytes each for both branches, and the latents of the steps that made
    them, 8 each; a step makes its own ones of them."""
    reused = StepPlan(DEEP, extrapolate=DEEP, coefficients=(1.5, -0.5), latent_progress=(0, 1))
    found = cost(ladder(), Schedule("x", (StepPlan(), StepPlan(), reused)))
    assert found.kept == unet(40, 80, 0) and found.peak_nbytes == 80
    assert found.made == unet(40, 40, 0)
    assert found.read == unet(0, 0, 80)


def test_what_is_kept_of_one_branch_or_for_both_takes_half():
    """The guidance difference, and the encoded hint: 8 of the UNet's, 4 of the ControlNet's, once."""
    steps = (StepPlan(), StepPlan(frozenset({"controlnet.hint"}), branches=1, cfg_delta=(1.0, 1.0)))
    found = cost(ladder(), Schedule("x", steps))
    assert found.kept == found.made == ({"unet": 8, "controlnet": 4}, {"unet": 0, "controlnet": 0})
    assert found.read == found.kept[::-1]


def test_bytes_of_every_kind_of_value():
    """For both branches: outputs and deltas of layers, attentions, whole and clean predictions twice; once
    what is the same for both. Of several values all."""
    told = {
        ("unet.deep", 1): 32, (delta("unet.deep"), 2): 64, ("unet.deep.attn2", 1): 12,
        ("unet.deep.attn2", 3): 36, (delta("unet"), 1): 16, (delta("unet"), 2): 32,
        (clean_at(4), 1): 16, (latents_at(4), 1): 8, (latents_at(4), 2): 16, (CFG_DELTA, 1): 8,
        (CFG_DELTA, 2): 16,
    }  # fmt: skip
    graph = ladder()
    for (name, count), nbytes in told.items():
        assert kept_for_any(graph, {name: count}) == {"unet": nbytes, "controlnet": 0}, name
    assert kept_for_any(graph, {"controlnet.hint": 1, "controlnet.zero": 1}) == {
        "unet": 0, "controlnet": 4 + 8,
    }  # fmt: skip
