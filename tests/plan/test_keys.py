"""Plans as words: what a letter does, other lengths, and the file."""

from __future__ import annotations

import pytest

from hgc_video.errors import PlanError
from hgc_video.plan.check import check
from hgc_video.plan.keys import KeyPlan, load_key_plan
from hgc_video.plan.presets import resolve
from tests.plan.test_policies import tower


def plan(word, gate=99, damping=0.5):
    return KeyPlan(word, gate, (damping,) * len(word))


def test_every_letter_reuses_what_it_says():
    graph = tower()
    steps = plan("FT1H2F")(graph, 6).steps
    once = {"controlnet.hint"}
    assert [s.reuse - once for s in steps] == [
        frozenset(), set(graph.residuals()), {graph.cuts[0]}, {graph.output}, {graph.cuts[1]}, frozenset(),
    ]  # fmt: skip
    assert [s.label for s in steps] == ["key", "trunk", "cut 1", "held", "cut 2", "key"]


def test_the_gate_leaves_one_branch_and_only_of_two():
    import dataclasses

    graph = tower()
    assert [s.branches for s in plan("FF1F", gate=2)(graph, 4).steps] == [2, 2, 1, 1]
    for branches in (1, 3):
        other = dataclasses.replace(graph, branches=branches)
        steps = plan("FF1F", gate=2)(other, 4).steps
        assert {s.branches for s in steps} == {branches}


def test_slopes_reach_ahead_by_the_real_distance_to_what_made_the_value():
    word = plan("FF1FHH", damping=1.0)
    # A held step takes from the last two that computed a prediction, partial or not.
    assert word.history(2) == [0, 1]
    assert word.history(4) == [0, 1, 2, 3]
    assert word.history(5) == [0, 1, 2, 3]
    assert [word.slope(i) for i in range(6)] == [0, 0, 1.0, 0, 1.0, 2.0]
    assert plan("F11111").slope(4) == 0, "one value has no slope"
    assert plan("FTF1", damping=0.5).slope(3) == 0.5


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 24, 26, 50])
@pytest.mark.parametrize("preset", ["quality", "balanced", "fast", "turbo"])
def test_words_are_carried_over_to_every_length(preset, steps):
    word = resolve(preset).fills[0].plan
    other = word.resampled(steps)
    assert len(other.actions) == len(other.damping) == steps
    check(word(tower(), steps), tower())
    keys, own = (sum(a in "FT" for a in w.actions) for w in (other, word))
    if steps >= len(word.actions):
        assert abs(keys / steps - own / len(word.actions)) < 0.05
    else:
        assert keys == min(steps, own), "steps that are further apart leave less to reuse"


def test_a_file_gives_the_same_plan(tmp_path):
    word = KeyPlan("FF1H", 3, (0.0, 0.0, 0.5, 1.2), 1.4, "mine", {"seed": 3})
    word.save(tmp_path / "a.yaml")
    assert load_key_plan(tmp_path / "a.yaml") == word
    assert load_key_plan(tmp_path / "a.yaml").told == {"seed": 3}
    preset = resolve(f"searched:file={tmp_path / 'a.yaml'}")
    assert [preset.num_steps(n) for n in (8, 20)] == [8, 28]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: plan("1F"), "begins with F"),
        (lambda: plan("FX"), "only F, T, H"),
        (lambda: KeyPlan("FF", 9, (0.0,)), "1 dampings for 2 steps"),
        (lambda: plan("FF", gate=0), "gate=0"),
        (lambda: plan("F9")(tower(), 2), "this model has 4 cuts"),
    ],
)
def test_words_that_cannot_be_are_refused(make, says):
    with pytest.raises(PlanError, match=says):
        make()


def test_a_file_that_is_none_says_what_writes_one(tmp_path):
    (tmp_path / "a.yaml").write_text("name: x\n")
    for name in ("a.yaml", "missing.yaml"):
        with pytest.raises(PlanError, match="hgc-video search"):
            load_key_plan(tmp_path / name)
