"""The report: its sums, its text, JSON there and back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hgc_video.errors import InputError
from hgc_video.report import Report


def test_totals_are_the_sums_of_the_parts(report):
    assert report.macs == 400 * 10**9
    assert report.macs_baseline == 1000 * 10**9
    assert report.macs_saved == pytest.approx(0.6)


def test_no_baseline_saves_nothing(report):
    assert replace(report, macs_by_part={}, macs_baseline_by_part={}).macs_saved == 0


def test_json_has_the_totals_at_top_level_and_comes_back_equal(report):
    given = json.loads(report.to_json())
    assert given["macs"] == report.macs
    assert given["macs_baseline"] == report.macs_baseline
    assert given["macs_saved"] == pytest.approx(0.6)
    assert given["seconds"]["denoise"] == 4.25
    assert given["peak_nbytes"] == 3 * 2**20
    assert [(step["label"], step["reason"]) for step in given["steps"]] == [
        ("key", "code F"),
        ("skip", "code H"),
    ]
    assert given["schedule"]["steps"][1] == {"label": "full", "reuse": ["unet.x"], "reason": "y"}
    assert given["options"]["seed"] == 7
    assert given["seed"] == 7
    assert Report.from_json(report.to_json()) == report


@pytest.mark.parametrize("text", ["", "[1, 2]", "3", "no json"])
def test_text_that_is_no_report_is_refused(text):
    with pytest.raises(InputError, match="this is no report"):
        Report.from_json(text)


def test_missing_and_unknown_fields_are_named(report):
    given = json.loads(report.to_json())
    with pytest.raises(InputError, match="has unknown colour"):
        Report.from_json(json.dumps({**given, "colour": 1}))
    del given["seed"], given["steps"]
    with pytest.raises(InputError, match="lacks seed, steps"):
        Report.from_json(json.dumps(given))


@pytest.mark.parametrize(
    ("name", "value"),
    [("seconds", {"load": "x"}), ("seconds", None), ("seconds", [1]), ("guidance_scale", None), ("fps", "a"),
     ("macs_by_part", {"unet": []}), ("macs_baseline_by_part", 3), ("fidelity", {"pose": 1}), ("steps", 5),
     ("steps", [{}]), ("versions", "a"), ("options", 3), ("conditioning_scale", {"pose": "a"}),
     ("peak_nbytes", 10**400), ("macs_by_part", {"unet": 10**400}), ("control_frames_empty", "a")],
)  # fmt: skip
def test_values_of_another_kind_are_refused(report, name, value):
    given = json.loads(report.to_json())
    with pytest.raises(InputError):
        Report.from_json(json.dumps({**given, name: value}))


def test_the_largest_seed_comes_back(report):
    made = replace(report, seed=2**64 - 1, options={**report.options, "seed": 2**64 - 1})
    assert Report.from_json(made.to_json()) == made


def test_a_step_of_which_stock_models_run_nothing_has_no_share(report):
    given = json.loads(report.to_json())
    given["steps"][0] |= {"macs": 0, "macs_stock": 0}
    assert "0.0 GMACs    0.0 %" in str(Report.from_json(json.dumps(given)))


def test_the_text_shows_cost_settings_and_every_step(report):
    text = str(report)
    for shown in (
        "0.4 of 1 T: 60.0 % saved (unet 0.3 of 0.8, controlnet 0.1 of 0.2)",
        "5.5 (load 1.0, denoise 4.2)",
        "3 MiB at most, the cache 1 MiB",
        "16 frames of 96x128 at 8 fps",
        '"a dancer in a café"',
        "seed 7",
    ):
        assert shown in text
    first, second = text.splitlines()[-2:]
    assert "key" in first and "400.0 GMACs" in first and "80.0 %" in first
    assert "skip" in second and "0.0 %" in second
    assert "GMACs" not in report.summary()


def test_the_negative_prompt_is_shown_where_there_is_one(report):
    assert 'without "rain"' in str(replace(report, negative_prompt="rain"))


def test_save_writes_it_whole(report, tmp_path):
    path = report.save(tmp_path / "r.json")
    assert Report.from_json(path.read_text(encoding="utf-8")) == report
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
