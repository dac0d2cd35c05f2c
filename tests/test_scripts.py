"""Every script in scripts/ runs, in this process and at a small size; those that train read their options."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hgc_video.evaluate.results_header import png_header
from hgc_video.media.video import probe, read_frames, write_video
from hgc_video.models.identity import model_hash
from hgc_video.preprocess.extract import extract_control
from scripts.bad_input.forks import ended
from scripts.bad_input.parsers import HOSTILE, PARSERS
from tests.ui.browser import chromium

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
pytestmark = pytest.mark.slow


@pytest.fixture
def script(monkeypatch, capsys):
    """Runs a script by its name with arguments and gives what it printed."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def told(path):
    return json.loads(path.read_text())


def test_every_script_is_run_here_or_elsewhere():
    here = Path(__file__).read_text()
    # tests/test_results.py, tests/test_reproduce.py, and below in a process of its own
    others = {"results_table", "reproduce", "bench_engine"}
    for path in SCRIPTS.glob("*.py"):
        run = re.search(rf'script\(\s*"{path.stem}"', here)
        assert run or path.stem in others, f"{path.name} is not run"


def test_shell_scripts_are_shell_and_those_to_be_called_can_be():
    for path in SCRIPTS.iterdir():
        if path.suffix == "" and path.is_file():
            subprocess.run(["bash", "-n", path], check=True)
            assert os.access(path, os.X_OK) or path.name == "bootstrap"


def test_bench_guard(script, tmp_path):
    given = [
        "--settings", "lcm-3", "--clips", 1, "--num-frames", 1, "--asked", "35", "--fixed", "",
        "--json", tmp_path / "guard.json", "--memory", tmp_path / "guard.jsonl", "--map",
        tmp_path / "map.yaml", "--fit-settings", "ddim-5", "--fit-tolerances", "0.2,2", "--fit-clips", 1,
    ]  # fmt: skip
    said = script("bench_guard", *given)
    assert "asked 35 dB" in said
    (row,) = told(tmp_path / "guard.json")["figures"]
    assert row["asked_db"] == 35
    assert script("bench_guard", *given).count(" s\n") == 0  # nothing is measured twice


def test_bench_engine(tmp_path):
    """In a process of its own: it counts the tensors that are alive in its process, before and after."""
    subprocess.run(
        [
            sys.executable, SCRIPTS / "bench_engine.py", "--methods", "deepcache:interval=2", "--num-frames",
            "2", "--num-inference-steps", "2", "--pairs", "1", "--json", tmp_path / "a.json",
        ],
        check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    (row,) = told(tmp_path / "a.json")["rows"]
    assert row["method"] == "deepcache:interval=2" and 1.2 < row["macs_ratio"] < 2.2
    assert row["time_ratio"] > 0 and row["kept_nbytes"] == 0


def test_bench_gpu_at_its_small_size(script, tmp_path):
    out = script(
        "bench_gpu", "--small", "--methods", "lossless", "--num-frames", 2, "--num-inference-steps", 2,
        "--repeats", 1, "--dtype", "float32", "--json", tmp_path / "a.json",
    )  # fmt: skip
    assert "| `lossless` | 2 |" in out
    found = told(tmp_path / "a.json")
    rows = {row["method"]: row for row in found["rows"]}
    assert rows["lossless"]["macs_ratio"] > 1
    runs = [(run["method"], run["repeat"]) for run in found["runs"]]
    assert runs == [("lossless", -1), ("off", 0), ("lossless", 0)]


def test_bench_extract(script, tmp_path):
    out = script(
        "bench_extract", "--num-frames", 2, "--height", 64, "--repeats", 1, "--preprocessors", "canny",
        "depth:model=nobody/nothing-here", "--json", tmp_path / "a.json",
    )  # fmt: skip
    (row,) = told(tmp_path / "a.json")
    assert (row["preprocessor"], row["frames"], row["width"]) == ("canny", 2, 64)
    assert row["cpu_s"]["extract_ratio"] > row["cpu_s"]["again_ratio"] > 0
    assert "| `canny` |" in out and "left out: depth: nobody/nothing-here" in out


def test_train_puppet_depth(script, tmp_path):
    out = script(
        "train_puppet_depth",
        "--minutes",
        0,
        "--pool",
        2,
        "--batch",
        2,
        "--clips",
        1,
        "--out",
        tmp_path,
    )
    figures = json.loads(out[out.index("{") :])
    assert figures["steps"] == 1 and 0 < figures["error_of_the_mean"] < figures["error"]
    assert (tmp_path / "model.safetensors").stat().st_size < 1e6
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    made = extract_control(frames, f"depth:model={tmp_path}", multiple=1, default_area=None)
    assert made.frames.shape == frames.shape


def test_bench_memory(script, tmp_path):
    script(
        "bench_memory", "--frames", "2", "--presets", "off", "--num-inference-steps", 1,
        "--json", tmp_path / "a.json",
    )  # fmt: skip
    (row,) = told(tmp_path / "a.json")
    assert 0.7 < row["predicted_nbytes"] / row["measured_nbytes"] < 1.5


def test_bench_queue(script, tmp_path):
    """The aims, with room for a machine that is busy; the figures themselves are the script's."""
    script("bench_queue", "--jobs", 10_000, "--claims", 20, "--json", tmp_path / "a.json")
    figures = told(tmp_path / "a.json")
    assert figures["status_s"] < 1 and figures["claim_median_s"] < 0.02


def test_batch_trial(script):
    out = script("batch_trial", "--jobs", 1, "--workers", 1, "--calls", 2)
    assert "round   1  holds" in out and "'begun_at_most': 1" in out


def test_bench_checkpoint(script, tmp_path):
    out = script(
        "bench_checkpoint", "--nbytes", "16", "--changed", "0,1", "--every-s", 0, "--preset", "lossless",
        "--num-frames", 2, "--num-inference-steps", 2, "--size", 64, "--json", tmp_path / "a.json",
    )  # fmt: skip
    figures = told(tmp_path / "a.json")
    assert "| 16 MiB | 100 % | 16 MiB |" in out
    assert [state["written_nbytes"] for state in figures["states"]] == [5 * 2**20, 16 * 2**20]
    assert 0 < figures["run"]["wait_s"] < figures["run"]["run_s"]


def test_bench_devices(script, tmp_path):
    out = script(
        "bench_devices", "--presets", "lossless", "--num-frames", 6, "--num-inference-steps", 2, "--size", 64,
        "--context-length", 4, "--json", tmp_path / "a.json",
    )  # fmt: skip
    (row,) = told(tmp_path / "a.json")["rows"]
    assert "| `lossless` |" in out and row["largest_difference"] <= 1
    assert row["exchanged_nbytes"] > 0 and 0 < row["exchange_s"] < row["denoise_s"]


def test_bench_seams(script):
    out = script(
        "bench_seams", "--num-frames", 6, "--num-inference-steps", 1, "--presets", "off",
        "--context-length", 4, "--context-overlap", 1,
    )  # fmt: skip
    assert "off" in out


def test_contact_sheet(script, tmp_path):
    out = tmp_path / "sheet.png"
    script(
        "contact_sheet", "--preset", "lossless", "--num-frames", 2, "--num-inference-steps", 1,
        "--columns", 2, "--out", out,
    )  # fmt: skip
    assert Image.open(out).width > 2 * 128


def test_eval_puppet(script, tmp_path):
    script(
        "eval_puppet", "--clips", 2, "--num-frames", 2, "--num-inference-steps", 1, "--extras", 0,
        "--memory", tmp_path / "a.jsonl", "--json", tmp_path / "a.json",
    )  # fmt: skip
    figures = told(tmp_path / "a.json")["evaluations"]["puppet"]
    assert {"pose", "depth"} <= set(figures) and figures["options"]["clips"] == 2


def test_eval_puppet_vae(script, tmp_path):
    script("eval_puppet_vae", "--frames", 2, "--sheet", tmp_path / "a.png", "--sheet-frames", 2,
           "--json", tmp_path / "a.json")  # fmt: skip
    assert 15 < told(tmp_path / "a.json")["psnr_db"] < 50
    assert Image.open(tmp_path / "a.png").width >= 2 * 128


def test_the_pictures_carry_what_they_were_made_with(script, tmp_path):
    script(
        "puppet_sheet", "--prompts", 1, "--num-frames", 2, "--num-inference-steps", 1, "--out",
        tmp_path / "a.png",
    )  # fmt: skip
    assert Image.open(tmp_path / "a.png").width >= 4 * 128
    header = png_header(tmp_path / "a.png")
    assert header["model_hash"] == model_hash("puppet") and header["clips"] == 1
    assert header["command"].startswith("puppet_sheet.py --prompts 1")


def test_page_picture(script, tmp_path):
    pytest.importorskip("playwright", reason="playwright is not installed")
    chromium()
    script(
        "page_picture", "--num-frames", 2, "--num-inference-steps", 2, "--out", tmp_path / "a.png"
    )
    assert Image.open(tmp_path / "a.png").height > 900
    assert png_header(tmp_path / "a.png")["model"] == "puppet"


def test_published_figures(script, tmp_path):
    script("published_figures", "--rows", 1, "--json", tmp_path / "a.json")
    (row,) = told(tmp_path / "a.json")["rows"]
    assert row["macs"] / 1e12 == pytest.approx(row["published_tmacs"], rel=5e-3)


def test_run_notebooks(script, tmp_path):
    pytest.importorskip("jupytext", reason="the extra `notebooks` is not installed")
    script("run_notebooks", "anatomy", "--small", "--out", tmp_path)
    made, there = (told(f / "anatomy.ipynb") for f in (tmp_path, ROOT / "examples" / "notebooks"))
    assert len(made["cells"]) == len(there["cells"])
    assert made["metadata"]["hgc_video"]["model_hash"] == model_hash("puppet")


def test_extract_motions(script, tmp_path, shared_data):
    pytest.importorskip("mediapipe", reason="the extra `pose` is not installed")
    write_video(tmp_path / "a.mp4", read_frames(shared_data / "dance.mp4", indices=range(24)), 24)
    script("extract_motions", tmp_path / "a.mp4", tmp_path / "a.json", "--source", "a test")
    motion = told(tmp_path / "a.json")
    assert np.asarray(motion["keypoints"]).shape[1:] == (18, 4) and motion["source"] == "a test"


def test_fault_table(script, tmp_path):
    out = script(
        "fault_table", "--pipeline", "sd controlnet", "--policy", "lossless", "--case", "unchanged",
        "--steps", 4, "--out", tmp_path / "a.json",
    )  # fmt: skip
    assert "lossless" in out and told(tmp_path / "a.json")["rows"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="calls are intercepted as Linux has them")
@pytest.mark.parametrize(
    ("case", "boundaries", "writes"), [("results file", 9, 3), ("work at a URL", 68, 24)]
)
def test_faults(script, tmp_path, case, boundaries, writes):
    """Small: killed at three of its boundaries, within three writes and at three named points, if it has
    them."""
    case, points = f"part: {case}", "3 of 3" if case == "work at a URL" else ""
    faults = ("kill", "torn", "point")
    given = ["--case", case, "--fault", *faults, "--most", 3, "--rows", tmp_path / "rows"]
    out = script("faults", *given, "--out", tmp_path / "a.json")
    assert f"{9 if points else 6} pass" in out
    assert f"| {case} | {boundaries} | 3 of 3 | 3 of 3 | {points}" in out
    assert told(tmp_path / "a.json")["parts"][case]["calls"]["write"] == writes


@pytest.mark.skipif(sys.platform != "linux", reason="counts what a process holds as Linux tells it")
def test_soak(script, tmp_path, monkeypatch):
    """Small: two clips of three, then the third in a campaign that goes on; nothing of them is left."""
    for name in ("HGC_VIDEO_HOME", "TMPDIR", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # the script sets them for its process
    given = ["--seed", 5, "--look", 1, "--warm-up", 0, "--rows", tmp_path / "rows"]
    script("soak", *given, "--clips", 2)
    script("soak", *given, "--clips", 3, "--out", tmp_path / "a.json")
    left = told(tmp_path / "a.json")
    assert (left["clips"], left["looks"]) == (3, 3) and left["files"]["last"] == []
    assert left["other_in_a_fresh_process"] == []


@pytest.mark.parametrize(("each_clip", "count", "found"), [(300, 12, 1), (10, 12, 0), (300, 9, 0)])
def test_soak_finds_memory_that_grows(each_clip, count, found):
    """300 bytes a clip of 10,000 are 25 % in twelve clips; nine clips are too few to tell."""
    soak = runpy.run_path(str(SCRIPTS / "soak.py"))
    kept = {"tensors": 1, "modules": 1, "objects": 9, "handles": 4, "threads": 2}
    kept |= {"named_threads": [], "files": []}
    made = {
        "process": 1,
        "stock": False,
        "lora": False,
        "preset": "off",
        "cpu_s": 1.0,
        "digest": "a",
    }
    grown = [{"rss_nbytes": 10_000 + each_clip * clip, **kept} for clip in range(count)]
    rows = [{"clip": clip, **made, "left": left} for clip, left in enumerate(grown)]
    assert len(soak["faults"](soak["summary"](rows, warm_up=0))) == found


def test_mutants(script, tmp_path):
    """A module of two functions: its mutants are made of the code, and those that survive are shown."""
    pytest.importorskip("mutmut", reason="mutmut is in no extra: pip install mutmut")
    given = ["--module", "plan/step_codes.py", "--folder", tmp_path / "copy"]
    out = script("mutants", *given, "--out", tmp_path / "a.json")
    row = told(tmp_path / "a.json")["modules"]["plan/step_codes.py"]
    assert row["killed"] > 15 and f"| plan/step_codes.py | {row['mutants']} |" in out


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are set as Linux has them")
def test_fuzz(script, tmp_path):
    """Small: damaged queues, shot files and images; a campaign that was stopped goes on."""
    given = [
        "--subject",
        "queues",
        "shot files",
        "images",
        "--seed",
        5,
        "--rows",
        tmp_path / "rows",
    ]
    script("fuzz", *given, "--inputs", 18)
    out = script("fuzz", *given, "--inputs", 36, "--out", tmp_path / "a.json")
    found = told(tmp_path / "a.json")["subjects"]
    assert [one["inputs"] for one in found.values()] == [8, 12, 16]
    assert all(not one["defects"] for one in found.values()) and "| queues | 8 |" in out


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_fuzz_guided(script, tmp_path):
    """A parser for some seconds: inputs that reach new branches are kept, beside the good ones."""
    given = ["--parser", "spans of frames", "--minutes", 0.3, "--folder", tmp_path]
    out = script("fuzz_guided", *given, "--out", tmp_path / "a.json")
    found = told(tmp_path / "a.json")["parsers"]["spans of frames"]
    assert found["inputs"] > 100 and found["branches reached"] > 3 and not found["defects"]
    assert f"| spans of frames | {found['inputs']} |" in out


@pytest.mark.parametrize("name", PARSERS)
def test_every_parser_reads_its_good_texts_and_refuses_the_hostile(name, tmp_path):
    parser = PARSERS[name]
    goods = parser.good(tmp_path)
    verdicts = [ended(partial(parser.read, text, tmp_path)) for text in (*goods, *HOSTILE)]
    assert any(verdict == ("right", "") for verdict in verdicts[: len(goods)]), verdicts[
        : len(goods)
    ]
    assert all(verdict[0] in ("right", "refused") for verdict in verdicts), verdicts


def test_make_example_clips_makes_the_ones_there_are(script, tmp_path):
    script("make_example_clips", "--out", tmp_path)
    for name in ("dance_pose.mp4", "dance_depth.mp4"):
        made, there = (read_frames(folder / name) for folder in (tmp_path, ROOT / "examples"))
        assert probe(tmp_path / name).fps == probe(ROOT / "examples" / name).fps
        assert made.shape == there.shape and np.abs(made.astype(int) - there).mean() < 2


def test_media_table(script, tmp_path):
    out = script("media_table", "--data", tmp_path / "none", "--save", tmp_path / "a.json")
    got = told(tmp_path / "a.json")
    assert len(got) > 10 and f"| {next(iter(got))} |" in out


def test_bench_ui(script, tmp_path):
    pytest.importorskip("uvicorn", reason="the page needs uvicorn, which is not installed")
    script("bench_ui", "--pairs", 1, "--num-frames", 1, "--num-inference-steps", 1,
           "--json", tmp_path / "a.json")  # fmt: skip
    (pair,) = told(tmp_path / "a.json")["pairs"]
    assert pair["page_cpu_s"] > 0 and pair["alone_s"] > 0 and pair["nbytes"] > 2**27


def test_bench_media(script, tmp_path):
    script("bench_media", "--frames", 12, "--height", 128, "--width", 192, "--repeats", 1,
           "--json", tmp_path / "a.json")  # fmt: skip
    figures = told(tmp_path / "a.json")
    assert figures["frames"] == 12 and figures["read_to_pyav"] > 0
    assert set(figures["work"]) == {"pyav", "read", "half", "write"}


def test_train_puppet_reads_its_options(script, capsys):
    """A whole training takes hours; its parts are in tests/puppet/test_training.py."""
    with pytest.raises(SystemExit) as end:
        script("train_puppet", "--help")
    assert end.value.code == 0 and "--minutes" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        script("train_puppet", "--until-stage", "text", "--export", "model")
    assert end.value.code == 2 and "--until-stage text has none yet" in capsys.readouterr().err


def test_ship_graphs_reads_its_options(script, capsys):
    """It plans full-size models for minutes; tests/models/test_graph_store.py holds what it ships."""
    with pytest.raises(SystemExit) as end:
        script("ship_graphs", "--help")
    assert end.value.code == 0 and "--only" in capsys.readouterr().out


def test_transfer_schedules_writes_the_ones_there_are(script, tmp_path):
    folder = tmp_path / "schedules"
    shutil.copytree(ROOT / "configs" / "schedules", folder)
    for path in folder.glob("*/*.yaml"):
        path.write_text("")
    script("transfer_schedules", "--schedules", folder)
    from hgc_video.plan.policies.searched import load_coded_schedule

    made = sorted(folder.glob("animate*/*.yaml"))
    assert made
    for path in made:
        committed = ROOT / "configs" / "schedules" / path.relative_to(folder)
        assert load_coded_schedule(path) == load_coded_schedule(committed)


def test_the_list_of_files_is_what_the_files_say(script):
    assert script("file_list", "--check") == ""


def test_what_partial_steps_add_is_told_from_the_calibration_alone(script, tmp_path):
    calibration = ROOT / "configs" / "puppet-calibration.yaml"
    script(
        "partial_steps",
        "--calibration",
        calibration,
        "--budgets",
        0.6,
        "--json",
        tmp_path / "a.json",
    )
    (row,) = told(tmp_path / "a.json")["predicted_db"]
    assert row["both"] >= max(row["whole steps"], row["partial steps"])


def test_early_steps_at_half_the_size(script, tmp_path):
    script(
        "bench_low_resolution", "--clips", 1, "--num-frames", 2, "--num-inference-steps", 2, "--low-steps",
        0, 1, "--json", tmp_path / "a.json",
    )  # fmt: skip
    none, one = told(tmp_path / "a.json")["rows"]
    assert none["psnr_db"] > 99 > one["psnr_db"]
