"""The training state in the repository: small, and of the networks that today's code makes."""

from __future__ import annotations

import json

from safetensors.torch import load_file

from hgc_video.puppet.training import state
from hgc_video.puppet.training.denoiser import add_motion, make_controlnet, make_unet
from hgc_video.puppet.training.vae import make_vae


def test_the_state_kept_in_the_repository_is_of_today_s_networks_and_small():
    index = json.loads((state.KEPT / "state.json").read_text())
    files = list(state.KEPT.glob("*.safetensors"))
    assert {f.name for f in files} == {f for known in index.values() for f in known["files"]}
    assert max(f.stat().st_size for f in files) <= 16e6
    # With a decoder that is trained on, which the exported model holds once: that has at most 40 MB.
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
    for stage in index.keys() & parts.keys():
        kept = {
            key: value.shape
            for file in index[stage]["files"]
            for key, value in load_file(state.KEPT / file).items()
        }
        wanted = {
            f"ema.{part}.{key}": value.shape
            for part, module in parts[stage].items()
            for key, value in module.named_parameters()
        }
        assert kept == wanted
