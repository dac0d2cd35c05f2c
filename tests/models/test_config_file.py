"""Configurations: read whole, and refused where they count layers without end."""

from __future__ import annotations

import json
import shutil

import pytest

from hgc_video.errors import ModelError
from hgc_video.models.config_file import MOST_LAYERS, check_configs, read_config
from hgc_video.models.load import load_pipeline, model_folder


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"layers_per_block": MOST_LAYERS + 1}, "layers_per_block=1001; at most 1000"),
        ({"transformer_layers_per_block": [1, [2, 10**30]]}, "transformer_layers_per_block=1000"),
        ({"vision": {"num_hidden_layers": float("inf")}}, "num_hidden_layers=inf"),
        (
            {"num_encoder_blocks": [1, 3, 10**9]},
            "num_encoder_blocks=1000000000",
        ),  # of AutoencoderTiny
        ({"num_layers": float("nan")}, "num_layers=nan"),
        ([1], "no configuration, but a list"),
    ],
)
def test_what_would_be_built_without_end_is_refused(tmp_path, told, says):
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match=says):
        read_config(tmp_path)
    part = tmp_path / "model" / "unet"
    part.mkdir(parents=True)
    shutil.copy(tmp_path / "config.json", part)
    with pytest.raises(ModelError, match=says):
        check_configs(tmp_path / "model")


def test_what_a_model_may_have_is_read(tmp_path):
    told = {"layers_per_block": [2, MOST_LAYERS], "sample_size": 10**6, "layers": "many"}
    (tmp_path / "config.json").write_text(json.dumps(told))
    assert read_config(tmp_path) == told
    (tmp_path / "config.json").write_text("[" * 10**5)
    with pytest.raises(ModelError, match="cannot read"):
        read_config(tmp_path)


def test_every_way_to_a_model_refuses_it(tmp_path):
    """Without: a UNet of 10^18 layers is built until memory ends."""
    whole = tmp_path / "model"
    shutil.copytree(model_folder("puppet"), whole, ignore=shutil.ignore_patterns("*.safetensors"))
    for part in ("unet", "controlnet_pose", "vae", "text_encoder"):
        config = whole / part / "config.json"
        before = config.read_text()
        name = "num_hidden_layers" if part == "text_encoder" else "layers_per_block"
        config.write_text(json.dumps({**json.loads(before), name: 10**18}))
        with pytest.raises(ModelError, match=f"{name}={10**18}"):
            load_pipeline(str(whole), "pose")
        config.write_text(before)
