"""Plans as words: what a letter does, other lengths, and the file."""

from __future__ import annotations

import dataclasses

import pytest

from hgc_video.errors import PlanError
from hgc_video.plan.coefficients import slope_of
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
    for name in ("a.yaml", "missing.yaml"):
        with pytest.raises(PlanError, match="hgc-video search"):
            load_coded_schedule(tmp_path / name)
