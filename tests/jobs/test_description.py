"""What a run is known by: compared, named where it differs, and turned into options again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hgc_video.errors import InputError, StateError
from hgc_video.files import sha256_of
from hgc_video.jobs.checkpoint.description import Description, keep_inputs
from hgc_video.models.identity import fingerprint
from hgc_video.models.parts import ModelParts
from hgc_video.options import GenerateOptions

POSE = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "pose.mp4"
    path.write_bytes(b"a clip")
    return path


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's home, which holds the current folder."""
    here = tmp_path / "home" / "here"
    here.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(here.parent))
    monkeypatch.chdir(here)
    return here.parent


def options_of(control_video=POSE, prompt="a", **given):
    return GenerateOptions(control_video=control_video, prompt=prompt, **given)


def described(control_video=POSE, prompt="a", **given):
    return Description.of(options_of(control_video, prompt, **given))


def test_another_scale_of_a_lora_is_another_run(clip):
    first, other = (described(clip, lora={str(clip): scale}) for scale in (0.5, 1.0))
    assert first.changes_to(other) == ["LoRA scales was [0.5], is [1.0]"]
    assert first.digest != other.digest
    assert first.changes_to(described(clip, lora={str(clip): 0.5})) == []


def test_a_schedule_that_is_another_one_now_is_another_run(clip, tmp_path):
    schedule = tmp_path / "s.yaml"
    told = []
    for text in ("one", "other"):
        schedule.write_text(text)
        told.append(described(clip, preset=f"searched:file={schedule}"))
    assert told[0].changes_to(told[1]) == ["the preset.0 input changed"]
    assert told[0].digest != told[1].digest


def test_what_is_no_description_is_told():
    for told in ([1], "text", 3):
        with pytest.raises(StateError, match=r"job\.json is damaged \(all of it: Input should be"):
            Description.from_dict(told)


def test_a_description_tells_inputs_parts_and_versions(clip):
    image = np.zeros((4, 4, 3), np.uint8)
    options = options_of(
        control={"pose": clip, "depth": POSE}, control_video=None, ip_adapter=image
    )
    told = Description.of(options)
    assert told.inputs == {
        "pose": hashlib.sha256(b"a clip").hexdigest(),
        "depth": hashlib.sha256(b"(2, 8, 8, 3)" + POSE.tobytes()).hexdigest(),
        "ip_adapter": hashlib.sha256(b"(4, 4, 3)" + image.tobytes()).hexdigest(),
    }
    assert list(told.inputs) == ["pose", "depth", "ip_adapter"]
    assert told.model == fingerprint("puppet", ("pose", "depth"), ModelParts.of(options))
    assert told.versions == {
        name: metadata.version(name) for name in ("hgc-video", "torch", "diffusers", "transformers")
    }
    assert list(told.versions) == ["hgc-video", "torch", "diffusers", "transformers"]


def test_every_option_is_told_but_the_folder_of_the_run(clip, tmp_path):
    told = described(clip, work=tmp_path / "work").options
    every = set(GenerateOptions.model_fields)
    assert set(told) == every - {"control_video", "work"}
    assert told["control"] == {"pose": {"path": str(clip)}}
    assert (told["image"], told["video"], told["ip_adapter"], told["scenes_of"]) == (None,) * 4
    assert (told["prompt"], told["seed"], told["lora"], told["audio"]) == ("a", 0, None, True)
    json.dumps(told)


def test_clips_are_told_by_their_file_or_by_where_they_are_kept(home):
    for name in ("v.mp4", "film.mp4"):
        Path(name).write_bytes(b"v")
    picture = Image.new("RGB", (4, 4))
    told = described(
        video="v.mp4", scenes_of=home / "here" / "film.mp4", ip_adapter=picture
    ).options
    assert told["control"] == {"pose": {"kept": "input-pose.npy"}}
    assert told["video"] == {"path": "~/here/v.mp4"} and told["image"] is None
    assert told["scenes_of"] == {"path": "~/here/film.mp4"}
    assert told["ip_adapter"] == {"kept": "input-ip_adapter.npy"}


def test_paths_are_told_in_full_without_the_users_home(home):
    for name in ("vae", "style.safetensors", "other.safetensors", "sound.mp3", "net"):
        Path(name).write_bytes(name.encode())
    told = described(
        vae="vae", base="owner/name", controlnet={"pose": Path("net")}, calibration_dir="kept",
        lora={"style.safetensors": 0.5, "owner/style": 1}, out=Path("clip.mp4"), audio="sound.mp3",
        preset="quality",
    ).options  # fmt: skip
    assert told["vae"] == "~/here/vae" and told["base"] == "owner/name"
    assert told["controlnet"] == {"pose": "~/here/net"}
    assert told["lora"] == {"~/here/style.safetensors": 0.5, "owner/style": 1.0}
    assert type(told["lora"]["owner/style"]) is float
    assert told["out"] == "~/here/clip.mp4" and told["calibration_dir"] == "~/here/kept"
    assert told["audio"] == "~/here/sound.mp3" and told["preset"] == "quality"
    searched = described(preset=f"searched:file={home}/a.yaml").options["preset"]
    assert searched == "searched:file=~/a.yaml"


def test_prompts_by_frame_are_told_in_order(home):
    Path("pose.mp4").write_bytes(b"a")
    told = described(prompt={4: "b", 0: "a"}).options
    assert told["prompt"] == [[0, "a"], [4, "b"]]
    given = described(Path("pose.mp4"), prompt={4: "b", 0: "a"}).given(Path("work"))
    assert given["prompt"] == {0: "a", 4: "b"}


def test_numbers_of_numpy_and_paths_are_plain():
    scale = {"pose": np.float32(0.5)}
    told = described(conditioning_scale=scale, extract={"pose": ["a", ("b",)]}).options
    assert told["conditioning_scale"] == {"pose": 0.5} and told["extract"] == {"pose": ["a", ["b"]]}
    assert type(told["conditioning_scale"]["pose"]) is float


def test_a_description_comes_back_from_its_json(clip):
    told = described(clip, prompt={0: "ä"})
    data = json.loads(json.dumps({**told.to_dict(), "asked": True}))
    again = Description.from_dict(data)
    assert again == told and again.digest == told.digest and again.changes_to(told) == []
    assert set(told.to_dict()) == {"options", "inputs", "model", "versions"}


@pytest.mark.parametrize("name", ["options", "inputs", "model", "versions"])
def test_a_description_that_lacks_something_is_refused(name):
    data = described().to_dict()
    del data[name]
    with pytest.raises(StateError) as told:
        Description.from_dict(data)
    said = f"job.json is damaged ({name}: Field required); begin the run anew"
    assert str(told.value) == said


@pytest.mark.parametrize(
    ("name", "value"),
    [("control", 3), ("control", None), ("control", {"pose": 1.5}), ("control", {"pose": {}}),
     ("image", "a.png"), ("image", {"file": "a"}), ("video", ["a"]), ("prompt", 5), ("prompt", ["a"]),
     ("prompt", [[0, "a", 1]]), ("model", None), ("lora", ["a"]), ("lora", {"a": "much"})],
)  # fmt: skip
def test_options_of_another_kind_are_told(name, value):
    data = described(lora=None).to_dict()
    data["options"] |= {name: value}
    with pytest.raises(
        StateError, match=rf"job\.json is damaged \(options.{name}: .*; begin the run"
    ):
        Description.from_dict(data)
    del data["options"][name]
    with pytest.raises(
        StateError, match=rf"job\.json is damaged \(options.{name}: Field required\)"
    ):
        Description.from_dict(data)


def test_what_is_made_decides_the_digest(clip):
    first = described(clip)
    assert len(first.digest) == 64 and first.digest == described(clip).digest
    others = [
        described(clip, seed=1), described(POSE), described(clip, preset="fast"),
        replace(first, model={**first.model, "unet": "0"}),
        replace(first, versions={**first.versions, "torch": "1"}),
        described(clip, device="cpu"), described(clip, dtype="float16"),
    ]  # fmt: skip
    assert len({first.digest, *(one.digest for one in others)}) == len(others) + 1
    assert all(first.changes_to(one) and one.changes_to(first) for one in others)


def test_the_order_of_controls_decides_the_digest(clip):
    one, other = (
        Description.of(GenerateOptions(prompt="a", control=dict.fromkeys(kinds, clip)))
        for kinds in (("pose", "depth"), ("depth", "pose"))
    )
    assert one.digest != other.digest
    assert one.changes_to(other) == ["the controls have another order"]


def test_the_digest_is_a_checksum_of_sorted_json():
    told = described()
    assert replace(told, options=dict(reversed(told.options.items()))).digest == told.digest
    aside = {
        "out", "work", "checkpoint_every_s", "devices", "offline", "calibration_dir", "control_video",
        "control", "image", "video", "ip_adapter", "scenes_of", "model", "base", "base_config",
        "motion_adapter", "vae", "controlnet", "lora", "ip_adapter_model",
    }  # fmt: skip
    compared = {name: value for name, value in told.options.items() if name not in aside}
    assert {"device", "dtype", "seed", "prompt"} < set(compared)
    all_of_it = [compared, list(told.inputs.items()), told.model, told.versions]
    text = json.dumps(all_of_it, sort_keys=True)
    assert told.digest == hashlib.sha256(text.encode()).hexdigest()


def test_where_it_is_written_and_how_often_it_is_kept_changes_nothing(clip, tmp_path):
    same = tmp_path / "same.mp4"
    same.write_bytes(clip.read_bytes())
    first = described(clip)
    for other in (
        described(clip, out=tmp_path / "a.mp4", checkpoint_every_s=1, work=tmp_path / "w"),
        described(clip, offline=True, devices=2, calibration_dir=tmp_path), described(same),
    ):  # fmt: skip
        assert first.changes_to(other) == [] and first.digest == other.digest


def test_changes_are_told_in_order_each_in_half_a_sentence(clip):
    first = described(clip)
    other = described(POSE, seed=3, preset="fast", negative_prompt="b")
    other = replace(
        other, model={**other.model, "unet": "0", "extra": "1"},
        versions={**other.versions, "torch": "1.0"},
    )  # fmt: skip
    assert first.changes_to(other) == [
        'preset was "balanced", is "fast"', 'negative_prompt was None, is "b"', "seed was 0, is 3",
        "the pose input changed", "the model has another unet, extra",
        f'torch was "{metadata.version("torch")}", is "1.0"',
    ]  # fmt: skip


def test_inputs_that_come_and_go_are_told(clip):
    first, other = described(clip), described(clip, control="depth", ip_adapter=clip)
    other = replace(other, model=first.model)
    assert first.changes_to(other) == [
        "the pose input is not given", "the depth input was not given",
        "the ip_adapter input was not given",
    ]  # fmt: skip


def test_a_model_of_another_name_is_told_with_both(clip):
    first = described(clip)
    moved = replace(first, options={**first.options, "model": "other"})
    assert first.changes_to(moved) == [], "where the parts are the same, the name is nothing"
    changed = replace(moved, model={**first.model, "vae": "0"})
    assert first.changes_to(changed) == ["the model (puppet, now other) has another vae"]
    assert changed.changes_to(first) == ["the model (other, now puppet) has another vae"]


def test_an_option_that_only_one_has_is_told(clip):
    first = described(clip)
    older = replace(first, options={n: v for n, v in first.options.items() if n != "seed"})
    assert older.changes_to(first) == ["seed was None, is 0"]
    assert first.changes_to(older) == ["seed was 0, is None"]


def test_what_is_given_again_makes_the_same_run(clip, tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    options = options_of(
        control_video=None, control={"pose": clip, "depth": POSE}, ip_adapter=picture,
        prompt={0: "a", 1: "b"}, scenes_of=clip, lora=[str(clip)], seed=5,
    )  # fmt: skip
    first = Description.of(options)
    keep_inputs(options, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.npy")) == [
        "input-depth.npy", "input-ip_adapter.npy",
    ]  # fmt: skip
    given = first.given(tmp_path)
    assert given["control"]["pose"] == str(clip)
    assert np.array_equal(given["control"]["depth"], POSE)
    assert np.array_equal(given["ip_adapter"], picture) and given["scenes_of"] == str(clip)
    assert given["image"] is None and given["prompt"] == {0: "a", 1: "b"}
    assert "control_video" not in given and "work" not in given
    again = Description.of(GenerateOptions(**given))
    assert again.inputs == first.inputs and again.digest == first.digest
    assert "control" in first.options, "the description is as it was"


def test_a_list_of_images_is_kept_as_one_array(tmp_path):
    images = [Image.fromarray(frame) for frame in POSE]
    options = options_of(images)
    keep_inputs(options, tmp_path)
    assert np.array_equal(np.load(tmp_path / "input-pose.npy", allow_pickle=False), POSE)
    assert Description.of(options).inputs == described(POSE).inputs


def test_inputs_in_files_are_not_kept_again(clip, tmp_path):
    (tmp_path / "work").mkdir()
    keep_inputs(options_of(str(clip), ip_adapter=clip), tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


def test_inputs_that_cannot_be_kept_are_told(tmp_path):
    place = tmp_path / "no"
    with pytest.raises(InputError, match=r"cannot write .*input-pose.npy.: no such file") as told:
        keep_inputs(options_of(), place)
    assert type(told.value) is InputError and isinstance(told.value.__cause__, OSError)
    assert f'"{place / "input-pose.npy"}"' in str(told.value)


@pytest.mark.parametrize(
    "frames",
    [POSE.astype(np.uint16), POSE.astype(float), POSE[0], 5, [POSE[0], POSE[0][:4]], ["a.png"]],
)
def test_clips_in_memory_that_are_no_plain_frames_are_refused(frames, tmp_path):
    for take in (Description.of, lambda options: keep_inputs(options, tmp_path)):
        with pytest.raises(InputError) as told:
            take(options_of(frames))
        assert str(told.value) == (
            "work cannot keep this pose clip, which is in memory; give a file, or frames (f H W 3) uint8"
        )
    assert list(tmp_path.iterdir()) == []


def test_an_image_in_memory_is_one_frame(tmp_path):
    for image, is_one in ((POSE[0], True), (Image.fromarray(POSE[0]), True), (POSE, False)):
        for kind in ("image", "ip_adapter"):
            options = options_of(**{kind: image})
            if is_one:
                keep_inputs(options, tmp_path)
                assert np.array_equal(np.load(tmp_path / f"input-{kind}.npy"), POSE[0])
            else:
                with pytest.raises(InputError, match=f"keep this {kind} clip"):
                    keep_inputs(options, tmp_path)


def test_a_folder_is_known_by_its_files(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "1.png").write_bytes(b"a")
    assert described(folder).inputs == {"pose": sha256_of(folder)}


@pytest.mark.parametrize("kept", [None, b"", b"no array", "pickled"])
def test_a_clip_that_is_not_as_it_was_kept_is_told_and_nothing_of_it_is_run(tmp_path, kept):
    path = tmp_path / "input-pose.npy"
    if kept == "pickled":
        np.save(path, np.array([{"code": 1}], dtype=object), allow_pickle=True)
    elif kept is not None:
        path.write_bytes(kept)
    with pytest.raises(StateError, match=r"input-pose\.npy. cannot be read .*; begin the run anew"):
        described().given(tmp_path)
