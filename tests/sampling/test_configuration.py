"""The configuration that a clip carries: plain, complete, without private paths, and options again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hgc_video.errors import InputError
from hgc_video.jobs.engines.inputs import input_paths, read_carried, renamed, with_files_here
from hgc_video.media.video import write_video
from hgc_video.media.write import Extras
from hgc_video.models.identity import weight_hashes
from hgc_video.options import GenerateOptions
from hgc_video.plan.presets import POLICY_FILE
from hgc_video.sampling.configuration import (
    configuration,
    names_of,
    options_of,
    read_configuration,
)
from tests import tiny_pipelines as tiny

FRAMES = np.zeros((2, 32, 32, 3), np.uint8)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A home with clips/a.mp4 and models/mine, and somebody else's folder beside it."""
    home = tmp_path / "home" / "ann"
    for folder in (
        home / "clips",
        home / "models" / "mine",
        home / "out",
        tmp_path / "srv" / "out",
    ):
        folder.mkdir(parents=True)
    (home / "clips" / "a.mp4").write_bytes(b"a clip")
    (home / "song.mp3").write_bytes(b"a song")
    monkeypatch.setenv("HOME", str(home))
    return tmp_path


def made(place, out, **options):
    home = place / "home" / "ann"
    told = {"control": {"pose": home / "clips" / "a.mp4"}, "prompt": "a dancer", "out": out}
    return configuration(GenerateOptions(**{**told, **options}), out, versions={"python": "3"})


def test_files_are_named_as_seen_from_the_clip_and_hashed(place):
    home = place / "home" / "ann"
    found = made(
        place, home / "out" / "b.mp4", audio=home / "song.mp3", model=str(home / "models" / "mine")
    )
    assert json.loads(json.dumps(found)) == found
    assert set(found["options"]) == set(GenerateOptions.model_fields)
    assert found["options"]["control"] == {"pose": "../clips/a.mp4"}
    assert found["options"]["out"] is None and found["options"]["control_video"] is None
    assert found["files"]["model"] == {"name": "../models/mine"}
    assert found["files"]["audio"]["name"] == "../song.mp3"
    assert len(found["files"]["control.pose"]["sha256"]) == 64
    assert str(place) not in json.dumps(found)


def test_no_path_leads_through_somebodys_home(place):
    for out in (place / "srv" / "out" / "b.mp4", None):
        found = made(place, out, calibration_dir="/home/ann/.cache")
        assert found["options"]["control"] == {"pose": "a.mp4"}
        assert "ann" not in json.dumps(found) and "home" not in json.dumps(found)


def test_a_model_of_the_hub_is_named_as_it_is_there(place):
    folder = place / "home" / "ann" / "hub" / "models--some--thing" / "snapshots" / "0123abc"
    found = made(place, place / "home" / "ann" / "out" / "b.mp4", model=str(folder))
    assert found["options"]["model"] == "some/thing@0123abc"


def test_options_come_back_and_files_are_found_beside_the_clip(place):
    out = place / "home" / "ann" / "out" / "b.mp4"
    given = {
        "prompt": {0: "a dancer", 4: "a runner"},
        "seed": 7,
        "frames": "1:9",
        "conditioning_scale": 0.5,
    }
    write_video(out, FRAMES, 8, Extras(text=json.dumps(made(place, out, **given))))
    options = options_of(read_configuration(out), out)
    again = GenerateOptions(**options)
    assert Path(again.control["pose"]).read_bytes() == b"a clip"
    for name, value in given.items():
        assert getattr(again, name) == value
    moved = place / "srv" / "b.mp4"
    out.rename(moved)
    with pytest.raises(
        InputError, match=r'the file of control.pose, "../clips/a.mp4", .*is not beside'
    ):
        options_of(read_configuration(moved), moved)
    (place / "srv" / "a.mp4").write_bytes(b"a clip")
    assert options_of(read_configuration(moved), moved)["control"]["pose"] == str(
        place / "srv" / "a.mp4"
    )
    (place / "srv" / "a.mp4").write_bytes(b"another clip")
    with pytest.raises(InputError, match="with the content that the clip was made of"):
        options_of(read_configuration(moved), moved)


def test_files_that_are_keys_are_named_as_the_others(place):
    """As LoRA files with their scales; a mapping that is there stands for such an option."""
    home = place / "home" / "ann"
    out, file = home / "out" / "b.mp4", home / "song.mp3"
    options = GenerateOptions(control={"pose": FRAMES}, prompt="a dancer")
    options = options.model_copy(update={"motion": {str(file): 0.8}})
    found = configuration(options, out)
    assert found["options"]["motion"] == {"../song.mp3": 0.8} and str(place) not in json.dumps(
        found
    )
    del found["files"]["control.pose"]
    again = options_of(found, out)["motion"]
    assert [Path(name).resolve() for name in again] == [file] and list(again.values()) == [0.8]


def test_frames_in_memory_are_told_by_their_hash(place):
    out = place / "srv" / "b.mp4"
    one, same, other = (
        made(place, out, control={"pose": clip})["files"]["control.pose"]
        for clip in (FRAMES, FRAMES.copy(), FRAMES + 1)
    )
    assert one == same != other
    found = made(place, out, control={"pose": FRAMES})
    with pytest.raises(InputError, match=r"control\.pose was in memory"):
        options_of(found, out)


@pytest.mark.parametrize("text", [None, "a comment", '{"a": 1}', "[1]", '{"options": {}}'])
def test_a_clip_without_a_configuration_says_so(tmp_path, text):
    path = write_video(tmp_path / "a.gif", FRAMES, 8, Extras(text=text))
    with pytest.raises(InputError, match="carries no configuration of hgc_video"):
        read_configuration(path)


def test_a_later_version_says_so(tmp_path):
    path = write_video(tmp_path / "a.gif", FRAMES, 8, Extras('{"format": 99, "options": {}}'))
    with pytest.raises(InputError, match="by a later version"):
        read_configuration(path)


def test_weights_have_one_hash_from_folders_and_one_from_tensors(tmp_path):
    from diffusers import AnimateDiffControlNetPipeline

    pipe = tiny.animatediff(AnimateDiffControlNetPipeline, controlnet=tiny.controlnet())
    before = weight_hashes(pipe)
    assert {"unet", "controlnet", "vae", "text_encoder"} <= set(before)
    assert all(len(value) == 64 for value in before.values())
    pipe.unet.conv_in.weight.data[0, 0, 0, 0] += 1
    after = weight_hashes(pipe)
    assert {name for name in before if before[name] != after[name]} == {"unet"}
    folder = tmp_path / "unet"
    pipe.unet.save_pretrained(folder)
    pipe.unet = type(pipe.unet).from_pretrained(folder)
    import hashlib

    weights = (folder / "diffusion_pytorch_model.safetensors").read_bytes()
    assert weight_hashes(pipe)["unet"] == hashlib.sha256(weights).hexdigest()


def test_the_files_of_a_policy_are_named_as_the_others(place):
    """They stand within the text of `preset`."""
    home = place / "home" / "ann"
    out, files = home / "out" / "b.mp4", [home / "codes.yaml", home / "clips" / "measured.yaml"]
    for file in files:
        file.write_text(file.name)
    preset = f"searched:file={files[0]}+fitted:calibration={files[1]},interval=2+lossless"
    found = made(place, out, preset=preset)
    assert found["options"]["preset"] == (
        "searched:file=../codes.yaml+fitted:calibration=../clips/measured.yaml,interval=2+lossless"
    )
    again = options_of(found, out)["preset"]
    assert [Path(f).resolve() for f in POLICY_FILE.findall(again)] == files
    files[1].write_text("measured anew")
    with pytest.raises(InputError, match=r"the file of preset\.1"):
        options_of(found, out)


def test_a_clip_does_not_say_where_to_write(place):
    """Its configuration may be anybody's; where a run writes is for whoever runs it to say."""
    out = place / "home" / "ann" / "out" / "b.mp4"
    found = made(place, out)
    found["options"] |= {"out": "/srv/x.mp4", "work": "/srv/w", "calibration_dir": "/srv/c"}
    options = options_of(found, out)
    assert not {"out", "work", "calibration_dir"} & set(options)


def test_a_clip_made_of_copies_elsewhere_is_the_same(place):
    """As by a worker on another machine: names are those of whoever asked for the clip."""
    home = place / "home" / "ann"
    schedule = home / "codes.yaml"
    schedule.write_text("codes")
    options = {
        "control": {"pose": str(home / "clips" / "a.mp4")}, "prompt": "a dancer",
        "preset": f"searched:file={schedule}", "audio": str(home / "song.mp3"),
    }  # fmt: skip
    out = home / "out" / "shots" / "b.mp4"
    carried = {path: read_carried(Path(path)) for path in input_paths(options)}
    assert len(carried) == 3
    names, here = names_of(options, out), configuration(GenerateOptions(**options), out)
    for path in carried:
        Path(path).rename(f"{path}.there")  # so that the worker's machine does not have them
    there = place / "tmp"
    moved = with_files_here(options, there, carried.get)
    assert moved["control"]["pose"].startswith(str(there))
    told = configuration(GenerateOptions(**moved), there / "b.mp4", renamed(names, options, moved))
    assert told == here and str(place) not in json.dumps(told)


@pytest.mark.parametrize("name", ["/dev/zero", "/", "/usr", "..", "."])
def test_what_has_no_end_is_not_read(place, name, monkeypatch):
    """A clip of somebody else's may name a device, or all of a disk; the working folder is none of it."""
    out, read = place / "srv" / "out" / "b.mp4", []
    found = made(place, out)
    found["files"]["control.pose"]["name"] = name
    Image.new("RGB", (8, 8)).save(
        place / "srv" / "a.png"
    )  # images beside it make no clip of what it lies in
    monkeypatch.setattr("hgc_video.files._read_sha256", lambda path: read.append(path) or "")
    with pytest.raises(InputError, match="is not beside the clip"):
        options_of(found, out)
    assert read == []


def test_a_folder_of_frames_is_found_again(place):
    out, frames = place / "srv" / "out" / "b.mp4", place / "srv" / "out" / "frames"
    write_video(frames, FRAMES, 8)
    found = made(place, out, control={"pose": frames})
    assert found["files"]["control.pose"]["name"] == "frames"
    assert options_of(found, out)["control"]["pose"] == str(frames)
    next(frames.glob("*.png")).unlink()
    with pytest.raises(InputError, match="is not beside the clip"):
        options_of(found, out)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "a\ud800"])
def test_a_name_that_no_file_has_is_refused(place, name):
    out = place / "srv" / "out" / "b.mp4"
    found = made(place, out)
    found["files"]["control.pose"]["name"] = name
    with pytest.raises(InputError, match="path"):
        options_of(found, out)
