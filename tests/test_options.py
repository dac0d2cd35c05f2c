"""One list of options: the model, generate's signature, the command line and the report agree."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
import typer.main

import hgc_video
from hgc_video.cli import app
from hgc_video.errors import InputError, PromptError
from hgc_video.options import CONTROL_KINDS, GenerateOptions
from hgc_video.options.panels import PANELS

HOOKS = {"progress", "callback"}  # what a program watches a run with; no options of the result
OWN_FORM = {"control_video", "control"}  # --control KIND=FILE and its short forms


def options(**given):
    return GenerateOptions(**{"control_video": "a.mp4", "prompt": "a dancer", **given})


def test_generates_signature_is_the_list():
    signature = inspect.signature(hgc_video.generate).parameters
    defaults = {name: p.default for name, p in signature.items() if name not in HOOKS}
    assert defaults == {name: f.default for name, f in GenerateOptions.model_fields.items()}


def test_every_option_has_one_heading():
    named = [name for names in PANELS.values() for name in names]
    assert sorted(named) == sorted(GenerateOptions.model_fields)


def test_the_command_line_has_every_option():
    command = typer.main.get_command(app).commands["generate"].loaded()
    flags = {flag for parameter in command.params for flag in parameter.opts}
    expected = {f"--{name.replace('_', '-')}" for name in GenerateOptions.model_fields}
    assert expected - {"--control-video"} <= flags
    assert {f"--{kind}" for kind in CONTROL_KINDS} <= flags
    more = {
        "--prompt-at", "--no-audio", "--extract-with", "--fidelity-with", "--report", "--quiet", "--help",
        "-h",
    }  # fmt: skip
    assert flags - expected - {f"--{kind}" for kind in CONTROL_KINDS} <= more
    shown = {p.name: p.help for p in command.params if p.name in GenerateOptions.model_fields}
    for name in shown.keys() - OWN_FORM:
        about = GenerateOptions.model_fields[name].description
        assert shown[name].lower().startswith(about[:30].lower())


def test_the_report_holds_every_option():
    told = options(seed=3, control={"pose": np.zeros((2, 8, 8, 3))}, control_video=None).to_dict()
    assert set(told) == set(GenerateOptions.model_fields)
    assert told["seed"] == 3 and told["control"] == {"pose": "an array of 2x8x8x3 in memory"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"num_frames": 0}, "num_frames=0 is not possible; give 1 or more"),
        ({"num_frames": 2.5}, "give a whole number"),
        ({"num_frames": True}, "give a whole number"),
        ({"num_inference_steps": 1001}, "give at most 1000"),
        ({"guidance_scale": float("nan")}, "give a finite number"),
        ({"seed": -1}, "seed=-1 is not possible; give 0 or more"),
        ({"conditioning_scale": True}, "give a number, 0 or more"),
        ({"conditioning_scale": {"depth": 1.0}}, 'names "depth"'),
        ({"control": "poze"}, 'did you mean "pose"'),
        ({"control": {"pose": "b.mp4"}}, "leave control_video out"),
        ({"control_video": None}, "no control clip is given"),
        ({"control_guidance_start": 1.0}, "the first one smaller"),
        ({"dtype": "float8"}, 'did you mean "float32"'),
        ({"invert_depth": True}, "invert_depth is for depth clips"),
        ({"motion": {"fpz": 7}}, 'motion has no field "fpz": did you mean "fps"'),
        ({"motion": {"fps": 100}}, "fps=100 is not possible; give at most 60"),
        ({"num_frame": 3}, 'did you mean "num_frames"'),
    ],
)
def test_what_is_not_possible_is_told_in_one_line(given, says):
    with pytest.raises(InputError, match=says) as told:
        options(**given)
    assert "\n" not in str(told.value)


def decided(given):
    return given.for_model(from_image=False, num_inference_steps=25, guidance_scale=2.5)


def test_a_model_decides_what_is_not_given():
    one = decided(options(seed=None, num_inference_steps=7))
    assert (one.num_inference_steps, one.guidance_scale, one.branches) == (7, 2.5, 2)
    assert decided(options()).num_inference_steps == 25 and decided(options()).seed == 0
    assert one.seed != decided(options(seed=None)).seed, "a seed is drawn anew each time"
    assert decided(options(guidance_scale=1)).branches == 1


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"), (["a", "b"], "is no text"), ("a \udcff", "half a character"),
        ({0: "a", 9: "\ud800"}, "half a character"), ({0: "a", 9: ""}, "empty"),
        ({3: "a"}, "begin at frame 0"),
    ],
)  # fmt: skip
def test_prompts_that_cannot_be(prompt, says):
    with pytest.raises(PromptError, match=says):
        decided(options(prompt=prompt))


def test_numbers_of_other_libraries_are_pythons_own():
    one = options(num_frames=np.int64(4), fps=np.float32(8), dtype=torch.float16)
    assert type(one.num_frames) is int and type(one.fps) is float and one.dtype == "float16"
