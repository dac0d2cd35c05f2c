"""What a job is known by: all that decides its result, the bytes of its files, and which model it loads."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from hgc_video.jobs.fingerprint import fingerprint_of, loading_of
from hgc_video.media.content import content_of
from hgc_video.options import GenerateOptions


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "pose.mp4"
    path.write_bytes(b"a clip")
    return path


def options_of(clip, **given):
    return GenerateOptions(**{"control_video": clip, "prompt": "a", **given})


def test_a_fingerprint_is_a_checksum_of_options_and_files(clip):
    options = options_of(clip, prompt="tänzer", ip_adapter=clip)
    told = options.to_dict()
    for name in (
        "out", "device", "devices", "offline", "calibration_dir", "work", "checkpoint_every_s",
    ):  # fmt: skip
        del told[name]
    digest = hashlib.sha256(b"a clip").hexdigest()
    text = json.dumps(
        [told, {"control.pose": digest, "ip_adapter": digest}], sort_keys=True, ensure_ascii=False
    )
    assert fingerprint_of(options) == hashlib.sha256(text.encode()).hexdigest()


def test_what_does_not_change_the_result_does_not_change_the_fingerprint(clip, tmp_path):
    first = fingerprint_of(options_of(clip))
    for same in (
        {"out": tmp_path / "a.mp4"}, {"device": "cpu"}, {"devices": 2}, {"offline": True},
        {"calibration_dir": tmp_path}, {"work": tmp_path}, {"checkpoint_every_s": 5},
    ):  # fmt: skip
        assert fingerprint_of(options_of(clip, **same)) == first, same


def test_what_changes_the_result_changes_the_fingerprint(clip, tmp_path):
    others = (
        {}, {"seed": 1}, {"preset": "fast"}, {"model": "svd"}, {"dtype": "float16"}, {"crf": 3},
        {"control": "depth"}, {"ip_adapter": clip}, {"prompt": {0: "a"}}, {"metadata": False},
        {"lora": {"a": 0.5}}, {"lora": {"a": 1.0}},
    )  # fmt: skip
    assert len({fingerprint_of(options_of(clip, **one)) for one in others}) == len(others)
    moved = tmp_path / "other.mp4"
    moved.write_bytes(clip.read_bytes())
    assert fingerprint_of(options_of(moved)) != fingerprint_of(options_of(clip))


def test_a_file_that_is_another_one_now_changes_the_fingerprint(clip):
    before = fingerprint_of(options_of(clip)), fingerprint_of(options_of(clip, audio=clip))
    clip.write_bytes(b"another clip")
    after = fingerprint_of(options_of(clip)), fingerprint_of(options_of(clip, audio=clip))
    assert len({*before, *after}) == 4


def test_the_order_of_controls_changes_the_fingerprint(clip):
    """It decides the order of the ControlNets, whose residuals are summed in it."""
    given = ({"pose": clip, "depth": clip}, {"depth": clip, "pose": clip})
    one, other = (fingerprint_of(GenerateOptions(prompt="a", control=kinds)) for kinds in given)
    assert one != other


@pytest.mark.parametrize(
    "name", ["lora", "vae", "motion_adapter", "ip_adapter_model", "controlnet"]
)
def test_a_part_that_is_another_file_now_changes_the_fingerprint(name, clip, tmp_path):
    (part := tmp_path / "a.safetensors").write_bytes(b"one")
    given = {name: {"pose": str(part)} if name == "controlnet" else str(part)}
    given |= {"ip_adapter": clip} if name == "ip_adapter_model" else {}
    before = fingerprint_of(options_of(clip, **given))
    assert fingerprint_of(options_of(clip, **given)) == before
    part.write_bytes(b"other")
    assert fingerprint_of(options_of(clip, **given)) != before


def test_a_model_of_a_folder_is_known_by_its_files(clip, tmp_path):
    (folder := tmp_path / "model" / "unet").mkdir(parents=True)
    (folder / "a.safetensors").write_bytes(b"one")
    before = fingerprint_of(options_of(clip, model=str(tmp_path / "model")))
    (folder / "a.safetensors").write_bytes(b"other")
    assert fingerprint_of(options_of(clip, model=str(tmp_path / "model"))) != before


def test_a_schedule_that_is_another_one_now_changes_the_fingerprint(clip, tmp_path):
    schedule = tmp_path / "s.yaml"
    preset = {"preset": f"searched:file={schedule}"}
    gone = fingerprint_of(options_of(clip, **preset))
    schedule.write_text("one")
    before = fingerprint_of(options_of(clip, **preset))
    schedule.write_text("other")
    assert len({gone, before, fingerprint_of(options_of(clip, **preset))}) == 3


def test_frames_in_memory_are_known_by_their_bytes():
    dark, bright = (np.full((2, 8, 8, 3), level, np.uint8) for level in (0, 255))
    assert fingerprint_of(options_of(dark)) == fingerprint_of(options_of(dark.copy()))
    assert fingerprint_of(options_of(dark)) != fingerprint_of(options_of(bright))
    assert content_of(dark) != content_of(bright)


def test_what_is_loaded_is_told_by_parts_kinds_and_picture(clip):
    told = json.loads(loading_of(options_of(clip, lora={"a": 1}, dtype="float16", offline=True)))
    parts, kinds, picture = told
    assert set(parts) == {
        "model", "dtype", "offline", "base", "base_config", "motion_adapter", "vae", "controlnet",
        "lora", "ip_adapter_model",
    }  # fmt: skip
    assert (parts["model"], parts["dtype"], parts["lora"]) == ("puppet", "float16", {"a": 1})
    assert parts["offline"] is True and kinds == ["pose"] and picture is False
    with_picture = options_of(clip, ip_adapter=clip, control="depth")
    assert json.loads(loading_of(with_picture))[1:] == [["depth"], True]


def test_jobs_of_one_model_share_its_loading(clip):
    first = loading_of(options_of(clip))
    for same in ({"seed": 4}, {"device": "cpu"}, {"prompt": "b"}, {"preset": "off"}, {"out": "a"}):
        assert loading_of(options_of(clip, **same)) == first, same
    for other in ({"model": "svd"}, {"vae": "v"}, {"dtype": "float16"}, {"control": "depth"}):
        assert loading_of(options_of(clip, **other)) != first, other
    two, turned = (
        loading_of(GenerateOptions(prompt="a", control=dict.fromkeys(kinds, clip)))
        for kinds in (("pose", "depth"), ("depth", "pose"))
    )
    assert two != turned, "ControlNets are loaded in the order of the controls"
