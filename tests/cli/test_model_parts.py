"""The parts of a model on the command line: KIND=FILE, FILE:SCALE and IMAGE:SCALE."""

from __future__ import annotations

import pytest

from hgc_video.cli.model_parts import parts_of
from hgc_video.errors import InputError


def told(controlnet=None, lora=None, ip_adapter=None):
    return parts_of({"controlnet": controlnet, "lora": lora, "ip_adapter": ip_adapter})


def test_texts_are_files_and_scales():
    assert told() == {"controlnet": None, "lora": None}
    assert told(["pose=a.safetensors", "depth=owner/name"])["controlnet"] == {
        "pose": "a.safetensors", "depth": "owner/name"
    }  # fmt: skip
    loras = told(lora=["a.safetensors:0.8", "12:30.safetensors", "b.safetensors:-0.5"])["lora"]
    assert loras == {"a.safetensors": 0.8, "12:30.safetensors": 1.0, "b.safetensors": -0.5}
    picture = told(ip_adapter="C:/face.png:0.6")
    assert (picture["ip_adapter"], picture["ip_adapter_scale"]) == ("C:/face.png", 0.6)
    assert "ip_adapter_scale" not in told(ip_adapter="face.png")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"controlnet": ["a.safetensors"]}, "write KIND=FILE, as pose=openpose.safetensors"),
        ({"controlnet": ["pose=a", "pose=b"]}, "given twice for pose"),
        ({"lora": ["a:1", "a:2"]}, "--lora a is given twice"),
    ],
)
def test_what_is_not_possible(given, says):
    with pytest.raises(InputError, match=says):
        told(**given)
