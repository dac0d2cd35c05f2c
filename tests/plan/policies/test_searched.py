"""Plans as words: what a letter does, other lengths, and the file."""

from __future__ import annotations

import dataclasses

import pytest

from hgc_video.errors import PlanError
from hgc_video.plan.coefficients import carried, linear, slope_of
from hgc_video.plan.cost import cost
from hgc_video.plan.policies.searched import CodedSchedule, load_coded_schedule
from hgc_video.plan.presets import resolve
from hgc_video.plan.schedule import Schedule
from hgc_video.plan.validate import check
from tests.plan.policies.test_policies import tower


def plan(word, gate=99, extrapolation=0.5):
    return CodedSchedule(word, gate, (extrapolation,) * len(word))


def test_every_letter_reuses_what_it_says():
    graph = tower()
    steps = plan("FT1H2F")(graph, 6).steps
    once = {"controlnet.hint"}
    assert [s.reuse - once for s in steps] == [
        frozenset(), set(graph.residuals()), {graph.depths[0]}, {graph.output}, {graph.depths[1]},
        frozenset(),
    ]  # fmt: skip
    assert [s.label for s in steps] == ["key", "no controlnet", "depth 1", "skip", "depth 2", "key"]


def test_the_gate_leaves_one_branch_and_only_of_two():
    graph = tower()
    assert [s.branches for s in plan("FF1F", gate=2)(graph, 4).steps] == [2, 2, 1, 1]
    for branches in (1, 3):
        other = dataclasses.replace(graph, branches=branches)
        steps = plan("FF1F", gate=2)(other, 4).steps
        assert {s.branches for s in steps} == {branches}


def test_slopes_reach_ahead_by_the_real_distance_to_what_made_the_value():
    word = plan("FF1FHH", extrapolation=1.0)
    # A held step takes from the last two that computed a prediction, partial or not.
    assert word.history(2) == [0, 1]
    assert word.history(4) == [0, 1, 2, 3]
    assert word.history(5) == [0, 1, 2, 3]
    assert [word.slope(i) for i in range(6)] == [0, 0, 1.0, 0, 1.0, 2.0]
    assert plan("F11111").slope(4) == 0, "one value has no slope"
    assert plan("FTF1", extrapolation=0.5).slope(3) == 0.5
    assert plan("F1F1", extrapolation=1.0).slope(3) == 0.5, (
        "half as far as from the one to the other"
    )
    assert plan("F11F1", extrapolation=0.5).slope(4) == 0.166667, "of six decimals"


def test_an_online_word_names_the_steps_whose_change_it_follows():
    word = CodedSchedule("FF1FHH", 99, (1.0,) * 6, online=True)
    steps = word(tower(), 6).steps
    assert [s.latent_progress for s in steps] == [None, None, (0, 1), None, (2, 3), (2, 3)]
    slopes = [slope_of(s.coefficients) for s in steps]
    assert slopes == [None, None, 1, None, 1, 1], "the way is measured, not counted"
    costed = cost(tower(), word(tower(), 6))
    plain = cost(tower(), dataclasses.replace(word, online=False)(tower(), 6))
    assert costed.macs == plain.macs
    latents = tower().by_name[tower().output].nbytes
    # Kept as well are the latents of steps 0 and 1, then of 2, then of 2 and 3 until the end.
    assert [a - b for a, b in zip(costed.nbytes, plain.nbytes, strict=True)] == [
        latents, 2 * latents, latents, 2 * latents, 2 * latents, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("follow", [(1, 0), (1, 1), (0, 2), (-1, 0)])
def test_only_two_steps_before_can_be_followed(follow):
    steps = plan("FF1")(tower(), 3).steps
    wrong = dataclasses.replace(steps[2], latent_progress=follow)
    with pytest.raises(PlanError, match="an older and a newer step"):
        check(Schedule("x", (*steps[:2], wrong)), tower())


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 24, 26, 50])
@pytest.mark.parametrize("preset", ["quality", "balanced", "fast", "turbo"])
def test_words_are_carried_over_to_every_length(preset, steps):
    word = resolve(preset).policies[0].plan
    other = word.resampled(steps)
    assert len(other.actions) == len(other.extrapolation) == steps
    check(word(tower(), steps), tower())
    keys, own = (sum(a in "FT" for a in w.actions) for w in (other, word))
    if steps >= len(word.actions):
        assert abs(keys / steps - own / len(word.actions)) < 0.05
    else:
        assert keys == min(steps, own), "steps that are further apart leave less to reuse"


def test_a_file_gives_the_same_plan(tmp_path):
    word = CodedSchedule("FF1H", 3, (0.0, 0.0, 0.5, 1.2), 1.4, "mine", True, {"seed": 3})
    word.save(tmp_path / "a.yaml")
    assert load_coded_schedule(tmp_path / "a.yaml") == word
    assert load_coded_schedule(tmp_path / "a.yaml").metadata == {"seed": 3}
    preset = resolve(f"searched:file={tmp_path / 'a.yaml'}")
    assert [preset.num_steps(n) for n in (8, 20)] == [8, 28]
    assert dataclasses.replace(word, step_ratio=0.01).num_steps(20) == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: plan("1F"), "begins with F"),
        (lambda: plan("FX"), "only F, T, H"),
        (lambda: CodedSchedule("FF", 9, (0.0,)), "1 weights for 2 steps"),
        (lambda: plan("FF", gate=0), "gate=0"),
        (lambda: plan("F9")(tower(), 2), "this model has 4"),
    ],
)
def test_words_that_cannot_be_are_refused(make, says):
    with pytest.raises(PlanError, match=says):
        make()


def test_a_file_that_is_none_says_what_writes_one(tmp_path):
    (tmp_path / "a.yaml").write_text("name: x\n")
    (tmp_path / "b.yaml").write_text("- name\n")
    for name, says in (
        ("a.yaml", "a schedule needs actions=VALUE"),
        ("b.yaml", "it holds no fields"),
        ("missing.yaml", "it cannot be read: no such file or directory"),
    ):
        with pytest.raises(PlanError) as told:
            load_coded_schedule(tmp_path / name)
        assert str(told.value) == (
            f'schedule "{tmp_path / name}" cannot be used: {says}; write one with hgc-video search'
        )


RULE = (1.9, -1.1, 0.2)


def with_rule(word, at, rule=RULE, **fields):
    own = tuple(rule if i in at else () for i in range(len(word)))
    return CodedSchedule(word, 99, (0.5,) * len(word), coefficients=own, **fields)


def test_a_step_with_coefficients_of_its_own_uses_them_in_place_of_its_slope():
    word, graph = with_rule("FFF1HH", {3, 5}), tower()
    steps = check(word(graph, 6), graph).steps
    sloped = plan("FFF1HH")(graph, 6).steps
    assert [s.coefficients for s in steps[3:]] == [RULE, sloped[4].coefficients, RULE]
    assert steps[3].extrapolate == {graph.depths[0]}
    assert "+1.9 of step 2, -1.1 of step 1, +0.2 of step 0" in steps[3].reason
    assert (steps[:3], steps[4]) == (sloped[:3], sloped[4])


def test_a_third_value_is_in_the_planned_bytes():
    graph = tower()
    two, three = (cost(graph, with_rule("FFFH", {3}, RULE[:n])(graph, 4)) for n in (2, 3))
    prediction = graph.branches * graph.by_name[graph.output].nbytes
    assert [b - a for a, b in zip(two.nbytes, three.nbytes, strict=True)] == [
        prediction, prediction, prediction, 0,
    ]  # fmt: skip
    assert two.macs == three.macs


def test_a_file_keeps_coefficients_and_has_none_where_there_are_none(tmp_path):
    word = with_rule("FFF1H", {3, 4})
    word.save(tmp_path / "a.yaml")
    assert load_coded_schedule(tmp_path / "a.yaml") == word
    plan("FFF1H").save(tmp_path / "b.yaml")
    assert "coefficients" not in (tmp_path / "b.yaml").read_text()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CodedSchedule("FF1", 9, (0.0,) * 3, coefficients=((),)), "1 of 3 steps"),
        (lambda: with_rule("FFF1", {2}), "step 2 has coefficients and its code is F"),
        (lambda: with_rule("FFF1", {3}, online=True), "online plan"),
        (lambda: check(with_rule("FF1", {2})(tower(), 3), tower()), "from 3 values, but only 2"),
    ],
)
def test_coefficients_that_cannot_be_are_refused(make, says):
    with pytest.raises(PlanError, match=says):
        make()


def test_a_parabola_is_still_met_exactly_by_carried_coefficients():
    """What is exact for values on a parabola is so at other distances; a share of it stays that share."""
    there, here = ([6, 3, 2], 8), ([9, 8, 4], 13)
    lagrange = (2.5, -4.0, 2.5)
    made = carried(lagrange, there, here)
    for power in range(3):
        assert sum(a * t**power for a, t in zip(made, here[0], strict=True)) == pytest.approx(
            13**power, rel=1e-4
        )
    assert carried(RULE, there, there) == pytest.approx(RULE)
    assert carried(linear(0.5 * 2 / 3), there, here) == pytest.approx(linear(0.5 * 4), abs=1e-5)
    assert carried(lagrange, there, ([9, 8], 13)) == pytest.approx((5.0, -4.0)), "two have a line"


@pytest.mark.parametrize("steps", [1, 3, 5, 12, 24, 50])
def test_coefficients_are_carried_over_to_every_length(steps):
    word = with_rule("FFF1H1FHHF1H", {3, 4, 5, 7, 8, 10, 11})
    other = word.resampled(steps)
    check(other(tower(), steps), tower())
    for index, action in enumerate(other.actions):
        kept = 0 if action == "F" else min(3, len(other.history(index)))
        assert len(other.coefficients[index]) == kept
        if kept:  # the share of F1, which the sum tells, is the same at every distance
            assert sum(other.coefficients[index]) == pytest.approx(sum(RULE), abs=1e-4)
    assert word.resampled(12) is word


def test_a_step_says_what_it_does_and_why():
    graph = tower()
    made = dataclasses.replace(plan("FF1F", gate=2), name="mine")(graph, 4)
    assert (made.name, [s.label for s in made.steps]) == (
        "mine", ["key", "key", "depth 1 gated", "key gated"],
    )  # fmt: skip
    assert [s.reason.split("; ")[0] for s in made.steps] == [
        "mine: code F, computes everything",
        "mine: code F, computes everything",
        "mine: code 1, computes the last up layer, extrapolated from steps 0 and 1 with weight 0.5, "
        "one branch after the gate at step 2",
        "mine: code F, computes everything, one branch after the gate at step 2",
    ]
    own = with_rule("FFF1", {3})(graph, 4).steps[3]
    assert own.reason.split("; ")[0] == (
        "searched: code 1, computes the last up layer, from +1.9 of step 2, -1.1 of step 1, +0.2 of step 0"
    )
    held = plan("FF1", extrapolation=0.0)(graph, 3).steps[2]
    assert not held.extrapolate


def test_the_deepest_step_is_as_deep_as_the_model():
    graph = tower()
    assert plan("F4")(graph, 2).steps[1].reuse == {graph.depths[3], "controlnet.hint"}
    flat = dataclasses.replace(graph, depths=())
    assert [s.label for s in plan("FT")(flat, 2).steps] == ["key", "no controlnet"]


@pytest.mark.parametrize(
    ("gate", "steps", "first"),
    [(6, 24, 12), (6, 3, 2), (6, 6, 3), (1, 3, 1), (12, 24, None), (12, 6, None), (99, 24, None)],
)
def test_the_gate_is_at_its_share_of_every_length(gate, steps, first):
    """The first step of one branch, of a plan of 12 steps; one that stands at the end stays there."""
    branches = [
        s.branches for s in CodedSchedule("F" * 12, gate, (0.0,) * 12)(tower(), steps).steps
    ]
    first = steps if first is None else first
    assert branches == [2] * first + [1] * (steps - first)


def test_the_file_is_written_for_people_and_read_by_its_old_names(tmp_path):
    """In the order of meaning, three decimals, and lines that end after the hundredth character."""
    (tmp_path / "b.yaml").write_text("actions: FH\ngate: 2\ndamping: [0.0, 0.5]\nstretch: 1.5\n")
    assert load_coded_schedule(tmp_path / "b.yaml") == CodedSchedule("FH", 2, (0.0, 0.5), 1.5)
    weights = (0.12, 0.0004, *[0.0] * 18)
    CodedSchedule("F" * 20, 3, weights, 1.4, "mine", metadata={"seed": 3}).save(tmp_path / "a.yaml")
    assert (tmp_path / "a.yaml").read_text() == (
        "name: mine\n"
        "actions: FFFFFFFFFFFFFFFFFFFF\n"
        "gate: 3\n"
        "step_ratio: 1.4\n"
        f"extrapolation: [0.12, {'0.0, ' * 15}0.0,\n"
        "  0.0, 0.0, 0.0]\n"
        "online: false\n"
        "seed: 3\n"
    )
