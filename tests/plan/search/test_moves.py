"""The moves of a climb: all that each can make of a plan, drawn from many seeds."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from hgc_video.plan.policies.searched import CodedSchedule
from hgc_video.plan.search.fit_steps import StepFitter
from hgc_video.plan.search.hill_climb import Space, climb
from hgc_video.plan.search.moves import moves, partial, put
from tests.plan.search.test_search import curved

RELOCATE, GATE, DAMP, HOLD, REST, DEEPEN = moves(None)[0]


def plan(actions, gate=99, extrapolation=None, coefficients=()):
    return CodedSchedule(
        actions, gate, extrapolation or (0.5,) * len(actions), coefficients=coefficients
    )


def made(move, start, seeds=300):
    """How often a move makes what of a plan."""
    return Counter(move(start, random.Random(seed)) for seed in range(seeds))


def actions(move, start):
    return {found.actions for found in made(move, start)}


def swapped(word, one, other):
    """A word with two of its letters in each other's place."""
    letters = list(word)
    letters[one], letters[other] = letters[other], letters[one]
    return "".join(letters)


def test_a_key_changes_places_mostly_with_a_step_up_to_three_away():
    word = "F1H21F12H1"
    found = made(RELOCATE, plan(word), 2000)
    places = {swapped(word, 5, at): at for at in (1, 2, 3, 4, 6, 7, 8, 9)}
    counts = Counter({places[p.actions]: n for p, n in found.items()})
    assert set(counts) == set(places.values())
    near, far = [counts[at] for at in (2, 3, 4, 6, 7, 8)], [counts[1], counts[9]]
    # In four of five cases one of six near places, else one of all eight.
    assert all(260 < n < 380 for n in near) and all(25 < n < 80 for n in far)
    assert actions(RELOCATE, plan("FF11")) == {"F1F1", "F11F"}
    assert actions(RELOCATE, plan("FTF1")) == {"F1FT", "FT1F"}
    for stays in ("F111", "FFFF"):
        assert actions(RELOCATE, plan(stays)) == {stays}


def test_of_a_key_near_the_start_the_first_step_after_it_is_a_near_place():
    counts = {p.actions: n for p, n in made(RELOCATE, plan("F11F111"), 1000).items()}
    assert set(counts) == {swapped("F11F111", 3, at) for at in (1, 2, 4, 5, 6)}
    assert min(counts.values()) > 150


def test_what_changes_its_code_loses_its_coefficients():
    own = ((), (), (1.5, -0.5), (1.25, -0.25), (2.0, -1.0))
    start = plan("FFH1H", coefficients=own)
    assert put(start, 3, "H") == replace(
        start, actions="FFHHH", coefficients=(*own[:3], (), own[4])
    )
    assert put(plan("FFH"), 2, "1") == plan("FF1")


@pytest.mark.parametrize(
    ("word", "most"), [("F1221", "1"), ("F12212", "2"), ("FTHFH", "H"), ("F3H3H", "3")]
)
def test_the_partial_step_that_is_used_most(word, most):
    assert partial(plan(word), "H") == most
    assert partial(plan("FTH")) == "1"


@pytest.mark.parametrize(
    ("gate", "gates"),
    [(6, {3, 4, 5, 7, 8, 9}), (3, {2, 4, 5, 6}), (11, {8, 9, 10, 12}), (99, {9, 10, 11, 12})],
)
def test_the_gate_moves_by_up_to_three_and_leaves_two_steps_before_it(gate, gates):
    start = plan("F" + "1" * 11, gate)
    assert set(made(GATE, start)) == {replace(start, gate=g) for g in gates}


def test_a_segment_or_everything_is_extrapolated_by_more_or_less():
    """Between 0 and 1.3, with three digits; coefficients go as much further from the newest value."""
    word, own = "FHHHFH1H", (0.5, 0.5, 0.1234, 1.2, 0.5, 0.7, 0.5, 0.25)
    coefficients = ((), (), (1.123456, -0.3, 0.2), (), (), (2.0, -1.0), (), ())
    start = plan(word, extrapolation=own, coefficients=coefficients)
    expected = {}
    for segment in (range(4), range(4, 8), range(8)):
        for by in (-0.3, -0.15, 0.15, 0.3):
            far = 1 + by / 2
            expected[
                replace(
                    start,
                    extrapolation=tuple(
                        round(min(max(d + by, 0), 1.3), 3) if i in segment else d
                        for i, d in enumerate(own)
                    ),
                    coefficients=tuple(
                        (round(1 + far * (c[0] - 1), 5), *(round(far * v, 5) for v in c[1:]))
                        if c and i in segment
                        else c
                        for i, c in enumerate(coefficients)
                    ),
                )
            ] = len(segment)
    found = made(DAMP, start, 1000)
    assert set(found) == set(expected)
    whole = sum(n for one, n in found.items() if expected[one] == 8)
    assert 250 < whole < 350, "everything in three of ten cases"


def test_a_partial_step_is_held_and_a_held_one_computed_in_part():
    assert actions(HOLD, plan("F1H1F2")) == {"FHH1F2", "F111F2", "F1HHF2", "F1H1FH"}
    assert actions(HOLD, plan("FHT")) == {"F1T"}
    assert actions(HOLD, plan("FFT")) == {"FFT"}


def test_the_controlnet_rests_at_keys_but_the_first_two_steps():
    assert actions(REST, plan("FFFT1F")) == {"FFTT1F", "FFFF1F", "FFFT1T"}
    assert actions(REST, plan("FF1H")) == {"FF1H"}


def test_a_partial_step_computes_a_layer_more_or_less():
    assert actions(DEEPEN, plan("F12H3")) == {"F22H3", "F11H3", "F12H1"}
    assert actions(DEEPEN, plan("FTH")) == {"FTH"}


def test_with_fitted_coefficients_one_segment_changes_between_them_and_slopes():
    fit = StepFitter(curved()[0], 3)
    drawn, weights = moves(fit)
    assert drawn[:-1] == moves(None)[0] and moves(None)[1] == (8, 3, 5, 2, 1, 1)
    assert weights == (8, 3, 5, 2, 1, 1, 2)
    sloped = plan("FFHHFHH")
    first, second = fit.fitted_at(sloped, range(1, 4)), fit.fitted_at(sloped, range(4, 7))
    both = fit(sloped)
    assert [bool(c) for c in first.coefficients] == [False, False, True, True, False, False, False]
    none = replace(sloped, coefficients=((),) * 7)
    assert set(made(drawn[-1], sloped)) == {first, second, none}
    assert set(made(drawn[-1], both)) == {first, second, both}
    assert set(made(drawn[-1], first)) == {none, first, both}


LONG = "FFF12H12F" + "12H12HF" * 4 + "12H"


def keys_of(found):
    """A price: how many key steps a plan has."""
    return sum(action in "FT" for action in found.actions)


def neighbours(start, seeds=40, count=25, **more):
    """What a climb tries first of all, drawn from many seeds: so many plans of each, none of them better."""
    tried = []

    def objective(plans):
        tried.extend(plans)
        return [1.0] * len(plans)

    for seed in range(seeds):
        list(
            climb(
                [start], keys_of, keys_of(start), objective, judgements=1 + count, at_once=count, seed=seed,
                **more,
            )
        )  # fmt: skip
    return [one for one in tried if one != start]


def test_neighbours_are_a_move_away_or_in_one_of_three_cases_two_by_the_weights_of_the_moves():
    start = plan(LONG, gate=20)
    tried = neighbours(start)
    assert len(tried) == 1000
    changed = [
        (one.actions != LONG, one.gate != 20, one.extrapolation != start.extrapolation)
        for one in tried
    ]
    # The gate moves in three of twenty moves; alone it has six places, so that it is counted with others.
    both = sum(gate and (word or slope) for word, gate, slope in changed)
    assert 50 < both < 125
    assert not [1 for told in changed if all(told)], "that would be three moves"
    # One layer more or less: in one of twenty moves.
    deepened = sum(
        sorted(LONG.replace("2", "1")) == sorted(one.actions.replace("2", "1"))
        and one.actions.replace("2", "1") == LONG.replace("2", "1")
        for one, (word, gate, slope) in zip(tried, changed, strict=True)
        if word and not gate and not slope
    )
    assert 15 < deepened < 80


def test_with_fitted_coefficients_a_climb_tries_slopes_in_a_segment():
    fit = StepFitter(curved()[0], 3)
    start = fit(plan("FFHHFHH"))
    tried = neighbours(start, seeds=3, count=20, fit=fit, space=Space(letters="FH", gated=False))
    held = [
        [bool(c) for c, a in zip(one.coefficients, one.actions, strict=True) if a == "H"]
        for one in tried
    ]
    assert any(any(own) and not all(own) for own in held) and any(all(own) for own in held)


def test_plans_that_extrapolate_differently_are_each_judged():
    """Not at all, and fully; where nothing is reused a slope says nothing, and they are one."""
    seen = []

    def objective(plans):
        seen.append(plans)
        return [1.0] * len(plans)

    still, moving = (
        plan("FFH", extrapolation=(0.0,) * 3),
        plan("FFH", extrapolation=(0.0, 0.0, 1.0)),
    )
    same = plan("FFH", extrapolation=(0.5, 0.7, 1.0))
    steps = list(climb([still, moving, same], keys_of, 2, objective, judgements=2))
    assert [step.judged for step in steps] == [2] and len(seen[0]) == 2
    assert {one.extrapolation[2] for one in seen[0]} == {0.0, 1.0}


@pytest.mark.parametrize("at_first", [True, False])
def test_an_objective_gives_an_error_for_every_plan(at_first):
    asked = []

    def objective(plans):
        asked.append(len(plans))
        short = at_first or len(asked) > 1
        return [1.0] * (len(plans) - short)

    seeds = [plan("FF1H"), plan("FFHH")]
    with pytest.raises(ValueError, match="zip"):
        list(climb(seeds, keys_of, 2, objective, judgements=9, at_once=3))
    assert len(asked) == (1 if at_first else 2)
