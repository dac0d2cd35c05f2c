"""The dial and the policy strings."""

from __future__ import annotations

import pytest

from hgc_video.errors import PresetError
from hgc_video.models.catalog import model_preset, model_presets
from hgc_video.plan.policies.hgc import HGC
from hgc_video.plan.presets import PRESETS, SEARCHED, Preset, resolve
from hgc_video.plan.search.transfer import transferred
from hgc_video.plan.validate import check
from tests.plan.policies.test_policies import tower
from tests.plan.test_graph import ladder


@pytest.mark.parametrize(
    "name", [*PRESETS, "full", "hgc", "deepcache", *(f"hgc:{n}" for n in PRESETS)]
)
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 25])
def test_every_name_makes_a_valid_schedule_of_every_length(name, steps):
    import dataclasses

    graph = ladder()
    graph = dataclasses.replace(graph, depths=("unet.deep",) * 3)
    schedule = resolve(name).schedule(graph, steps)
    assert len(schedule) == steps and schedule.is_stock == name.endswith("off")


def test_fields_reach_the_policy():
    assert resolve("hgc:interval=4,cut=1,gate=0.25").policies == (
        HGC(interval=4, depth=1, gate=0.25),
    )
    assert resolve("fewer-steps:steps=13").num_steps(25) == 13
    assert resolve("fewer-steps:steps=13+balanced").num_steps(25) == 13
    assert resolve("quality+fewer-steps:steps=13").num_steps(25) == 13


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("balnced", 'did you mean "balanced"'),
        ("hgc:intervall=2", 'did you mean "interval"'),
        ("hgc:interval=two", "whole number"),
        ("deepcache:interval", "write interval=VALUE"),
        ("fewer-steps", "needs steps=VALUE"),
        ("fewer-steps:steps=0", "give 1 or more"),
        ("gate:at=2", "give at most 1"),
        ("off+gate", "stands alone"),
        ("lossless:x=1", "takes no fields"),
        ("", "unknown preset"),
    ],
)
def test_bad_names_say_what_is_allowed(text, says):
    with pytest.raises(PresetError, match=says):
        resolve(text)


@pytest.mark.parametrize(
    "text", ["hgc:cut=9", "hgc:cut=0", "hgc:interval=0", "hgc:gate=0", "deepcache:branch=7"]
)
def test_impossible_numbers_are_refused(text):
    with pytest.raises(PresetError):
        resolve(text).schedule(ladder(), 5)


def test_the_gate_is_between_two_key_steps():
    """Before it every cross-attention is there to be fused; after it nothing of two branches is left."""
    schedule = HGC(dense=0.1, interval=4, depth=1, gate=0.5)(ladder(), 12)
    assert [s.label for s in schedule.steps][5:7] == ["key", "key gated"]
    assert [s.branches for s in schedule.steps] == [2] * 6 + [1] * 6
    assert schedule.steps[5].average_branches == {"unet.deep.attn2"}


@pytest.mark.parametrize("model", model_presets())
@pytest.mark.parametrize("name", SEARCHED)
def test_models_by_name_have_schedules_that_say_where_they_come_from(model, name):
    own = resolve(name, model).policies[0].plan
    steps = model_preset(model).num_inference_steps
    assert own == transferred(
        resolve(name).policies[0].plan, model=model, source="puppet", num_inference_steps=steps
    )
    assert own.metadata["transferred_from"] == "puppet"
    assert own.metadata["measured"] == "not on pretrained weights"
    assert "closeness_db" not in own.metadata
    made = resolve(name, model)
    check(own(tower(), made.num_steps(steps)), tower())
    assert resolve(name, model).num_steps(steps) == len(own.actions)


@pytest.mark.parametrize("model", ["", "puppet", "no-such", "../schedules", "/tmp", "solvers"])
def test_other_models_have_the_searched_schedules(model):
    assert resolve("fast", model) == resolve("fast")


def test_a_class_in_place_of_a_policy_says_so():
    with pytest.raises(PresetError, match=r"HGC is a class; give a policy object, HGC\(...\)"):
        Preset("own", (HGC,))


def test_a_policy_that_gives_no_plan_is_not_dropped():
    preset = Preset("own", (resolve("lossless").policies[0], lambda graph, steps: None))
    with pytest.raises(PresetError, match="a policy gives a Schedule or an AdaptivePlan"):
        preset.schedule(ladder(), 4)
