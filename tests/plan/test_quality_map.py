"""The maps from an asked PSNR to a tolerance: monotone, through measured runs, refused beyond their ends."""

from __future__ import annotations

from math import log

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hgc_video.errors import InputError, PresetError
from hgc_video.evaluate.methods import make_method, split_methods
from hgc_video.files import package_data
from hgc_video.plan.policies.guard import Guard
from hgc_video.plan.presets import resolve
from hgc_video.plan.quality_map import QualityMap, fitted_map, map_name, shipped_map

KNOWN = QualityMap((30.0, 40.0, 50.0), (0.1, 0.03, 0.01))


def test_between_its_points_the_logarithm_is_interpolated():
    assert [KNOWN.tolerance_of(db) for db in (30, 40, 50)] == [0.1, 0.03, 0.01]
    assert KNOWN.tolerance_of(45) == pytest.approx((0.03 * 0.01) ** 0.5, rel=1e-3)


def test_beyond_its_ends_a_psnr_is_on_the_line_through_the_last_two_points():
    known = QualityMap((20.0, 30.0, 40.0, 44.0), (0.8, 0.1, 0.05, 0.01))
    inside = 40 + 4 * log(0.05 / 0.02) / log(5)
    above, below = 40 + 4 * log(0.05 / 0.001) / log(5), 30 - 10 * log(4.0 / 0.1) / log(8)
    assert [known.psnr_of(t) for t in (0.02, 0.001, 4.0)] == [
        round(db, 1) for db in (inside, above, below)
    ]
    assert [known.psnr_of(t) for t in known.tolerance] == [20, 30, 40, 44]


@pytest.mark.parametrize("db", [29.9, 50.1, float("nan"), float("inf")])
def test_beyond_what_was_measured_it_is_refused(db):
    with pytest.raises(PresetError, match="ask for 30 to 50 dB"):
        KNOWN.tolerance_of(db)


@given(st.lists(st.tuples(st.floats(0.001, 0.5), st.floats(20, 60)), min_size=1, max_size=9))
def test_a_fit_is_monotone(runs):
    made = fitted_map(runs, (20, 40, 60))
    assert list(made.tolerance) == sorted(set(made.tolerance), reverse=True)


def test_a_fit_goes_through_what_three_in_four_runs_reach_and_on_as_the_tolerance():
    runs = [(0.01, db) for db in (48.0, 52.0, 53.0, 55.0, 60.0)]
    runs += [(0.1, 31.0), (0.1, 35.0)]
    made = fitted_map(runs, (22, 32, 42, 52, 62))
    assert made.tolerance == pytest.approx((0.316, 0.1, 0.1**1.5, 0.01, 0.00316), rel=2e-3)
    assert [made.psnr_of(t) for t in (0.01, 0.1)] == [52, 32]
    assert made.psnr_of(1.0) == pytest.approx(12, abs=0.1)
    bent = fitted_map([*runs, (0.03, 33.0), (0.05, 40.0)], range(30, 53))  # two that do not fall
    assert 30 < bent.psnr_of(0.05) < bent.psnr_of(0.03) < 40
    one = fitted_map([(0.1, 30.0)], (10, 30, 50))
    assert one.tolerance == pytest.approx((1, 0.1, 0.01), rel=2e-3)


@pytest.mark.parametrize(
    ("runs", "points"),
    [
        ([(0.01, 40.0), (0.1, 35.0)], [(0.01, 40.0), (0.1, 35.0)]),
        ([(0.01, 40.0), (0.1, 39.0)], [(0.1**1.5, 39.5)]),
        ([(0.001, 60.0), (0.01, 40.0), (0.1, 39.0)], [(0.001, 60.0), (0.1**1.5, 39.5)]),
        ([(0.001, 60.0), (0.01, 40.0), (0.1, 45.0)], [(0.001, 60.0), (0.1**1.5, 42.5)]),
        ([(0.01, 40.0), (0.1, 45.0), (1.0, 43.0)], [(0.1, 128 / 3)]),
    ],
)
def test_neighbours_that_fall_by_less_than_two_decibels_for_e_times_are_one_at_their_mean(
    runs, points
):
    """4.6 for ten times: 40 and 35 are two points, 40 and 39 one. Beyond them it is 20 dB for ten times."""
    made = fitted_map(runs, [psnr for _, psnr in points])
    assert made.tolerance == pytest.approx(
        [tolerance for tolerance, _ in reversed(points)], rel=1e-3
    )
    (first, best), (last, worst) = points[0], points[-1]
    ends = fitted_map(runs, [worst - 20, best + 20]).tolerance
    assert ends == pytest.approx((first / 10, last * 10)[::-1], rel=2e-3)


def test_a_fit_needs_a_run():
    with pytest.raises(InputError, match="no run reused anything"):
        fitted_map([], (30,))


@pytest.mark.parametrize("adds_noise", [False, True])
def test_the_shipped_maps_are_monotone_and_what_quality_means(adds_noise):
    known = shipped_map(adds_noise)
    told = yaml.safe_load((package_data("schedules") / "guard.yaml").read_text())["maps"]
    assert (map_name(True), map_name(False)) == ("noisy", "deterministic")
    assert list(known.psnr_db) == told["noisy" if adds_noise else "deterministic"]["psnr_db"]
    assert list(known.psnr_db) == sorted(set(known.psnr_db))
    assert list(known.tolerance) == sorted(set(known.tolerance), reverse=True)
    for text in ("quality=45dB", "quality=45.dB", "Quality=45 DB"):
        assert resolve(text).policies == (Guard(psnr_db=45),)
    assert resolve("Quality=42.5 db".lower()).policies == (Guard(psnr_db=42.5),)


@pytest.mark.parametrize(
    "text",
    [
        "quality=45",
        "quality=dB",
        "quality=1000dB",
        "quality=-3dB",
        "quality=4.5.5dB",
        "quality=.dB",
    ],
)
def test_another_quality_says_what_to_write(text):
    with pytest.raises(PresetError, match=r"write quality=45dB|ask for .* dB"):
        resolve(text)


def test_a_comparison_takes_it_as_a_method():
    words = split_methods("off,quality=45dB,guard:tolerance=0.1,longest=4,quality=40dB")
    assert words == ["off", "quality=45dB", "guard:tolerance=0.1,longest=4", "quality=40dB"]
    assert make_method("quality=45dB").preset.policies == resolve("quality=45dB").policies
