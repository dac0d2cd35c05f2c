"""The form holds every option of generate, and what it sends becomes options or is refused by its field."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import yaml

from hgc_video.errors import InputError
from hgc_video.options import CONTROL_KINDS, GenerateOptions
from hgc_video.ui.form import _BESIDE, _LEFT_OUT, form
from hgc_video.ui.making import shot_text
from hgc_video.ui.request import checked, field_of, options_from
from hgc_video.ui.uploads import Upload, Uploads

UPLOADS = {
    "1": SimpleNamespace(path="/uploads/1.mp4"), "2": SimpleNamespace(path="/uploads/2.mp4"),
    "3": SimpleNamespace(path="/uploads/3.safetensors"),
}  # fmt: skip
GIVEN = {"control_video": "1", "prompt": "a dancer"}


def test_every_option_is_a_field_or_left_out_on_purpose():
    names = [field["name"] for field in form()["fields"]]
    assert len(set(names)) == len(names)
    assert set(names) | _LEFT_OUT == set(GenerateOptions.model_fields) | set(_BESIDE.values())
    assert not set(names) & _LEFT_OUT


def test_bounds_defaults_and_help_are_those_of_the_options():
    fields = {field["name"]: field for field in form()["fields"]}
    assert (
        fields["strength"] | {"minimum": 0, "maximum": 1, "default": 0.6, "kind": "number"}
        == fields["strength"]
    )
    assert fields["num_frames"]["minimum"] == 1 and fields["num_frames"]["kind"] == "whole number"
    assert fields["loop"]["kind"] == "flag" and fields["control_video"]["kind"] == "video"
    assert (
        "lcm" in fields["scheduler"]["choices"] and "deepcache" in fields["preset"]["suggestions"]
    )
    assert all(field["help"] for field in fields.values())


def test_values_become_options():
    given = {**GIVEN, "seed": "", "num_frames": None}
    options = options_from(given, UPLOADS, shared=False)
    assert options == {"control_video": "/uploads/1.mp4", "prompt": "a dancer", "seed": None}
    assert checked(options).control_clips == {"pose": "/uploads/1.mp4"}


def test_rows_become_options():
    rows = {
        "more_controls": [{"clip": {"upload": "2"}, "kind": "depth", "raw": True, "strength": 0.5}, {}],
        "prompt_at": [{"frame": 8, "text": "a dancer in a forest"}],
        "lora": [{"file": {"upload": "3"}, "scale": 0.7}, {"file": "owner/style"}],
        "controlnet": [{"file": "nets/pose.safetensors"}], "motion": {"motion_bucket_id": 90},
    }  # fmt: skip
    options = options_from({**GIVEN, "extract": "pose:hands=true", **rows}, UPLOADS, shared=False)
    made = checked(options)
    assert made.control_clips == {"pose": "/uploads/1.mp4", "depth": "/uploads/2.mp4"}
    assert made.extract == {"pose": "pose:hands=true", "depth": True} and made.scales == (1.0, 0.5)
    assert made.prompt == {0: "a dancer", 8: "a dancer in a forest"}
    assert made.loras == {"/uploads/3.safetensors": 0.7, "owner/style": 1.0}
    assert made.controlnet == {"pose": "nets/pose.safetensors"}
    assert made.image_motion.motion_bucket_id == 90


def test_columns_are_told_with_their_bounds():
    fields = {field["name"]: field for field in form()["fields"]}
    columns = {column["name"]: column for column in fields["motion"]["columns"]}
    assert (
        columns["motion_bucket_id"]["maximum"] == 255
        and columns["motion_bucket_id"]["default"] == 127
    )
    assert fields["lora"]["kind"] == "rows" and fields["lora"]["panel"] == "Model"
    assert fields["more_controls"]["columns"][1]["choices"] == CONTROL_KINDS


@pytest.mark.parametrize(
    ("values", "field", "says"),
    [
        ({"num_frames": 0}, "num_frames", "1 or more"),
        ({"strength": 2}, "strength", "at most 1"),
        ({"scheduler": "dddim"}, "scheduler", "ddim"),
        ({"frames": "9:2"}, "frames", "START:STOP"),
        ({"seed": -1}, "seed", "0 or more"),
        ({"control_video": ""}, "control_video", "no clip"),
        ({"control": "posse"}, "control", "pose"),
        ({"out": "/etc/passwd"}, "", 'no field "out"'),
        ({"lora": [{"scale": 0.5}]}, "lora", "no file"),
        ({"lora": [{"file": "a"}, {"file": "a"}]}, "lora", "two rows are for a"),
        ({"lora": [{"file": "a", "scale": "much"}]}, "lora", "give a number"),
        ({"prompt_at": [{"frame": 8}]}, "prompt_at", "no prompt"),
        ({"more_controls": [{"kind": "depth"}]}, "more_controls", "no clip"),
        ({"more_controls": [{"clip": {"upload": "2"}}]}, "more_controls", "two clips are for pose"),
        ({"more_controls": [{"clip": "/etc/passwd"}]}, "more_controls", "no uploaded file"),
        ({"more_controls": "depth"}, "more_controls", "cannot be read"),
        ({"controlnet": [{"kind": "depth", "file": "a"}]}, "controlnet", "no clip is given for"),
        ({"motion": {"motion_bucket_id": 999}}, "motion", "255"),
    ],
)
def test_a_refusal_names_its_field(values, field, says):
    with pytest.raises(InputError, match=says) as refused:
        checked(options_from({**GIVEN, **values}, UPLOADS, shared=False))
    assert field_of(str(refused.value)) == field


@pytest.mark.parametrize(
    "values",
    [
        {"model": "/models/x"}, {"preset": "searched:file=x"}, {"base": "a.safetensors"},
        {"lora": [{"file": "a.safetensors"}]},
    ],
)  # fmt: skip
def test_over_the_network_no_file_of_the_machine_is_named(values):
    assert options_from({**GIVEN, **values}, UPLOADS, shared=False)
    with pytest.raises(InputError, match="over the network"):
        options_from({**GIVEN, **values}, UPLOADS, shared=True)
    assert options_from(
        {**GIVEN, "prompt": "a/b", "preset": "deepcache:interval=3", "lora": [{"file": {"upload": "3"}}],
         "prompt_at": [{"frame": 1, "text": "a/b"}]}, UPLOADS, shared=True,
    )  # fmt: skip


def test_the_shot_file_names_uploads_by_their_own_names():
    options = {
        "control": {"pose": "/u/1.mp4", "depth": "/u/2.mp4"}, "prompt": {0: "x: y", 8: "z"},
        "lora": {"/u/3.safetensors": 0.5}, "seed": 3,
    }  # fmt: skip
    names = {
        "/u/1.mp4": "my clip.mp4",
        "/u/2.mp4": "depth.mp4",
        "/u/3.safetensors": "style.safetensors",
    }
    assert yaml.safe_load(shot_text(options, names)) == {
        "control": {"pose": "my clip.mp4", "depth": "depth.mp4"}, "prompt": {0: "x: y", 8: "z"},
        "lora": {"style.safetensors": 0.5}, "seed": 3, "out": "clip.mp4",
    }  # fmt: skip
    one = {"control_video": "/u/1.mp4", "control": "depth", "prompt": "a"}
    told = yaml.safe_load(shot_text(one, names))
    assert told == {"control": {"depth": "my clip.mp4"}, "prompt": "a", "out": "clip.mp4"}


def test_a_shot_file_does_not_write_over_the_clip_that_it_reads():
    names = {"/u/1.mp4": "clip.mp4", "/u/2.mp4": "clip-2.mp4"}
    told = yaml.safe_load(shot_text({"control_video": "/u/1.mp4", "video": "/u/2.mp4"}, names))
    assert told["out"] == "clip-3.mp4"


def test_two_uploads_of_the_same_name_have_two_names_in_a_shot_file(tmp_path):
    uploads = Uploads(tmp_path, 1)
    for number in (1, 2):
        uploads._held[str(number)] = Upload(str(number), "a.mp4", tmp_path / f"{number}.mp4", {})
    options = {"control": {"pose": str(tmp_path / "1.mp4"), "depth": str(tmp_path / "2.mp4")}}
    assert list(uploads.names_in(options).values()) == ["a.mp4", "a-2.mp4"]
