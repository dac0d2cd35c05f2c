"""The dial and the policy strings."""

from __future__ import annotations

import pytest

from hgc_video.errors import PresetError
from hgc_video.models.catalog import model_preset, model_presets
from hgc_video.plan.policies.guard import Guard
from hgc_video.plan.policies.hgc import HGC
from hgc_video.plan.policies.net import Net
from hgc_video.plan.policies.searched import CodedSchedule
from hgc_video.plan.presets import PRESETS, SEARCHED, Preset, asks_quality, resolve
from hgc_video.plan.schedule import Plan, Schedule, StepPlan
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
        ("fast:x=1", '"fast" takes no fields, got "x=1"'),
        ("quality=45", '"quality=45" is no quality; write quality=45dB'),
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


def test_an_asked_quality_is_a_guard_for_that_psnr():
    assert resolve(" quality=42.5 dB ") == Preset("quality=42.5 dB", (Guard(psnr_db=42.5),))
    assert all(map(asks_quality, ("quality=45dB", "quality =45dB", "quality=")))
    assert not any(map(asks_quality, ("quality", "guard:quality=45dB", "balanced")))


@pytest.mark.parametrize("adds_noise", [False, True])
def test_guard_is_told_whether_the_sampler_adds_noise(adds_noise):
    found = resolve("gate:at=0.5+guard:longest=4").for_sampler(adds_noise=adds_noise)
    gate = resolve("gate:at=0.5").policies[0]
    assert found == Preset(
        "gate:at=0.5+guard:longest=4", (gate, Guard(longest=4, noisy=adds_noise))
    )


@pytest.mark.parametrize(
    ("text", "net", "adds_noise", "closed"),
    [
        ("balanced", None, False, None), ("balanced", None, True, True),
        ("balanced", True, False, False), ("balanced", True, True, True),
        ("balanced", False, True, None), ("balanced+fast", None, True, True),
        ("balanced+gate:at=0.5", None, True, None), ("deepcache", None, True, None),
        ("deepcache", True, True, True), ("deepcache", True, False, False), ("off", True, True, None),
        ("fewer-steps:steps=3", True, True, None), ("guard", None, True, None),
    ],
)  # fmt: skip
def test_a_net_is_where_it_is_asked_for_and_under_searched_presets_where_noise_is_added(
    text, net, adds_noise, closed
):
    """Closed, so that everything is computed at first, where noise is added."""
    preset = resolve(text)
    found = preset.for_sampler(net, adds_noise=adds_noise)
    if closed is not None:
        assert found == Preset(f"{text}+net", (*preset.policies, Net(closed=closed)))
    else:
        assert found.name == text and not any(isinstance(p, Net) for p in found.policies)


def test_a_net_that_is_there_stays_as_it_is():
    preset = resolve("balanced+net:bound=0.2")
    assert preset.for_sampler(True, adds_noise=True) == preset
    plan = preset.schedule(tower(), 10)
    assert plan.is_adaptive and plan.name == "balanced+net"
    assert plan.fixed == resolve("balanced").schedule(tower(), 10)
    assert plan.start().bound == 0.2


def test_a_net_under_nothing_computes_everything():
    plan = resolve("net").schedule(tower(), 3, {1: ["controlnet"]})
    silent = StepPlan(inactive_controlnets=frozenset({"controlnet"}))
    assert plan == Schedule("net", (StepPlan(), silent, StepPlan()), lossless=False)
    assert resolve("net").schedule(tower(), 1) == Schedule("net", (StepPlan(),), lossless=False)


def test_fixed_policies_join_one_that_decides_at_run_time_at_every_step():
    """With the lossless savings from step 1 on where the plan makes them, and none where a release is."""
    graph, silent = tower(), {2: ["controlnet"]}
    alone, joined = (resolve(t).schedule(graph, 10, silent) for t in ("guard", "guard+gate:at=0.6"))
    assert [len(some) for some in joined.choices] == [len(some) for some in alone.choices]
    for i, (some, own) in enumerate(zip(joined.choices, alone.choices, strict=True)):
        for one, before in zip(some, own, strict=True):
            assert one.branches == (2 if i < 6 else 1)
            assert one.reuse == before.reuse | ({"controlnet.hint"} if i else set())
            assert one.inactive_controlnets == set(silent.get(i, ()))
    released = resolve("easycache+gate:at=0.6").schedule(graph, 10)
    assert not released.lossless
    assert not any("controlnet.hint" in one.reuse for some in released.choices for one in some)
    assert not any("lossless" in one.reason for some in released.choices for one in some)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "guard+easycache",
            "guard+easycache: guard and easycache both decide at run time; give one",
        ),
        ("guard+net", "guard+net: guard decides at run time already; leave the net out"),
    ],
)
def test_what_decides_at_run_time_does_so_alone(text, says):
    with pytest.raises(PresetError) as told:
        resolve(text).schedule(tower(), 10)
    assert says in str(told.value)


def test_savings_follow_the_controlnets_that_add_nothing():
    """The hint is not there before the ControlNet first runs; a release makes no such savings."""
    plan = resolve("lossless").schedule(ladder(), 4, {0: ["controlnet"], 2: ["controlnet"]})
    hint = frozenset({"controlnet.hint"})
    assert [step.reuse & hint for step in plan.steps] == [set(), set(), hint, hint]
    assert [len(step.inactive_controlnets) for step in plan.steps] == [1, 0, 1, 0]
    released = resolve("deepcache:interval=2").schedule(tower(), 4)
    assert not released.lossless and not any("controlnet.hint" in s.reuse for s in released.steps)


class OwnPlan(Plan):
    """A plan that is neither a schedule nor an adaptive one."""

    name, lossless, is_adaptive = "own", False, False
    choices = ((StepPlan(),),) * 4

    def __len__(self):
        return 4

    def executed(self, steps):
        return Schedule("own", tuple(steps))

    def with_inactive(self, steps):
        return self


class Wrong:
    """A policy that is an object, and gives a number."""

    def __call__(self, graph, steps):
        return 5


def wrong(graph, steps):
    """A policy that is a function, and gives codes."""
    return CodedSchedule("FH", 2, (0.0, 0.0))


def test_a_function_is_a_policy_for_every_sampler():
    preset = Preset("mine", (lambda graph, steps: Schedule("mine", (StepPlan(),) * steps),))
    assert preset.caches and preset.num_steps(7) == 7
    for net, policies in ((None, preset.policies), (True, (*preset.policies, Net()))):
        assert preset.for_sampler(net, adds_noise=False).policies == policies
    assert preset.schedule(ladder(), 3).name == "mine"


def test_policies_of_a_users_own_are_named_where_they_do_not_fit():
    for policy, says in (
        (Wrong(), "the policy Wrong gave int for"),
        (wrong, "the policy wrong gave CodedSchedule for"),
        (lambda graph, steps: OwnPlan(), "gave OwnPlan for .* gives a Schedule or an AdaptivePlan"),
    ):
        preset = Preset("mine", (resolve("deepcache").policies[0], policy))
        with pytest.raises(PresetError, match=says):
            preset.schedule(tower(), 4)
