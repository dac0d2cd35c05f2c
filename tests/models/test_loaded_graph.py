"""The graph of loaded models: read where it was built before, and built for whatever is not as configured."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from hgc_video.errors import AdapterError
from hgc_video.files import own_folder
from hgc_video.models.graph_builder import build_graph
from hgc_video.models.graph_store import build
from hgc_video.models.image_prompt import add_image_prompt
from hgc_video.models.load import load_pipeline
from hgc_video.models.loaded_graph import loaded_graph
from hgc_video.plan.clip_shape import ClipShape
from tests.tiny_models import CLIPS, SIZE, TOKENS, controlnet, image_unet, motion_unet

SHAPE = ClipShape(3, SIZE, SIZE, TOKENS)


@pytest.fixture
def builds(monkeypatch, tmp_path):
    """The graphs that are built, not read; the user's folder is empty."""
    monkeypatch.setenv("HGC_VIDEO_HOME", str(tmp_path))
    made = []
    for place, plain in (("loaded_graph.build_graph", build_graph), ("graph_store.build", build)):

        def counted(*asked, plain=plain, **more):
            made.append(asked)
            return plain(*asked, **more)

        monkeypatch.setattr(f"hgc_video.models.{place}", counted)
    return made


def kept():
    folder = own_folder() / "graphs"
    return list(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("name", CLIPS)
def test_a_graph_is_built_once_and_read_for_other_weights(name, builds):
    clip = CLIPS[name]()
    built = build_graph(clip.unet, clip.controlnet, SHAPE)
    assert loaded_graph(clip.unet, clip.controlnet, SHAPE) == built
    again = CLIPS[name]()
    torch.nn.init.ones_(next(again.unet.parameters()))
    assert loaded_graph(again.unet, again.controlnet, SHAPE) == built
    assert len(builds) == len(kept()) == 1


def test_each_model_shape_and_size_of_a_number_has_its_own(builds):
    unet, net = motion_unet(), controlnet()
    whole = loaded_graph(unet, net, SHAPE)
    half = loaded_graph(unet, net, SHAPE, dtype_nbytes=2)
    assert half.layers[0].nbytes * 2 == whole.layers[0].nbytes
    assert loaded_graph(unet, None, SHAPE) == build_graph(unet, None, SHAPE)
    assert loaded_graph(motion_unet(layers=2), controlnet(layers=2), SHAPE) != whole
    assert loaded_graph(unet, net, ClipShape(4, SIZE, SIZE, TOKENS)).num_frames == 4
    assert len(builds) == len(kept()) == 5


def test_the_shipped_graph_of_the_embedded_model_is_read(builds):
    pipe = load_pipeline("puppet", "pose")
    shape = ClipShape(16, 16, 16, pipe.tokenizer.model_max_length)
    found = loaded_graph(pipe.unet, pipe.controlnet, shape)
    assert not builds and not kept()
    assert found == build_graph(pipe.unet, pipe.controlnet, shape)


def own_class(unet):
    class UNet2DConditionModel(type(unet)):  # the name of the stock class, and other code
        pass

    unet.__class__ = UNet2DConditionModel


def own_name(unet):
    unet.__class__ = type("MyUNet", (type(unet),), {})


def quantised(unet):
    unet.register_to_config(quantization_config=object())


@pytest.mark.parametrize(
    "change", [own_class, own_name, quantised, lambda unet: add_image_prompt(unet, 2, 8)]
)
def test_a_model_that_its_configuration_does_not_describe_is_built_each_time(builds, change):
    unet = image_unet()
    change(unet)
    loaded_graph(unet, None, SHAPE)
    loaded_graph(unet, None, SHAPE)
    assert len(builds) == 2 and not kept()
    assert isinstance(unet, UNet2DConditionModel)


def test_a_model_that_was_changed_since_has_its_own_graph_and_leaves_what_is_kept(builds):
    """One block has lost its attention; the configuration does not say so."""
    changed, whole = image_unet(), build_graph(image_unet(), None, SHAPE)
    del changed.down_blocks[0].attentions[0]
    for _ in range(2):
        assert len(loaded_graph(changed, None, SHAPE).layers) == len(whole.layers) - 1
        assert loaded_graph(image_unet(), None, SHAPE) == whole
    assert len(kept()) == 1


def test_a_layer_that_was_added_since_is_seen(builds):
    unet = image_unet()
    loaded_graph(unet, None, SHAPE)
    block = unet.down_blocks[0]
    block.resnets.append(block.resnets[0])
    with pytest.raises(AdapterError):
        loaded_graph(unet, None, SHAPE)
