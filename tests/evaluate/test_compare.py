"""Comparing: the words, the controls, the table, and a small comparison from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from typer.testing import CliRunner

from hgc_video.cli import app
from hgc_video.errors import PresetError
from hgc_video.evaluate.measure import CompareConfig, measure
from hgc_video.evaluate.methods import controls, make_method, split_methods
from hgc_video.evaluate.quality import flicker, psnr, ssim, structure_distance
from hgc_video.evaluate.samples import SampleSet
from hgc_video.evaluate.table import at_saving, markdown, rows
from hgc_video.plan.policies.searched import CodedSchedule
from tests.plan.policies.test_policies import tower


def test_a_field_belongs_to_the_policy_before_it():
    text = "off,hgc:interval=3,cut=1,deepcache:interval=3,fewer-steps:steps=4;turbo"
    assert split_methods(text) == [
        "off", "hgc:interval=3,cut=1", "deepcache:interval=3", "fewer-steps:steps=4", "turbo",
    ]  # fmt: skip
    with pytest.raises(PresetError, match="no methods"):
        split_methods(" , ")


def test_a_solver_needs_its_steps():
    assert make_method("dpm++:steps=7").preset.num_steps(25) == 7
    for text in ("dpm++", "dpm++:steps=0", "dpm++:steps=4,at=a.yaml"):
        with pytest.raises(PresetError, match="steps=N"):
            make_method(text)
    with pytest.raises(PresetError, match="order=4 is not possible; give 1, 2 or 3"):
        make_method("dpm++:steps=4,order=4")


def test_a_solver_takes_its_timesteps_and_leaves_the_pipelines_own_scheduler_alone(tmp_path):
    CodedSchedule("FHFHF", 5, (0.0,) * 5).save(tmp_path / "some.yaml")
    own = DDIMScheduler()
    own.set_timesteps(7)
    made = make_method(f"dpm++:at={tmp_path / 'some.yaml'}").scheduler(own, 5)
    made.set_timesteps(3)
    assert len(own.timesteps) == 7 and isinstance(made, DPMSolverMultistepScheduler)
    own.set_timesteps(5)
    assert made.timesteps.tolist() == own.timesteps[[0, 2, 4]].tolist()
    assert not [name for name in vars(made) if callable(getattr(made, name))], (
        "no method is replaced"
    )


def test_every_saving_gets_its_equal_cost_controls():
    graph = tower()
    methods = [make_method(word) for word in ("off", "lossless", "balanced", "turbo")]
    words = [m.name for m in controls(methods, graph, 25)]
    assert len(words) == 4
    assert {w.partition(":")[0] for w in words} == {"fewer-steps", "dpm++"}


def figure(method, saved, psnr_db, clip=0, **more):
    return {
        "method": method, "clip": clip, "seed": 0, "macs_saved": saved, "time_ratio": 0.5, "kept_nbytes": 1,
        "psnr_db": psnr_db, "ssim": 0.9, "structure_distance": 0.1, "converged_db": 20.0, "colours": None,
        "iou": 0.8, "flicker": 1.0, **more,
    }  # fmt: skip


def test_rows_are_means_with_their_spread_and_say_what_nothing_beats():
    found = rows(
        [
            figure("a", 0.5, 30),
            figure("a", 0.5, 34, clip=1),
            figure("b", 0.4, 31),
            figure("c", 0.6, 20),
        ]
    )
    by_name = {row.method: row for row in found}
    assert (by_name["a"].psnr_db, by_name["a"].psnr_spread_db, by_name["a"].runs) == (32, 2, 2)
    assert {name: row.best for name, row in by_name.items()} == {"a": True, "b": False, "c": True}
    assert by_name["a"].means["colours"] is None
    table = markdown(found)
    assert "| **`a`** | 50.0 % | 32.0 ± 2.0 |" in table
    assert len(table.splitlines()) == 5


def test_a_curve_is_read_between_its_settings():
    found = rows([figure("a", 0.4, 30), figure("b", 0.6, 20)])
    assert at_saving(found, 0.5) == pytest.approx(25)
    assert at_saving(found, 0.7) is None


def test_the_metrics_of_known_clips():
    draw = np.random.default_rng(0)
    clip = draw.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    black = np.zeros((1, 2, 2, 3), np.uint8)
    assert psnr(black, black + np.uint8(255)) == pytest.approx(0)
    assert psnr(black, black + np.uint8(1)) == pytest.approx(48.13, abs=0.01)
    assert ssim(clip, clip) == pytest.approx(1)
    assert structure_distance(clip, clip) == pytest.approx(0, abs=1e-6)
    noisy = np.clip(clip + draw.normal(0, 30, clip.shape), 0, 255).astype(np.uint8)
    worse = np.clip(clip + draw.normal(0, 90, clip.shape), 0, 255).astype(np.uint8)
    assert 1 > ssim(noisy, clip) > ssim(worse, clip) > 0
    assert 0 < structure_distance(noisy, clip) < structure_distance(worse, clip) < 1
    assert flicker(np.stack([black[0], black[0] + np.uint8(10)])) == 10
    assert flicker(black) == 0


@pytest.mark.slow
def test_a_solver_of_order_one_at_the_runs_own_timesteps_is_ddim(tmp_path):
    words = {"all": "FFFFF", "some": "FHFHF"}
    for name, word in words.items():
        CodedSchedule(word, 5, (0.0,) * 5).save(tmp_path / f"{name}.yaml")
    task = CompareConfig(SampleSet("puppet", None, 3000, 1, 1), 5, converged_steps=0)
    methods = [
        f"dpm++:order={order},at={tmp_path / name}.yaml"
        for name, order in (("all", 1), ("all", 2), ("some", 1))
    ]
    same, second, fewer = measure(task, methods, 0, 0)
    assert same["psnr_db"] > 55, "the same picture to rounding of the timesteps' noise"
    assert same["macs_saved"] == 0
    assert second["psnr_db"] < 45
    assert fewer["macs_saved"] == pytest.approx(0.4)
    assert fewer["converged_db"] is None


@pytest.mark.slow
def test_the_command_writes_figures_and_a_page_and_goes_on(tmp_path):
    arguments = [
        "compare", "--methods", "deepcache:interval=2,easycache:threshold=0.5,warm_up=2", "--clips", "1",
        "--num-frames", "1",
        "--num-inference-steps", "5", "--converged-steps", "6", "--json", str(tmp_path / "a.json"),
        "--html", str(tmp_path / "a.html"), "--memory", str(tmp_path / "m.jsonl"),
    ]  # fmt: skip
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    again = CliRunner().invoke(app, arguments)
    assert "0 to run" in again.output
    told = json.loads((tmp_path / "a.json").read_text())["figures"]
    by_method = {f["method"]: f for f in told}
    assert by_method["off"]["psnr_db"] > 99
    assert by_method["off"]["macs_saved"] == 0
    cached = by_method["deepcache:interval=2"]
    assert 0.2 < cached["macs_saved"] < 0.9
    assert 5 < cached["psnr_db"] < 99
    assert 0 <= cached["iou"] <= 1
    assert {"dpm++", "fewer-steps"} <= {name.partition(":")[0] for name in by_method}
    page = (tmp_path / "a.html").read_text()
    assert page.count("data:image/webp") == 3
    assert "data:image/png" in page


def test_a_wrong_method_is_told_before_anything_runs(tmp_path):
    done = CliRunner().invoke(
        app, ["compare", "--methods", "balnced", "--html", str(tmp_path / "a.html")]
    )
    assert done.exit_code == 2
    assert 'did you mean "balanced"' in done.output
    assert not list(tmp_path.iterdir())
