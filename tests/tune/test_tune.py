"""Calibration and search on the embedded model, at a small size: what is recorded is true, runs go on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from hgc_video.errors import InputError, PlanError
from hgc_video.evaluate.results_file import ResultsFile
from hgc_video.evaluate.samples import SampleSet
from hgc_video.evaluate.trials import Trials
from hgc_video.plan.calibration import load_calibration
from hgc_video.plan.policies.searched import CodedSchedule, load_coded_schedule
from hgc_video.plan.search.hill_climb import Space
from hgc_video.tune.calibrate import calibrate
from hgc_video.tune.record import record
from hgc_video.tune.search import SearchConfig, search, with_origin

STEPS = 6
SOURCE = SampleSet("puppet", None, 6502, 1, 1)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trial():
    return Trials(SOURCE)(0, STEPS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the calibration is kept."""
    return tmp_path_factory.mktemp("calibration")


@pytest.fixture(scope="module")
def found(folder):
    said = []
    measured = calibrate(SOURCE, STEPS, folder=folder, log=said.append)
    assert said == ["0 of 1 samples are measured already"]
    return measured


def predictions(trial):
    """The guided predictions and latents of an uncached run, told by the loop itself."""
    from hgc_video.sampling.loop import denoise

    models, noise, timesteps, options = trial.start()
    seen = []

    def predict(latents, t, step_index):
        seen.append(models(latents, t, step_index))
        return seen[-1]

    denoise(predict, trial.pipe.scheduler, noise, timesteps, **options)
    return seen


def test_errors_of_holding_are_those_between_predictions(trial, found):
    seen = predictions(trial)
    for newer, step in ((0, 1), (1, 3), (2, 5)):
        a, _, _ = found.reused[0][-1, newer, step]
        assert a == pytest.approx(float((seen[newer] - seen[step]).square().mean()), rel=1e-3)
    older, newer, step = 1, 2, 4
    a, b, q = found.reused[0][older, newer, step]
    line = seen[newer] + 0.5 * 2 * (seen[newer] - seen[older])
    expected = float((line - seen[step]).square().mean())
    assert a + 2 * b * 0.5 + q * 0.25 == pytest.approx(expected, rel=5e-3)


def test_a_cut_errs_exactly_as_the_engine_does(trial, found):
    # The first reused step of a run sees the true latents, so that the engine's own error is the table's.
    truth = predictions(trial)
    from hgc_video.sampling.loop import denoise

    seen = []

    def predict(latents, t, step_index):
        seen.append(models(latents, t, step_index))
        return seen[-1]

    plan = CodedSchedule("FFF1FF", STEPS, (1.0,) * STEPS)(trial.graph, STEPS)
    with trial.attached(plan) as engine:
        models, noise, timesteps, options = trial.start([engine])
        denoise(predict, trial.pipe.scheduler, noise, timesteps, **options)
    a, b, q = found.reused[1][1, 2, 3]
    made = float((seen[3] - truth[3]).square().mean())
    assert a + 2 * b + q == pytest.approx(made, rel=2e-3)


def test_products_of_holding_tell_the_error_of_every_combination(found):
    """Of both tables, and nearly: the model is not linear in what is reused."""
    older, newer, step = 1, 2, 4
    a, b, q = found.reused[1][older, newer, step]
    rows = found.held_products[1][step]
    assert [len(rows) for rows in found.held_products[1]] == list(range(STEPS))
    assert rows[newer][newer] == pytest.approx(a, rel=1e-3)
    line = (2.0, -1.0)  # half of the slope, over two steps
    told = line[0] ** 2 * rows[newer][newer] + line[1] ** 2 * rows[older][older]
    told += 2 * line[0] * line[1] * rows[newer][older]
    assert told == pytest.approx(a + b + q / 4, rel=0.2)


def test_every_step_has_its_sensitivity_and_the_error_of_dropping_guidance(found):
    for name in ("sensitivity", "cfg_drop_error"):
        values = getattr(found, name)
        assert len(values) == STEPS
        assert all(v >= 0 for v in values)
    assert min(found.sensitivity) > 0
    assert found.changes["unet.conv_in"][0] == 0 < found.changes["unet.conv_in"][1]


@pytest.mark.parametrize("offset", range(4))
def test_fewer_steps_than_samples_take_turns_at_have_their_sensitivity_too(offset):
    found = record(Trials(SOURCE)(0, 2), (0,), every=4, offset=offset)
    assert len(found.sensitivity) == 2
    assert (
        found.sensitivity[0] == found.sensitivity[1] > 0
    )  # of step 1, the only one with one before it


def test_what_was_measured_of_a_sample_does_not_stand_for_another_in_its_place(tmp_path):
    clip = Path(__file__).parents[2] / "examples" / "dance_pose.mp4"
    entry = {"control": str(clip), "kind": "pose", "prompt": "a dancer"}
    listed, said = tmp_path / "samples.yaml", []
    source = SampleSet("puppet", listed, 0, 1, 1)
    for prompt in ("a dancer", "a cat", "a dancer"):
        listed.write_text(yaml.safe_dump([{**entry, "prompt": prompt}]))
        calibrate(source, 2, folder=tmp_path, depths=(0,), log=said.append)
    assert [line[:6] for line in said] == ["0 of 1", "0 of 1", "1 of 1"]


def test_a_kept_file_that_vanishes_meanwhile_is_told(tmp_path, monkeypatch):
    add = ResultsFile.add

    def vanish(results, task, rows):
        add(results, task, rows)
        results.path.unlink()

    monkeypatch.setattr(ResultsFile, "add", vanish)
    with pytest.raises(
        InputError, match=r"1 of the results in .* are gone since they were measured"
    ):
        calibrate(SOURCE, 2, folder=tmp_path, depths=(0,))


def test_a_single_step_cannot_be_calibrated(tmp_path):
    with pytest.raises(InputError, match="num_inference_steps=1 is not possible; give 2 or more"):
        calibrate(SOURCE, 1, folder=tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_a_stopped_calibration_goes_on_and_search_finds_the_same_again(
    tmp_path, folder, trial, found
):
    said = []
    again = calibrate(SOURCE, STEPS, folder=folder, log=said.append)
    assert said == ["1 of 1 samples are measured already"]
    assert again == found
    found.save(tmp_path / "c.yaml")
    task = SearchConfig(SOURCE, STEPS, 0.6, judgements=2, seed=1)
    results = [
        search(task, load_calibration(tmp_path / "c.yaml"), memory=tmp_path / name, log=said.append)
        for name in ("a.jsonl", "b.jsonl", "a.jsonl")
    ]
    assert results[0] == results[1] == results[2]
    assert results[0].share <= 0.6
    assert results[0].closeness_db >= results[0].planned_db
    held = replace(task, space=Space(damped=False), judgements=1)
    bare = search(held, load_calibration(tmp_path / "c.yaml"), memory=tmp_path / "bare.jsonl")
    assert bare.uniform_db is None  # which has slopes: it was not judged as it is
    assert "uniform_db" not in with_origin(bare, held, found, "bare").metadata
    own = trial.error(results[0].plan(trial.graph, STEPS))
    assert results[0].closeness_db == pytest.approx(
        -10 * torch.tensor(own).log10().item(), abs=0.05
    )


def test_a_search_with_coefficients_judges_both_rules_and_keeps_the_nearer(tmp_path, trial, found):
    task = SearchConfig(SOURCE, STEPS, 0.6, judgements=1, space=Space("FH", gated=False))
    by_slope, fitted = (
        search(replace(task, coefficients=n), found, memory=tmp_path / f"{n}", log=lambda _: None)
        for n in (1, 3)
    )
    judged = [json.loads(line)["plan"] for line in (tmp_path / "3").read_text().splitlines()]
    assert {":" in plan for plan in judged} == {True, False}, "step:coefficients, or slopes alone"
    assert fitted.closeness_db >= by_slope.closeness_db
    fitted.plan.save(tmp_path / "a.yaml")
    plan = load_coded_schedule(tmp_path / "a.yaml")
    own = trial.error(plan(trial.graph, STEPS))
    assert -10 * math.log10(own) == pytest.approx(fitted.closeness_db, abs=0.05)


def test_coefficients_are_for_the_calibrated_steps(found):
    for other in ({"lengths": (1.0, 1.6)}, {"space": Space(online=True)}):
        with pytest.raises(InputError, match="coefficients=3 is possible for"):
            SearchConfig(SOURCE, STEPS, 0.5, coefficients=3, **other)


def test_search_refuses_other_steps_and_impossible_budgets(tmp_path, found):
    with pytest.raises(PlanError, match="made for num_inference_steps"):
        search(SearchConfig(SOURCE, STEPS + 1, 0.5), found, memory=tmp_path / "a")
    with pytest.raises(InputError, match=r"budget=0\.01 is not possible"):
        search(SearchConfig(SOURCE, STEPS, 0.01, space=Space("FH")), found, memory=tmp_path / "a")
