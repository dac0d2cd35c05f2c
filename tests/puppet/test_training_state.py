"""The training state in the repository: small, and of the networks that today's code makes."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file, save_file

from hgc_video.puppet.training import state
from hgc_video.puppet.training.denoiser import add_motion, make_controlnet, make_unet
from hgc_video.puppet.training.progress import stored_step
from hgc_video.puppet.training.vae import make_vae


def test_the_state_kept_in_the_repository_is_of_today_s_networks_and_small(tmp_path):
    index = json.loads((state.KEPT / "state.json").read_text())
    files = list(state.KEPT.glob("*.safetensors"))
    assert {f.name for f in files} == {f for known in index.values() for f in known["files"]}
    assert max(f.stat().st_size for f in files) <= 16e6
    assert sum(f.stat().st_size for f in files) <= 42e6
    unet = make_unet()
    if "clips" in index:
        unet = add_motion(unet)
    nets = {
        "unet": unet,
        "controlnet_pose": make_controlnet(),
        "controlnet_depth": make_controlnet(),
    }
    parts = {"vae": {"vae": make_vae()}, "stills": nets, "clips": nets}
    taken_up = state.restore(tmp_path)
    assert set(taken_up) == set(index)
    for stage in index.keys() & parts.keys():
        kept = {key: v.shape for key, v in load_file(tmp_path / f"{stage}.safetensors").items()}
        wanted = {
            f"ema.{part}.{key}": value.shape
            for part, module in parts[stage].items()
            for key, value in module.named_parameters()
        }
        assert kept == wanted
        assert stored_step(tmp_path / f"{stage}.safetensors") == index[stage]["step"]
    assert state.restore(tmp_path) == []  # it is as far


def test_weights_of_the_package_are_kept_once(tmp_path):
    state.restore(tmp_path)
    clips = load_file(tmp_path / "clips.safetensors")
    again = tmp_path / "state"
    state.keep(tmp_path, {"clips": 10**6}, again)
    assert not list(again.glob("*.safetensors"))
    clips["ema.unet.conv_in.bias"] += 1  # trained on: no longer the package's
    save_file(clips, tmp_path / "clips.safetensors", {"step": "7000"})
    state.keep(tmp_path, {"clips": 10**6}, again)
    assert len(list(again.glob("*.safetensors"))) > 1
    other = tmp_path / "other"
    other.mkdir()
    assert state.restore(other, again) == ["clips"]
    torch.testing.assert_close(
        load_file(other / "clips.safetensors")["ema.unet.conv_in.bias"],
        clips["ema.unet.conv_in.bias"], rtol=1e-3, atol=1e-3,
    )  # fmt: skip
