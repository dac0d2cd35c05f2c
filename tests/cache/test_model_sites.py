"""The sites of a model: told what they do at a step, and what they made taken from them."""

from __future__ import annotations

import pytest
import torch

from hgc_video.cache.execution_log import ExecutionLog
from hgc_video.cache.model_sites import ModelSites
from hgc_video.cache.shared_rows import HintSite, TextProjectionCache
from hgc_video.cache.wrappers import ADD, GIVE, RUN, AttentionSite, LayerSite
from hgc_video.plan.graph import PREDICTION, Attention, BlockGraph, Layer
from hgc_video.plan.liveness import delta
from hgc_video.plan.schedule import Anchors, Schedule, StepPlan
from tests.cache.test_current_step import Run
from tests.plan.test_graph import ladder

FRAMES, WIDTH = 4, 3
HINT, ZERO, DEEP, UP = "controlnet.hint", "controlnet.zero", "unet.deep", "unet.up"
OWN, CROSS = f"{DEEP}.attn1", f"{DEEP}.attn2"


def kept(*names):
    return frozenset(names)


def numbers(first, rows=2 * FRAMES, *shape):
    """Rows that count up from a number."""
    values = first + torch.arange(float(rows))
    return values.view(-1, *[1] * len(shape or (WIDTH,))).expand(rows, *(shape or (WIDTH,)))


class Sites(ModelSites):
    """Sites of the ladder's layers, found by name."""

    def __init__(self, lossless=True):
        super().__init__(False, lossless)
        graph = ladder()
        self.layers = [LayerSite(la) for la in graph.layers if la.kind not in ("join", "hint")]
        self.attentions = [AttentionSite(a) for a in graph.attentions.values()]
        self.texts = [TextProjectionCache(f"{CROSS}.to_k", 3)]
        self.hints = [HintSite(HINT, 5)]

    def __getitem__(self, name):
        return next(site for site in self if site.name == name)


def at(run, index, sites, **options):
    """A step for which the sites are prepared."""
    step = run.at(index, frames=FRAMES)
    step.zero = torch.zeros(())
    sites.prepare(step, options.pop("anchors", None), **options)
    return step


def test_what_is_computed_runs_and_holds_what_a_later_step_reads():
    run, sites = Run(StepPlan(), StepPlan(kept(DEEP))), Sites()
    for site in sites:
        site.ran = site.keep = True
    at(run, 0, sites)
    assert {site.mode for site in sites.layers + sites.attentions} == {RUN}
    assert [site.name for site in sites.layers + sites.attentions if site.keep] == [DEEP]
    assert not any(site.ran for site in sites.layers + sites.attentions)
    assert not any(site.keep_contribution or site.copies for site in sites.layers)
    at(run, 0, sites, also_keep=UP)
    assert [site.name for site in sites.layers if site.keep] == [DEEP, UP]


def test_what_a_layer_adds_is_held_where_a_later_step_adds_it():
    run, sites = Run(StepPlan(), StepPlan(deltas=kept(DEEP))), Sites()
    at(run, 0, sites)
    assert [site.name for site in sites.layers if site.keep_contribution] == [DEEP]
    assert not any(site.keep for site in sites.layers)
    run.at(0, frames=FRAMES).put(delta(DEEP), numbers(1.0))
    at(run, 1, sites)
    assert not any(site.keep_contribution for site in sites.layers)


def test_layers_give_what_is_held_add_what_they_added_and_are_nothing_where_nobody_reads_them():
    far = {"extrapolate": kept(DEEP), "coefficients": (1.5, -0.5)}
    held = StepPlan(kept(DEEP, ZERO), **far)
    added = StepPlan(deltas=kept(DEEP), **far)
    run, sites = Run(StepPlan(), StepPlan(), held, added), Sites()
    for index, first in ((0, 2.0), (1, 4.0)):
        step = at(run, index, sites)
        for name in step.work.keep:
            step.put(name, numbers(first))
    step = at(run, 2, sites)
    assert sites[DEEP].mode == sites[ZERO].mode == GIVE
    assert torch.equal(sites[DEEP].value, numbers(5.0)) and torch.equal(
        sites[ZERO].value, numbers(4.0)
    )
    assert sites["unet.in"].mode == RUN
    at(run, 3, sites)
    assert sites[DEEP].mode == ADD and torch.equal(sites[DEEP].value, numbers(5.0))


@pytest.mark.parametrize(("whole", "rows"), [(False, 0), (True, 2 * FRAMES)])
def test_a_dead_layer_hands_on_a_stand_in_of_its_shape(whole, rows):
    run, sites = Run(StepPlan(), StepPlan(deltas=kept(PREDICTION))), Sites()
    sites[DEEP].shape = torch.Size((99, 7, 6))
    step = run.at(1, frames=FRAMES)
    step.zero, step.whole_stand_ins = torch.zeros((), dtype=torch.float16), whole
    sites.prepare(step, None)
    assert {site.mode for site in sites.layers} == {GIVE}
    assert sites[DEEP].value.shape == (rows, 7, 6) and sites[DEEP].value.dtype == torch.float16
    assert sites[DEEP].copies == whole


def test_an_attention_gives_what_is_held_runs_where_its_layer_does_and_is_left_alone_elsewhere():
    gate = StepPlan(kept(OWN), average_branches=kept(CROSS))
    after = StepPlan(kept(CROSS), branches=1)
    run, sites = Run(StepPlan(), gate, after, StepPlan(kept(DEEP), branches=1)), Sites()
    own, cross = sites.attentions
    step = at(run, 0, sites)
    assert (own.keep, cross.keep) == (True, False)
    step.put(own.name, numbers(1.0))
    step = at(run, 1, sites)
    assert own.mode == GIVE and torch.equal(own.value, numbers(1.0)) and not own.keep
    assert cross.mode == RUN and cross.keep and cross.average_branches
    step.put(CROSS, numbers(5.0, FRAMES), 1)
    cross.ran = True
    step = at(run, 2, sites)
    assert (own.mode, cross.mode) == (RUN, GIVE) and not cross.ran
    assert torch.equal(cross.value, numbers(5.0, FRAMES))
    step.put(DEEP, numbers(1.0, FRAMES))
    at(run, 3, sites)
    assert (own.mode, cross.mode) == (RUN, GIVE), "their layer does not call them"
    at(run, 0, sites)
    assert cross.mode == RUN and not cross.average_branches


def anchored():
    """A UNet's self-attention, a cross-attention, one that reads a single token, and a ControlNet's."""
    kinds = {"attn1": ("spatial", False), "attn2": ("cross", False), "attn3": ("cross", True)}
    own = tuple(
        Attention(f"unet.deep.{name}", kind, constant=constant)
        for name, (kind, constant) in kinds.items()
    )
    theirs = (Attention("controlnet.zero.attn2", "cross"),)
    layers = (
        Layer("controlnet.zero", "attention", (), attentions=theirs),
        Layer("unet.deep", "attention", ("controlnet.zero",), attentions=own),
    )
    return BlockGraph(layers, (), 2, FRAMES)


def test_only_the_unets_own_texts_of_many_tokens_are_read_at_anchor_frames():
    run, sites = Run(StepPlan(), StepPlan(), graph=anchored()), ModelSites(False, True)
    sites.attentions = [AttentionSite(a) for a in anchored().attentions.values()]
    at(run, 0, sites, anchors=Anchors(3))
    told = {site.name: site.anchors for site in sites.attentions}
    rows, *_ = told.pop("unet.deep.attn2")
    assert rows.tolist() == [0, 3, 4, 7], "of both branches"
    assert set(told.values()) == {None}
    step = run.at(1, frames=FRAMES)
    step.zero = torch.zeros((), device="meta")
    sites.prepare(step, Anchors(3))
    assert {t.device.type for site in sites.attentions for t in site.anchors or ()} == {"meta"}
    at(run, 1, sites)
    assert {site.anchors for site in sites.attentions} == {None}


def text(*branches, frames=FRAMES):
    return torch.tensor([[[float(b)]] for b in branches]).repeat_interleave(frames, 0)


def test_texts_are_told_the_prompt_of_the_call_and_of_how_many_branches():
    run, sites = Run(StepPlan(), StepPlan(branches=1)), Sites()
    sites.hints.clear()
    (site,) = sites.texts
    step = at(run, 0, sites)
    sites.prepare_shared(step, {"encoder_hidden_states": text(1, 2)})
    assert (site.mode, site.branches, site.same) == (RUN, 2, True)
    assert torch.equal(site(lambda rows: 2 * rows, text(1, 2)), text(2, 4))
    sites.collect(step, log(), lambda *_: None)
    sites.prepare_shared(at(run, 1, sites), {"encoder_hidden_states": text(2)})
    assert (site.mode, site.branches) == (GIVE, 1)
    sites.prepare_shared(step, {})
    assert (site.mode, site.keep) == (RUN, False), "a call without a text"
    other = run.at(0, window=1, frames=FRAMES)
    sites.prepare_shared(other, {"encoder_hidden_states": text(1, 3)})
    assert site.mode == RUN and site.number == 1, "another window's text"


def log():
    made = ExecutionLog(Schedule("test", (StepPlan(),)), ladder())
    made.at(0, StepPlan())
    return made


@pytest.mark.parametrize(("lossless", "rows"), [(True, FRAMES), (False, 2 * FRAMES)])
def test_a_control_clip_is_encoded_once_for_all_branches_where_nothing_is_to_be_lost(
    lossless, rows
):
    run, sites = Run(StepPlan(), StepPlan(kept(HINT))), Sites(lossless)
    sites.texts.clear()
    (site,) = sites.hints
    step = at(run, 0, sites)
    hint = numbers(1.0, FRAMES, 3, 2, 2).repeat(2, 1, 1, 1)
    sites.prepare_shared(step, {"controlnet_cond": hint})
    assert site.keep
    encoded = []
    assert torch.equal(site(lambda h: encoded.append(len(h)) or 2 * h, hint), 2 * hint)
    assert encoded == [rows]
    told = log()
    sites.collect(step, told, lambda *_: None)
    assert told.executed[-1]["controlnet"] == 5 * rows // FRAMES
    assert run.at(1).values(HINT)[0].branches == 1
    sites.prepare_shared(at(run, 1, sites), {"controlnet_cond": hint})
    assert site.mode == GIVE and not site.dead and torch.equal(site(None, hint), 2 * hint)


def test_a_control_clip_that_is_not_kept_is_encoded_again_and_no_stand_in_has_its_rows():
    dead = StepPlan(inactive_controlnets=kept("controlnet"))
    run, sites = Run(StepPlan(), dead, StepPlan(kept(HINT))), Sites()
    sites.texts.clear()
    (site,) = sites.hints
    hint = numbers(1.0, 2 * FRAMES, 3, 2, 2)
    sites.prepare_shared(at(run, 2, sites), {"controlnet_cond": hint})
    assert site.mode == RUN, "a window that is new at this step"
    sites.prepare_shared(at(run, 1, sites), {"controlnet_cond": hint})
    assert site.mode == GIVE and site.dead and site(None, hint).shape == (0, 1, 1, 1)
    step = run.at(1, frames=FRAMES)
    step.zero, step.whole_stand_ins = torch.zeros(()), True
    sites.prepare_shared(step, {"controlnet_cond": hint})
    assert site(None, hint).shape == (2 * FRAMES, 1, 1, 1)


def test_what_a_call_made_is_counted_seen_and_kept():
    gate = StepPlan(average_branches=kept(CROSS))
    later = (
        StepPlan(kept(DEEP)),
        StepPlan(deltas=kept(DEEP)),
        StepPlan(kept(CROSS, OWN), branches=1),
    )
    run, sites = Run(gate, *later), Sites()
    sites.texts.clear()
    sites.hints.clear()
    step, told, seen = at(run, 0, sites, also_keep=UP), log(), {}
    for name in (DEEP, UP, ZERO, CROSS, OWN):
        sites[name](lambda x: x + 1, numbers(1.0, 2 * FRAMES, 1, 1))
    sites.collect(step, told, seen.__setitem__)
    macs = step.work.macs
    assert told.executed == [
        {"unet": sum(macs[name] for name in (DEEP, UP, CROSS, OWN)), "controlnet": macs[ZERO]}
    ]
    assert {name: float(made[0].sum()) for name, made in seen.items()} == {DEEP: 2, UP: 2}
    assert {key.name for key in run.store._values} == {DEEP, delta(DEEP), CROSS, OWN}
    ((mean, branches, _),) = step.values(CROSS)
    assert branches == 1 and mean.flatten().tolist() == [4, 5, 6, 7]  # of 2 to 5 and 6 to 9
    assert step.values(delta(DEEP))[0].tensor.unique().tolist() == [1]
    assert step.values(DEEP)[0].branches == step.values(OWN)[0].branches == 2
    for site in sites.layers:
        assert site.made is None and site.delta is None
    assert all(site.made is None for site in sites.attentions)


def test_what_did_not_run_is_not_counted():
    run, sites, told = Run(StepPlan(), StepPlan()), Sites(), log()
    step = at(run, 0, sites)
    sites.collect(step, told, lambda *_: pytest.fail("nothing was made"))
    assert told.executed == [{"unet": 0, "controlnet": 0}] and run.store.nbytes == 0


@pytest.mark.parametrize(("states", "rows"), [(text(1, 2), 2), (torch.randn(8, 1, 1), 8)])
def test_rows_of_text_are_counted_as_they_are_projected(states, rows):
    """One for each branch where all its frames have one text, else all of them."""
    run, sites, told = Run(StepPlan()), Sites(), log()
    sites.hints.clear()
    step = at(run, 0, sites)
    sites.prepare_shared(step, {"encoder_hidden_states": states})
    sites.texts[0](lambda rows: rows, states)
    sites.collect(step, told, lambda *_: None)
    assert told.executed == [{"unet": 3 * rows, "controlnet": 0}]


def test_everything_can_be_run_as_the_stock_model_does():
    run, sites = Run(StepPlan(), StepPlan(deltas=kept(PREDICTION))), Sites()
    at(run, 1, sites)
    names = [site.name for site in sites]
    assert names[:4] == [ZERO, "unet.in", DEEP, UP] and names[-2:] == [f"{CROSS}.to_k", HINT]
    for site in sites:
        site.keep = True
    sites.run_all()
    assert all(site.mode == RUN and not site.keep for site in sites)


def test_sites_know_whether_their_model_is_compiled():
    assert ModelSites(True, False).compiled and not ModelSites(False, True).compiled
    assert list(ModelSites(True, False)) == []
