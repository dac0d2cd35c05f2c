"""Shot files: options by name, paths of the file's folder, settings in their place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

import hgc_video
from hgc_video.cli import app
from hgc_video.errors import InputError
from hgc_video.jobs.schema import shot_schema
from hgc_video.jobs.shot import parse_setting, place_paths, read_shot
from hgc_video.options import GenerateOptions

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
        ("prompt: x", "no control clip is given"),
    ],
)  # fmt: skip
def test_faults_name_the_file_and_what_is_allowed(shot, text, says):
    with pytest.raises(InputError, match=rf"a\.yaml: {says}") as told:
        read_shot(shot(text)).checked()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("preset=fast", "fast"), ("seed=3", 3), ("fps=7.5", 7.5), ("extract=true", True),
        ("seed=null", None),
        ("prompt=a dancer: red", "a dancer: red"),
        ("preset=hgc:interval=3,depth=1", "hgc:interval=3,depth=1"),
        ("control={pose: a.mp4}", {"pose": "a.mp4"}), ("preset=off", "off"),
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
    for setting, says in (("seed", "OPTION=VALUE"), ("seed.x=1", "no mapping")):
        with pytest.raises(InputError, match=says):
            read.with_settings([setting])


def test_the_schema_says_what_the_options_say(tiny):
    schema = shot_schema()
    assert set(schema["properties"]) == set(GenerateOptions.model_fields)
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert valid(tiny) and valid({**tiny, "prompt": {"0": "a"}, "dtype": None, "seed": None})
    assert valid({**tiny, "conditioning_scale": {"pose": 0.5}, "memory": "8GiB", "motion": None})
    for wrong in (
        {"presett": 1}, {"num_frames": 0}, {"seed": -1}, {"control": {"poze": "a"}}, {"fps": 0},
        {"prompt": {"x": "a"}}, {"conditioning_scale": -1}, {"dtype": "float8"}, {"seed": 2**63},
        {"image": 3}, {"extract": 3},
    ):  # fmt: skip
        assert not valid({**tiny, **wrong}), wrong
        with pytest.raises(ValueError, match=next(iter(wrong))):
            read_shot_of({**tiny, **wrong})


def read_shot_of(options):
    """Checks options as a shot file's are; the model itself leaves a prompt by frames to the run."""
    from hgc_video.jobs.shot import check_options

    image = options.get("image")
    if isinstance(options.get("prompt"), dict) or image == 3:
        raise InputError("prompt and image are checked when the run begins")
    return check_options(options, "a.yaml")


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
