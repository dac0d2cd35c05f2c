"""Dynamic programming against brute force, and the climb on an error that is known."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import pytest

from hgc_video.errors import PlanError
from hgc_video.plan.calibration import Calibration, Setting, load_calibration, mean
from hgc_video.plan.linear_fit import fitted
from hgc_video.plan.policies.searched import CodedSchedule
from hgc_video.plan.search.fit_steps import StepFitter
from hgc_video.plan.search.hill_climb import Space, climb, repaired
from hgc_video.plan.search.segments import Prices, search_keys, share
from hgc_video.plan.search.transfer import transferred
from hgc_video.plan.validate import check
from tests.plan.policies.test_policies import tower

SETTING = Setting("puppet", "abc", 7, "DDIMScheduler", 2.5)


def measured(seed=0, steps=7):
    """A calibration of arbitrary numbers, in which reuse is the worse the further it reaches."""
    draw = random.Random(seed)
    reused = {}
    for cut in (0, 1):
        table = {}
        for newer in range(steps):
            for step in range(newer + 1, steps):
                a = draw.uniform(0.5, 2) * (step - newer) ** 2 / (1 + cut)
                table[-1, newer, step] = (a, 0.0, 0.0)
                for older in range(newer):
                    table[older, newer, step] = (a, -draw.uniform(0, 0.9) * a, a)
        reused[cut] = table
    sensitivity = tuple(draw.uniform(0.5, 2) for _ in range(steps))
    gate = tuple(draw.uniform(0, 1) for _ in range(steps))
    flat = (0.1,) * steps
    return Calibration(SETTING, 1, 4, sensitivity, gate, reused, {"unet.conv_in": flat})


def brute(calibration, graph, budget, gate, buckets=240, coherent=False):
    """The least error over all words whose segments each have one letter, by trying them all."""
    steps = len(calibration.sensitivity)
    prices, bucket = Prices.of(graph, "H1"), budget * steps / buckets

    def price(letter, step):
        return (prices.gated if step >= gate else prices.before)[letter]

    best = math.inf
    for count in range(steps):
        for rest in itertools.combinations(range(1, steps), count):
            keys = [0, *rest, steps]
            options = []
            for at, (key, after) in enumerate(itertools.pairwise(keys)):
                older, inner = keys[at - 1] if at else -1, range(key + 1, after)
                own = []
                for letter in "H1" if inner else "-":
                    rows = (
                        [calibration.reused["H1".index(letter)][older, key, s] for s in inner]
                        if inner
                        else []
                    )
                    sensitivity = [calibration.sensitivity[s] for s in inner]
                    a, b, q = (
                        sum(g * r[k] for g, r in zip(sensitivity, rows, strict=True))
                        for k in range(3)
                    )
                    damp = min(max(-b / q, 0), 1.2) if q else 0.0
                    error = max(a + 2 * b * damp + q * damp**2, 0.0)
                    if coherent:
                        error = math.sqrt(error * len(inner))
                    error += sum(
                        math.sqrt(dropped) if coherent else dropped
                        for dropped in (gains_gate(calibration, s, gate) for s in range(key, after))
                    )
                    # The scheduler counts a segment with the key that ends it.
                    cost = sum(price(letter, s) for s in inner)
                    cost += price("F", after) if after < steps else 0.0
                    own.append((error, -int(-cost // bucket)))
                options.append(own)
            first = -int(-price("F", 0) // bucket)
            for chosen in itertools.product(*options):
                if first + sum(cost for _, cost in chosen) <= buckets:
                    best = min(best, sum(error for error, _ in chosen))
    return best


def gains_gate(calibration, step, gate):
    return calibration.sensitivity[step] * calibration.cfg_drop_error[step] if step >= gate else 0.0


def error_of(plan, calibration):
    """The predicted error of a plan, worked out from its word."""
    steps, total = len(plan.actions), 0.0
    keys = [i for i, a in enumerate(plan.actions) if a == "F"]
    for step in range(steps):
        total += gains_gate(calibration, step, plan.gate)
        if plan.actions[step] == "F":
            continue
        past = [k for k in keys if k < step]
        older = past[-2] if len(past) > 1 else -1
        cut = 0 if plan.actions[step] == "H" else 1
        a, b, q = calibration.reused[cut][older, past[-1], step]
        c = plan.extrapolation[step]
        total += calibration.sensitivity[step] * (a + 2 * b * c + q * c * c)
    return total


@pytest.mark.parametrize("budget", [0.3, 0.5, 0.75])
@pytest.mark.parametrize(("seed", "gate"), [(0, 7), (1, 5), (2, 7), (3, 3)])
def test_dynamic_programming_finds_what_trying_all_words_finds(seed, gate, budget):
    calibration, graph = measured(seed), tower()
    found = search_keys(calibration, graph, budget, gate=gate)
    best = brute(calibration, graph, budget, gate)
    if found is None:
        assert best == math.inf
        return
    assert error_of(found, calibration) == pytest.approx(best, rel=1e-2)  # weights have 3 digits
    assert share(graph, found(graph, 7)) <= budget * 1.05, "but for text and hint at the first step"


def test_without_partial_steps_it_searches_a_solvers_timesteps():
    found = search_keys(measured(), tower(), 0.6, gate=7, letters="FH")
    assert set(found.actions) == {"F", "H"}


def test_nothing_fits_no_budget():
    assert search_keys(measured(), tower(), 0.01, gate=7) is None


def price(plan):
    return share(tower(), plan(tower(), len(plan.actions)))


def distance_to(word):
    """An error that a climb can only lower by moving keys to where `word` has them."""

    def judge(plans):
        return [sum(a != b for a, b in zip(p.actions, word, strict=True)) for p in plans]

    return judge


def test_the_climb_gets_there_within_the_budget_and_again_from_its_seed():
    target = "FF1F11111F11"
    start = CodedSchedule("F1111F11F1F1", 12, (0.5,) * 12)
    budget = price(CodedSchedule(target, 12, (0.5,) * 12)) * 1.001
    ways = [
        list(
            climb([start], price, budget, distance_to(target), judgements=150, at_once=2, seed=seed)
        )
        for seed in (4, 4, 5)
    ]
    assert ways[0] == ways[1] != ways[2]
    errors = [step.error for step in ways[0]]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] <= 1 < errors[0]
    assert all(price(step.plan) <= budget for way in ways for step in way)


def test_a_space_keeps_the_climb_to_its_letters():
    start = CodedSchedule("F1111F11F1F1", 6, (0.5,) * 12)
    space = Space("FH", damped=False, gated=False)
    steps = list(
        climb(
            [CodedSchedule("FHHHFHHHFHHH", 6, (0.5,) * 12), start],
            price,
            0.5,
            distance_to("F" * 12),
            judgements=40,
            space=space,
        )
    )
    assert {a for s in steps for a in s.plan.actions} == {"F", "H"}
    assert {s.plan.gate for s in steps} == {12}
    assert {d for s in steps for d in s.plan.extrapolation} == {0.0}


def test_a_plan_is_brought_under_its_budget_and_up_to_it():
    dear, cheap = (CodedSchedule(w, 12, (0.5,) * 12) for w in ("F" * 12, "F" + "1" * 11))
    for plan in (dear, cheap):
        fitted = repaired(plan, price, 0.6, Space())
        assert 0.6 - price(CodedSchedule("F", 1, (0.0,))) / 6 < price(fitted) <= 0.6


def test_a_calibration_is_the_same_from_its_file(tmp_path):
    first = measured()
    first.save(tmp_path / "c.yaml")
    second = load_calibration(tmp_path / "c.yaml")
    assert second.setting == first.setting
    assert second.sensitivity == pytest.approx(first.sensitivity, rel=1e-3)
    assert second.reused[1][2, 3, 5] == pytest.approx(first.reused[1][2, 3, 5], rel=1e-3)


def test_the_mean_of_calibrations_weighs_their_clips():
    one = measured(0)
    two = dataclasses.replace(measured(1), clips=3)
    both = mean([one, two])
    assert both.clips == 4
    assert both.cfg_drop_error[2] == pytest.approx(
        (one.cfg_drop_error[2] + 3 * two.cfg_drop_error[2]) / 4
    )


def test_another_run_than_the_measured_one_is_refused(tmp_path):
    with pytest.raises(
        PlanError, match=r"made for num_inference_steps=7 and this run has 8.*calibrate"
    ):
        SETTING.check(dataclasses.replace(SETTING, num_inference_steps=8))
    with pytest.raises(PlanError, match="hgc-video calibrate"):
        load_calibration(tmp_path / "none.yaml")


def test_an_online_climb_has_online_words_only():
    seeds = [CodedSchedule("FFFHHH", 6, (0.5,) * 6)]
    judged = []

    def judge(plans):
        judged.extend(plans)
        return [float(p.actions.count("H")) for p in plans]

    list(
        climb(
            seeds,
            lambda p: 0.1 * len(p.actions),
            1.0,
            judge,
            judgements=5,
            space=Space(online=True),
        )
    )
    assert len(judged) == 5
    assert all(plan.online for plan in judged)


def curved(steps=7, keys=40, noise=0.05):
    """A calibration whose predictions lie near a curve: errors, and products of them, worked out from it."""
    draw = random.Random(5)
    parts = [[draw.gauss(0, 1) for _ in range(keys)] for _ in range(3)]
    values = [
        [a + s * b / 4 + s * s * c / 20 + draw.gauss(0, noise) for a, b, c in zip(*parts, strict=True)]
        for s in range(steps)
    ]  # fmt: skip
    errors = [
        [[0.5 * (u - v) for u, v in zip(values[j], values[s], strict=True)] for j in range(s)]
        for s in range(steps)
    ]

    def dot(u, v):
        return sum(a * b for a, b in zip(u, v, strict=True)) / len(u)

    def triangle(e):
        return tuple(tuple(dot(e[j], e[i]) for i in range(j + 1)) for j in range(len(e)))

    one = measured(0, steps)
    return dataclasses.replace(
        one,
        products=tuple(tuple(dot(u, v) for v in values) for u in values),
        held_products={1: tuple(map(triangle, errors))},
    ), values


def test_fitted_coefficients_are_as_near_as_they_say():
    calibration, values = curved(noise=0.01)
    fit = StepFitter(calibration, 3, ridge=1e-6)
    found = fit.of("H", (0, 1, 2), 4, 0.5)
    a, b, c = found.coefficients
    made = [a * x + b * y + c * z for x, y, z in zip(values[2], values[1], values[0], strict=True)]
    error = sum((a - b) ** 2 for a, b in zip(made, values[4], strict=True)) / 40
    assert found.error == pytest.approx(error, rel=1e-2)
    inside = fit.of("1", (0, 1, 2), 4, 0.5)
    assert sum(inside.coefficients) == pytest.approx(1, abs=1e-4)
    assert inside.error == pytest.approx(error / 4, rel=0.3), "half as sensitive, one freedom less"
    assert fit.of("H", (3,), 4, 0.5).coefficients == (1.0,), "of one value there is nothing to fit"


def test_a_value_that_helps_nothing_is_not_kept():
    calibration, _ = curved(noise=0.0)
    two = dataclasses.replace(
        calibration, products=tuple(tuple(1.0 + i * j for j in range(7)) for i in range(7))
    )
    assert len(StepFitter(two, 3).of("H", (0, 1, 2), 4, 1.0).coefficients) == 2, "a line"
    assert len(StepFitter(calibration, 3).of("H", (0, 1, 2), 4, 1.0).coefficients) == 3


def test_a_plan_is_fitted_where_its_kept_values_changed():
    fit = StepFitter(curved()[0], 3)
    sloped = CodedSchedule("FFFH1HH", 7, (0.5,) * 7)
    plan = fit(sloped)
    assert [len(c) > 0 for c in plan.coefficients] == [False] * 3 + [True] * 4
    own = plan.coefficients
    marked = dataclasses.replace(plan, coefficients=(*own[:3], (9.0, -8.0), *own[4:]))
    assert fit(marked, plan) == marked, "a step whose kept values are the same keeps what it has"
    moved = dataclasses.replace(marked, actions="FFFHHHH")
    other = fit(moved, marked)
    assert other.coefficients[3] == (9.0, -8.0)
    assert other.coefficients[4] == fit.of("H", (0, 1, 2), 4, 0.5).coefficients
    assert other.coefficients[5] != plan.coefficients[5], "step 4 made a prediction before"
    assert fit(moved, sloped).coefficients == (), "a plan by slopes stays one"


def test_fitted_prices_choose_the_keys():
    calibration, graph = curved()[0], tower()
    fit = StepFitter(calibration, 3)

    def told(plan):
        assert plan.gate >= 7
        return sum(
            calibration.sensitivity[i] * fit.of(a, plan.history(i), i, plan.extrapolation[i]).error
            for i, a in enumerate(plan.actions)
            if a != "F"
        )

    found = search_keys(calibration, graph, 0.6, gate=7, letters="FH", fit=fit)
    assert any(found.coefficients)
    assert share(graph, found(graph, 7)) <= 0.63
    most = found.actions.count("F")
    words = ("F" + "".join(w) for w in itertools.product("FH", repeat=6))
    others = [CodedSchedule(w, 7, (0.5,) * 7) for w in words if w.count("F") <= most]
    assert told(found) <= 1.05 * min(told(other) for other in others)


def test_a_climb_with_coefficients_fits_what_it_moves_and_leaves_slopes_where_they_win():
    fit = StepFitter(curved()[0], 3)
    seed = fit(CodedSchedule("FFFHFHH", 7, (0.5,) * 7))
    judged = []

    def judge(plans):
        judged.extend(plans)
        return [float(sum(map(bool, p.coefficients))) for p in plans]

    steps = list(
        climb([seed], price, price(seed), judge, judgements=40, space=Space("FH"), fit=fit)
    )
    assert steps[-1].error == 0, "slopes, which this judge likes best"
    again = dataclasses.replace(seed, coefficients=())
    assert price(seed) == price(again)
    for plan in judged:
        check(plan(tower(), 7), tower())
        for i, own in enumerate(plan.coefficients):
            assert not own or plan.actions[i] == "H"
    twice = [p for p in judged if p.actions == seed.actions and p.coefficients != seed.coefficients]
    assert twice, "one word was judged with other coefficients too"


def test_a_climb_by_slopes_leaves_no_coefficients_of_other_steps():
    seed = StepFitter(curved()[0], 3)(CodedSchedule("FFFHFHH", 7, (0.5,) * 7))
    steps = climb([seed], price, price(seed), distance_to("F" * 7), judgements=5, space=Space("FH"))
    assert not any(any(step.plan.coefficients) for step in steps)


def test_a_calibration_without_products_fits_nothing():
    with pytest.raises(PlanError, match="holds no products"):
        StepFitter(measured(), 3)


def keys(plan):
    """A price: one for every key step."""
    return sum(action in "FT" for action in plan.actions)


@pytest.mark.parametrize(
    ("word", "budget", "made"),
    [
        # The keys whose stretch is shortest without them go, of equal ones the last: 7, 5, 3.
        ("FFFFFFFF", 5, "FFF1F1F1"),
        ("FF11F11F", 3, "FF11F111"),
        ("F2T2F2FF", 4, "F2T2F2F2"),
        ("FFF1", 2, "F1F1"),
        # The longest stretch gets one in its middle, of equal ones the first.
        ("F1111111", 4, "F1F1F1F1"),
        ("F11HH", 2, "F1FHH"),
        ("FF1", 9, "FFF"),
        # What costs as much as is allowed stays, and so does a last key behind the first step.
        ("F1F1F1F1", 4, "F1F1F1F1"),
        ("FFF", 0, "FF1"),
    ],
)
def test_a_plan_is_repaired_by_its_stretches_without_a_key(word, budget, made):
    plan = CodedSchedule(word, 99, (0.5,) * len(word))
    assert repaired(plan, keys, budget, Space()) == dataclasses.replace(plan, actions=made)


def test_a_plan_without_partial_steps_is_repaired_with_those_of_its_space():
    plan = CodedSchedule("FFF", 99, (0.5,) * 3)
    assert repaired(plan, keys, 2, Space("FTH")).actions == "FFH"
    assert repaired(plan, keys, 2, Space("F1H")).actions == "FF1"


@pytest.mark.parametrize("letters", ["TH12", "FX", "", "F3", "H"])
def test_a_space_has_letters_that_are_there_and_the_first_steps(letters):
    with pytest.raises(PlanError) as told:
        Space(letters)
    assert f'letters="{letters}" is not possible; give F, ' in str(told.value)
    assert "and of T, H, 1, 2 those that" in str(told.value)


def test_a_space_takes_from_a_plan_what_it_does_not_allow():
    plan = CodedSchedule("FFHH", 3, (0.5,) * 4, coefficients=((), (), (1.5, -0.5), (2.0, -1.0)))
    held = dataclasses.replace(plan, extrapolation=(0.0,) * 4, coefficients=())
    assert Space().clipped(plan) == plan
    assert Space(gated=False).clipped(plan) == dataclasses.replace(plan, gate=4)
    assert Space(damped=False).clipped(plan) == held
    online = dataclasses.replace(plan, online=True, coefficients=())
    assert Space(online=True).clipped(plan) == online
    assert Space(online=True, damped=False).clipped(plan) == dataclasses.replace(held, online=True)
    assert Space("FH").holds(plan) and not Space("F1").holds(plan)


def test_a_climb_tells_how_many_plans_were_judged_and_judges_no_more():
    start = CodedSchedule("F1111F11F1F1", 12, (0.5,) * 12)
    how = {"price": keys, "budget": keys(start), "objective": distance_to("FF1F11111F11")}
    told = [s.judged for s in climb([start], **how, judgements=8, at_once=3)]
    assert told == [1, 4, 7, 8]
    plain = list(climb([start], **how, judgements=60))
    assert [step.judged for step in plain] == list(range(1, 61))
    assert plain == list(climb([start], **how, judgements=60, at_once=1, seed=0))
    assert not list(
        climb([CodedSchedule("FFFF", 4, (0.5,) * 4)], lambda plan: 2.0, 1.0, None, judgements=4)
    )


def test_a_climb_finds_slopes_and_judges_nothing_twice():
    judged = []

    def judge(plans):
        judged.extend(plans)
        return [sum(abs(1.1 - d) for d in plan.extrapolation) for plan in plans]

    start = CodedSchedule("FFHHFHH", 7, (0.5,) * 7)
    steps = list(climb([start], keys, 3, judge, judgements=60, space=Space("FH", gated=False)))
    assert steps[-1].error < 0.3 * steps[0].error
    assert len({plan(tower(), 7).steps for plan in judged}) == len(judged) == 60


def test_a_climb_begins_with_the_seeds_and_fits_those_with_coefficients_alone():
    fit = StepFitter(curved()[0], 3)
    sloped = CodedSchedule("FFFHFHH", 7, (0.5,) * 7)
    judged = []

    def judge(plans):
        judged.extend(plans)
        return [float(not any(p.coefficients)) for p in plans]

    how = {"price": price, "budget": price(sloped), "objective": judge, "space": Space("FH")}
    list(climb([sloped, fit(sloped)], **how, judgements=40, fit=fit))
    assert judged[:2] == [sloped, fit(sloped)]
    held = [[bool(c) for c, a in zip(p.coefficients, p.actions, strict=True) if a == "H"]
            for p in judged[2:] if p.coefficients]  # fmt: skip
    assert any(all(has) for has in held), "most have them where they reuse"
    assert any(any(has) and not all(has) for has in held), "some in one segment and not in another"


@pytest.mark.parametrize(("action", "ridge"), [("H", 0.001), ("H", 10.0), ("1", 0.001), ("1", 2.0)])
def test_a_fit_is_the_closed_form_with_five_digits(action, ridge):
    """Of whole predictions from their products; inside, where coefficients add up to 1, from those of the
    errors that holding makes. A slope counts to three digits."""
    calibration, _ = curved(noise=0.3)
    fit, nodes, step = StepFitter(calibration, 3, ridge), (0, 1, 2), 4
    whole, products = action == "H", calibration.products
    if not whole:
        rows = calibration.held_products[1][step]
        products = [[rows[max(i, j)][min(i, j)] for j in range(4)] + [0.0] for i in range(4)]
        products.append([0.0] * 5)
    two, three = (
        fitted(products, nodes, step, terms=n, ridge=ridge, slope=0.5, free_sum=whole)
        for n in (2, 3)
    )
    best = three if three.error < 0.97 * two.error else two
    found = fit.of(action, nodes, step, 0.5)
    assert found.coefficients == tuple(round(value, 5) for value in best.coefficients)
    assert found.error == pytest.approx(best.error)
    assert fit.of(action, nodes, step, 0.5004) == found != fit.of(action, nodes, step, 0.6)
    if not whole:
        past = nodes[::-1][: len(best.coefficients)]
        terms = list(zip(best.coefficients, past, strict=True))
        error = sum(a * b * products[i][j] for a, i in terms for b, j in terms)
        assert found.error == pytest.approx(error, rel=1e-6)


def test_a_fit_covers_what_was_measured_and_no_key():
    fit = StepFitter(curved()[0], 3)
    assert [fit.covers(action) for action in "FTH12"] == [False, False, True, True, False]


def test_a_schedule_that_is_carried_over_says_where_it_comes_from():
    """Of what it was found with the setting and the budget; nothing of how close it came there."""
    kept = {
        "scheduler": "DDIMScheduler", "guidance_scale": 2.5, "num_inference_steps": 25, "budget": 0.4,
        "share": 0.39,
    }  # fmt: skip
    found = CodedSchedule(
        "F" + "H1F" * 8,
        20,
        (0.5,) * 25,
        1.2,
        metadata=kept | {"closeness_db": 50.0, "model": "puppet"},
    )
    made = transferred(found, model="sd", source="puppet", num_inference_steps=50)
    assert made == dataclasses.replace(found.resampled(60), step_ratio=1.2)
    assert made.metadata == {
        "model": "sd", "transferred_from": "puppet", "measured": "not on pretrained weights",
        "num_inference_steps": 50, "found_with": kept,
    }  # fmt: skip
    bare = dataclasses.replace(found, metadata={"share": 0.5})
    other = transferred(bare, model="sd", source="puppet", num_inference_steps=10)
    assert other.metadata["found_with"] == {"share": 0.5} and other.step_ratio == 1.0
