"""The form holds every option of generate, and what it sends becomes options or is refused by its field."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import yaml

from hgc_video.errors import InputError
from hgc_video.options import GenerateOptions
from hgc_video.ui.form import _LEFT_OUT, form
from hgc_video.ui.making import shot_text
from hgc_video.ui.request import checked, field_of, options_from

UPLOADS = {"1": SimpleNamespace(path="/uploads/1.mp4")}
GIVEN = {"control_video": "1", "prompt": "a dancer"}


def test_every_option_is_a_field_or_left_out_on_purpose():
    names = [field["name"] for field in form()["fields"]]
    assert len(set(names)) == len(names)
    assert set(names) | _LEFT_OUT == set(GenerateOptions.model_fields)
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
    ],
)
def test_a_refusal_names_its_field(values, field, says):
    with pytest.raises(InputError, match=says) as refused:
        checked(options_from({**GIVEN, **values}, UPLOADS, shared=False))
    assert field_of(str(refused.value)) == field


@pytest.mark.parametrize(
    "values", [{"model": "/models/x"}, {"preset": "searched:file=x"}, {"base": "a.safetensors"}]
)
def test_over_the_network_no_file_of_the_machine_is_named(values):
    assert options_from({**GIVEN, **values}, UPLOADS, shared=False)
    with pytest.raises(InputError, match="over the network"):
        options_from({**GIVEN, **values}, UPLOADS, shared=True)
    assert options_from(
        {**GIVEN, "prompt": "a/b", "preset": "deepcache:interval=3"}, UPLOADS, shared=True
    )


def test_the_shot_file_names_uploads_by_their_own_names():
    told = yaml.safe_load(
        shot_text(
            {"control_video": "/u/1.mp4", "control": "depth", "prompt": "x: y", "seed": 3},
            {"/u/1.mp4": "my clip.mp4"},
        )
    )
    assert told == {
        "control": {"depth": "my clip.mp4"},
        "prompt": "x: y",
        "seed": 3,
        "out": "clip.mp4",
    }
