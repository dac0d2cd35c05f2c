"""Generator: what is loaded is kept, and a list of prompts or seeds makes as many clips."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import hgc_video
from hgc_video import generator as module
from hgc_video.errors import Cancelled, InputError, PromptError
from hgc_video.models.load import load_pipeline, model_folder
from hgc_video.puppet.evaluation import held_out

PROMPT = "a dancer in a red shirt and blue trousers on a beach"
SHORT = {
    "num_inference_steps": 2,
    "num_frames": 1,
    "height": 64,
    "width": 64,
    "progress": False,
    "preset": "lossless",
}


@pytest.fixture(scope="module")
def pose():
    """Two skeleton frames (2 128 128 3)."""
    return held_out(0, 2).truth.pose


@pytest.fixture
def loads(monkeypatch):
    """The controls of every pipeline that is loaded, as it is loaded."""
    seen = []

    def load(model, *controls, **options):
        seen.append(controls)
        return load_pipeline(model, *controls, **options)

    monkeypatch.setattr(module, "load_pipeline", load)
    return seen


def test_a_model_whose_file_was_written_to_is_loaded_again(pose, loads, tmp_path):
    """Under the same name lies another model now."""
    folder = shutil.copytree(model_folder("puppet"), tmp_path / "model")
    generator = hgc_video.Generator(**{**SHORT, "model": str(folder)})
    first = generator.generate(pose, PROMPT, seed=3)
    assert np.array_equal(generator.generate(pose, PROMPT, seed=3).frames, first.frames)
    assert len(loads) == 1
    (weights,) = (folder / "vae").glob("*.safetensors")
    tensors = load_file(weights)
    weights.unlink()  # not the memory that the loaded model may still read from
    save_file({name: tensor * 0.5 for name, tensor in tensors.items()}, weights)
    other = generator.generate(pose, PROMPT, seed=3)
    assert len(loads) == 2 == generator.num_loads
    assert not np.array_equal(other.frames, first.frames)


def test_a_second_call_does_not_load_again_and_gives_what_a_first_one_does(pose, loads):
    generator = hgc_video.Generator(**SHORT)
    first = generator.generate(pose, PROMPT, seed=3)
    with pytest.raises(Cancelled):
        generator.generate(pose, PROMPT, callback=lambda *_: False)
    again = generator.generate(pose, PROMPT, seed=3, preset="balanced", num_inference_steps=3)
    assert loads == [("pose",)]
    alone = hgc_video.generate(
        pose, PROMPT, seed=3, **{**SHORT, "preset": "balanced", "num_inference_steps": 3}
    )
    assert np.array_equal(again.frames, alone.frames)
    assert again.report.macs_by_part == alone.report.macs_by_part
    assert np.array_equal(first.frames, hgc_video.generate(pose, PROMPT, seed=3, **SHORT).frames)
    assert first.report.options["num_inference_steps"] == 2
    del loads[:]
    generator.generate(held_out(0, 2).truth.depth, PROMPT, control="depth")
    generator.generate(pose, PROMPT, dtype="bfloat16")
    generator.unload()
    generator.generate(pose, PROMPT, dtype="bfloat16")
    assert loads == [("depth",), ("pose",), ("pose",)]


def test_a_list_of_seeds_and_prompts_makes_as_many_clips_of_one_loading(pose, loads, tmp_path):
    clips = hgc_video.generate(
        pose, [PROMPT, "a dancer in a green shirt"], seed=[1, 2], out=tmp_path / "a.mp4", **SHORT
    )
    assert len(loads) == 1
    assert [clip.report.seed for clip in clips] == [1, 2]
    assert clips[1].report.prompt == "a dancer in a green shirt"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.mp4", "a-2.mp4"]
    two = hgc_video.generate(pose, PROMPT, seed=[7, 8], **SHORT)
    assert not np.array_equal(two[0].frames, two[1].frames)
    assert np.array_equal(two[1].frames, hgc_video.generate(pose, PROMPT, seed=8, **SHORT).frames)
    drawn = hgc_video.generate(pose, [PROMPT, PROMPT], seed=None, **SHORT)
    assert drawn[0].report.seed != drawn[1].report.seed


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"prompt": [PROMPT] * 2, "seed": [1, 2, 3]}, InputError, "2 prompts and 3 seeds"),
        ({"prompt": []}, InputError, "0 prompts are given"),
        ({"prompt": PROMPT, "seed": [1, -2]}, InputError, "seed=-2"),
        ({"prompt": [PROMPT, " "]}, PromptError, "the prompt is empty"),
        ({"prompt": [PROMPT, "red " * 60]}, PromptError, "make it shorter"),
        ({"prompt": [PROMPT, {0: "a", 9: "b"}]}, PromptError, "from frame 9 on"),
    ],
)
def test_all_of_a_list_is_checked_before_the_first_clip(pose, given, error, says):
    ran = []
    with pytest.raises(error, match=says):
        hgc_video.generate(pose, callback=lambda *step: ran.append(step), **given, **SHORT)
    assert not ran


def test_an_unknown_option_of_a_generator_names_the_nearest():
    with pytest.raises(InputError, match='no field "presett": did you mean "preset"'):
        hgc_video.Generator(presett="fast")
