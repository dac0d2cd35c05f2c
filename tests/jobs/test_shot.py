"""Shot files: options by name, paths of the file's folder, settings in their place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import hgc_video
from hgc_video.cli import app
from hgc_video.errors import InputError
from hgc_video.jobs.preset_choice import choose_preset
from hgc_video.jobs.shot import Shot, parse_setting, place_paths, read_shot
from hgc_video.jobs.shot_template import write_template
from hgc_video.media.write import Extras, write_video
from hgc_video.options import GenerateOptions
from hgc_video.sampling.configuration import configuration

from .conftest import PROMPT, ROOT


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def shot(tmp_path):
    """Writes a shot file and gives its path."""

    def write(text, name="a.yaml"):
        (tmp_path / name).write_text(text if isinstance(text, str) else yaml.safe_dump(text))
        return tmp_path / name

    return write


def test_paths_are_of_the_files_folder(shot, tmp_path):
    read = read_shot(shot("control: {pose: clips/a.mp4}\nprompt: x\nout: o.mp4\npreset: off\n"))
    assert read.options["control"] == {"pose": str(tmp_path / "clips" / "a.mp4")}
    assert read.options["out"] == str(tmp_path / "o.mp4") and read.options["preset"] == "off"
    assert read.checked().control_kinds == ("pose",)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("control.pose", "control: {pose: ../a.mp4}"), ("control_video", "control_video: /etc/a.mp4"),
        ("out", "out: x/../../o.mp4"), ("image", "image: ~/i.png"), ("model", "model: ../weights"),
        ("calibration_dir", "calibration_dir: /tmp"), ("preset", "preset: 'searched:file=../s.yaml'"),
    ],
)  # fmt: skip
def test_a_path_may_leave_the_folder_only_when_it_is_allowed(shot, option, text):
    with pytest.raises(InputError, match=rf"a\.yaml: .* of {option} lies outside of .*--allow-out"):
        read_shot(shot(text))
    assert read_shot(shot(text), allow_outside=True).options


def test_a_link_that_leads_out_of_the_folder_is_outside(shot, tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="lies outside"):
        place_paths({"out": "link/a.mp4"}, inside, allow_outside=False)


def test_models_that_are_no_folders_are_left_alone(tmp_path):
    for model in ("puppet", "owner/name"):
        assert place_paths({"model": model}, tmp_path, allow_outside=False)["model"] == model
    (tmp_path / "owner" / "name").mkdir(parents=True)
    placed = place_paths({"model": "owner/name"}, tmp_path, allow_outside=False)["model"]
    assert placed == str(tmp_path / "owner" / "name")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("presett: fast", 'unknown option "presett": did you mean "preset"'),
        ("progress: true", 'unknown option "progress"'), ("- a", "a shot is a mapping"),
        ("control: {pose: a.mp4}\nseed: -1", "seed=-1 is not possible; give 0 or more"),
        ("control: {pose: a.mp4}\npreset: 3", "preset=3 is not possible; give text"),
        ("prompt: x", "no control clip is given"), ("image: 3", "image=3 is not possible; give a path"),
    ],
)  # fmt: skip
def test_faults_name_the_file_and_what_is_allowed(shot, text, says):
    with pytest.raises(InputError, match=rf"a\.yaml: {says}") as told:
        read_shot(shot(text)).checked()
    assert "\n" not in str(told.value)
    with pytest.raises(InputError, match=r'^b: unknown option "presett": did you mean "preset"'):
        Shot("b", {"presett": "fast"}).checked()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("preset=fast", "fast"), ("seed=3", 3), ("fps=7.5", 7.5), ("extract=true", True),
        ("seed=null", None),
        ("prompt=a dancer: red", "a dancer: red"),
        ("preset=hgc:interval=3,depth=1", "hgc:interval=3,depth=1"),
        ("control={pose: a.mp4}", {"pose": "a.mp4"}), ("preset=off", "off"),
        ("seed=[1, 2]", [1, 2]), ('prompt="12"', "12"), ("prompt='12'", "12"),
    ],
)  # fmt: skip
def test_settings_are_read_as_they_are_meant(text, value):
    assert parse_setting(text)[1] == value


def test_settings_take_the_place_of_the_files_options(shot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = read_shot(shot("control: {pose: a.mp4, depth: d.mp4}\nprompt: {0: x, 4: y}\nseed: 1"))
    read = read.with_settings(["seed=2", "control.pose=/b.mp4", "prompt.4=z", "out=../o.mp4"])
    assert read.options["control"] == {"pose": "/b.mp4", "depth": str(tmp_path / "d.mp4")}
    assert read.options["prompt"] == {0: "x", 4: "z"} and read.options["seed"] == 2
    assert read.options["out"] == str(tmp_path.parent / "o.mp4"), "a setting may lead anywhere"
    words = Shot("a", {"prompt": "x"}).with_settings(["prompt=a red. shirt=on"])
    assert words.options["prompt"] == "a red. shirt=on"
    for setting, says in (("seed", "OPTION=VALUE"), ("seed.x=1", "no mapping")):
        with pytest.raises(InputError, match=says):
            read.with_settings([setting])


CLIPS = {"dance_pose.mp4": "pose", "dance_depth.mp4": "depth"}


@pytest.mark.parametrize("name", CLIPS)
def test_init_writes_a_file_that_says_what_the_clip_is(tmp_path, name):
    (tmp_path / name).write_bytes((ROOT / "examples" / name).read_bytes())
    result = invoke("init", tmp_path / name, "--out", tmp_path / "shot.yaml")
    assert result.exit_code == 0 and "hgc-video run" in result.stdout, result.stderr
    read = read_shot(tmp_path / "shot.yaml")
    options = read.checked()
    assert options.control_clips == {CLIPS[name]: str(tmp_path / name)}
    assert not options.extract and options.preset == "balanced" and options.num_frames
    assert "24 frames of" in (tmp_path / "shot.yaml").read_text()
    again = invoke("init", tmp_path / name, "--out", tmp_path / "shot.yaml")
    assert again.exit_code == 2 and "--force" in again.stderr


def test_init_of_a_raw_video_takes_the_control_from_it(tmp_path, shared_data):
    result = invoke("init", shared_data / "dance.mp4", "--out", tmp_path / "dance.yaml")
    assert result.exit_code == 0 and "--allow-outside" in result.stdout, result.stderr
    text = (tmp_path / "dance.yaml").read_text()
    assert "288 frames of 1080x1920 at 24 fps" in text
    options = read_shot(tmp_path / "dance.yaml", allow_outside=True).checked()
    assert options.extract and options.num_frames == 144
    assert Path(options.control_clips["pose"]) == shared_data / "dance.mp4"


@pytest.mark.slow
def test_a_shot_gives_the_bytes_that_generate_gives(shot, tiny, tmp_path):
    file = shot({**tiny, "seed": 3, "out": "from-file.mp4", "preset": "lossless"})
    result = invoke("run", file, "--set", "preset=off", "--report", tmp_path / "r.json", "--quiet")
    assert result.exit_code == 0, result.stderr
    clip = hgc_video.run_shot(file, preset="off", out=tmp_path / "python.mp4", progress=False)
    assert clip.report.preset == "off" and clip.report.seed == 3
    hgc_video.generate(
        tmp_path / "pose.mp4", PROMPT, num_frames=1, num_inference_steps=1, seed=3, preset="off",
        out=tmp_path / "generate.mp4", progress=False,
    )  # fmt: skip
    again = invoke("run", tmp_path / "python.mp4", "--out", tmp_path / "again.mp4", "--quiet")
    assert again.exit_code == 0, again.stderr
    made = [tmp_path / f"{name}.mp4" for name in ("from-file", "python", "generate", "again")]
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in made}) == 1
    assert '"preset": "off"' in (tmp_path / "r.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "presett=fast"], 'did you mean "preset"'), (["--out", "a.txt"], "unknown suffix"),
        (["--report", "a.yaml"], "is the shot file itself"), (["--out", "a.yaml"], "the shot file itself"),
    ],
)  # fmt: skip
def test_run_refuses_in_one_line(shot, tiny, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = invoke("run", shot(tiny), *arguments)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and says in result.stderr
    assert sorted(tmp_path.iterdir()) == sorted({*before, tmp_path / "a.yaml"})


def test_prompts_by_frame_have_numbers_also_in_json(shot):
    told = '{"prompt": {"0": "x", "48": "y", "a": "z", "²": "w"}, "audio": true}'
    read = read_shot(shot(told, "a.json"))
    assert read.options == {"prompt": {0: "x", 48: "y", "a": "z", "²": "w"}, "audio": True}


def test_parts_of_a_model_that_are_files_are_of_the_files_folder(shot, tmp_path):
    (tmp_path / "a.safetensors").touch()
    own = str(tmp_path / "a.safetensors")
    for name, given, placed in (
        ("controlnet", {"pose": "a.safetensors", "depth": "owner/net"}, {"pose": own, "depth": "owner/net"}),
        ("lora", {"a.safetensors": 0.5, "b.safetensors": 1.0}, {own: 0.5, "b.safetensors": 1.0}),
        ("lora", ["a.safetensors", "owner/lora"], [own, "owner/lora"]),
        ("lora", "./b", str(tmp_path / "b")),
        ("model", "a.safetensors", own),
    ):  # fmt: skip
        assert read_shot(shot({name: given})).options == {name: placed}
    for option, told in (
        ("controlnet.pose", {"controlnet": {"pose": "/a"}}), ("lora", {"lora": {"~/a": 1.0}}),
        ("lora", {"lora": ["../a"]}), ("lora", {"lora": "/a"}), ("model", {"model": "~/a"}),
    ):  # fmt: skip
        with pytest.raises(InputError, match=rf"of {option} lies outside of"):
            read_shot(shot(told))


def test_a_finished_clip_is_a_shot(tmp_path):
    black = np.zeros((1, 16, 16, 3), np.uint8)
    write_video(tmp_path / "pose.gif", black, 8)
    options = GenerateOptions(control={"pose": tmp_path / "pose.gif"}, prompt="x", seed=7)
    told = json.dumps(configuration(options, tmp_path / "clip.gif"))
    path = write_video(tmp_path / "clip.gif", black, 8, Extras(told))
    read = read_shot(path)
    assert (read.name, read.path, read.options["seed"]) == ("clip", path, 7)


def template(clip, out, model="puppet"):
    """The lines of the shot file that is written for a clip."""
    write_template(clip, out, model)
    return out.read_text(encoding="utf-8").splitlines()


def test_the_template_of_a_clip_says_what_stands_in_it(tmp_path):
    """Of 20 grey frames, 64x48, at 8 fps, in a folder beside the file's."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    frames = np.broadcast_to(ramp[:, None], (20, 48, 64, 3))
    (tmp_path / "in").mkdir(), (tmp_path / "out").mkdir()
    clip = write_video(tmp_path / "in" / "tänzer.mp4", frames, 8)
    lines = template(clip, tmp_path / "out" / "größe.yaml")
    choice = choose_preset("puppet", num_frames=20, height=96, width=160)
    for line in (
        "# A shot of hgc-video; make the clip with:  hgc-video run größe.yaml",
        '  depth: "../in/tänzer.mp4"', f'prompt: "{PROMPT}"', "model: puppet", f"# {choice}",
        f"preset: {choice.preset}", "num_frames: 20", "seed: 0", 'out: "größe.mp4"',
        "# 20 are all of it, 2.5 s at 8 fps; the model holds 16 at once, so the run goes in windows",
        "# As the model has them, or as the clip (160x96 here), unless you say so:",
    ):  # fmt: skip
        assert line in lines, line
    assert not any(line.startswith("source_fps") for line in lines)


def test_the_template_beside_a_clip_of_its_name_and_that_of_images(tmp_path):
    """16 frames, as many as the model holds at once; images carry no rate, and another model has its size."""
    frames = np.random.default_rng(0).integers(0, 255, (16, 48, 64, 3), np.uint8)
    clip = write_video(tmp_path / "a.mp4", frames, 8)
    lines = template(clip, tmp_path / "a.yaml")
    assert 'out: "a-made.mp4"' in lines and "# 16 are all of it, 2.0 s at 8 fps" in lines
    (tmp_path / "images").mkdir()
    for at, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "images" / f"{at:02}.png")
    lines = template(tmp_path / "images", tmp_path / "b.yaml", "animatediff")
    assert 'out: "b.mp4"' in lines and '  pose: "images"' in lines
    assert any("as the clip (576x448 here)" in line for line in lines), "of 512x512 pixels in all"
    assert lines[-1] == "source_fps: 8  # assumed: these images carry no rate"
