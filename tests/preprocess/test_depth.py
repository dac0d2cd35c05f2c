"""Depth by estimators of random weights for the plumbing, and by the one trained on puppet's own truth."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from hgc_video.errors import InputError, ModelError
from hgc_video.media.control import Placement
from hgc_video.preprocess import kept
from hgc_video.preprocess.base import Estimates
from hgc_video.preprocess.depth import Depth
from hgc_video.preprocess.extract import extract_control
from hgc_video.puppet.evaluation import held_out

OWN_SIZE = {"multiple": 1, "default_area": None}


def saved(folder, model, size=32):
    from transformers import DPTImageProcessorPil

    model.save_pretrained(folder)
    DPTImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def relative(tmp_path_factory):
    """A DPT of random weights, which gives nearness, as Depth Anything does."""
    from transformers import DPTConfig, DPTForDepthEstimation

    torch.manual_seed(0)
    config = DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32,
        patch_size=8, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8, is_hybrid=False,
    )  # fmt: skip
    model = DPTForDepthEstimation(config)
    with (
        torch.no_grad()
    ):  # as it is made, its last layer gives next to nothing, and zero below zero
        for name, weights in model.named_parameters():
            if weights.ndim > 1 and "embeddings" not in name:
                weights.mul_(10)
        model.head.head[4].bias.fill_(1.0)
    return saved(tmp_path_factory.mktemp("dpt"), model)


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    """A GLPN of random weights, which gives metres."""
    from transformers import GLPNConfig, GLPNForDepthEstimation

    torch.manual_seed(0)
    config = GLPNConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=8, mlp_ratios=[1, 1, 1, 1],
    )  # fmt: skip
    return saved(tmp_path_factory.mktemp("glpn"), GLPNForDepthEstimation(config))


def film(num_frames=3, height=48, width=64):
    return np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), np.uint8)


def test_a_local_folder_is_an_estimator(relative):
    control = extract_control(film(5), Depth(model=str(relative)), **OWN_SIZE)
    assert (control.kind, control.shape) == ("depth", (5, 48, 64))
    frames = control.frames
    assert (frames == frames[..., :1]).all() and np.ptp(frames) > 200, "grey, over the whole range"


def test_what_an_estimator_sees_is_what_transformers_own_pipeline_sees(relative):
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    frame = film(1)[0]
    (found,) = Depth(model=str(relative)).estimates([frame], 8)
    model = AutoModelForDepthEstimation.from_pretrained(relative).eval()
    inputs = AutoImageProcessor.from_pretrained(relative)(
        Image.fromarray(frame), return_tensors="pt"
    )
    with torch.no_grad():
        own = model(**inputs).predicted_depth[0].numpy()
    assert found.dtype == np.float16 and np.allclose(found, own, rtol=2e-3, atol=2e-3)


def test_metres_are_turned_round(metric):
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    frame = film(1)[0]
    (found,) = Depth(model=str(metric)).estimates([frame], 8)
    model = AutoModelForDepthEstimation.from_pretrained(metric).eval()
    inputs = AutoImageProcessor.from_pretrained(metric)(frame, return_tensors="pt")
    with torch.no_grad():
        metres = model(**inputs).predicted_depth[0].numpy()
    assert np.corrcoef(found.ravel(), metres.ravel())[0, 1] < -0.9


class Held(list):
    def read(self, start=0):
        return iter(self[start:])


def drawn(found: Estimates, fps=8, **given):
    place = Placement(16, 16, 16, 16)
    made = Depth(model="puppet", **given).drawn(Held(found), place, fps)
    return np.stack(list(made.frames(0)))[..., 0].astype(int)


def walk(num_frames=24):
    """A still room (nearness 1 to 2) into which something near (5) comes for a third of the time."""
    room = np.tile(np.linspace(1, 2, 16, dtype=np.float16), (16, 1))
    frames = np.stack([room] * num_frames)
    frames[8:16, 4:10, 4:10] = 5
    return list(frames)


def pumping(frames):
    """The largest change from one frame to the next where nothing moves, in levels."""
    return np.abs(np.diff(frames[:, 12:], axis=0)).mean((1, 2)).max()


def test_one_scale_for_the_clip_does_not_pump():
    per_frame = np.stack([drawn([one])[0] for one in walk()])
    assert pumping(per_frame) > 50, "a range for each frame does"
    assert pumping(drawn(walk())) == 0
    running = drawn(walk(), scale="running", window=2.0)
    assert pumping(running) < pumping(per_frame) / 4


def test_a_running_range_follows_a_shot_that_changes():
    near = [one * 4 for one in walk()[:8]] * 4
    far = walk()[:8] * 4
    whole, running = (drawn(far + near, scale=scale) for scale in ("clip", "running"))
    contrast = [np.ptp(frames[0]) for frames in (whole, running)]
    assert contrast[0] < 100 < 200 < contrast[1]
    passing = walk()
    passing[4] = passing[4] * 9  # one frame that was estimated wrong
    assert np.ptp(drawn(passing, scale="running")[20, 12]) > 100 > np.ptp(drawn(passing)[20, 12])


def test_the_scale_needs_no_new_estimate(relative):
    frames = film(4)
    extract_control(frames, Depth(model=str(relative)))
    count = len(kept.entries())
    extract_control(frames, Depth(model=str(relative), scale="running", cut=5, window=1))
    assert len(kept.entries()) == count
    (weights,) = {Depth(model=str(relative)).made_by()["weights"]}
    assert weights != Depth(model="puppet").made_by()["weights"]


@pytest.mark.parametrize(
    ("text", "says"),
    [("nobody/nothing-here", "as depth:model=FOLDER"), ("empty", "has no config.json")],
)
def test_an_estimator_that_is_not_there_is_told_before_anything_is_read(text, says, tmp_path):
    (tmp_path / "empty").mkdir()
    model = str(tmp_path / "empty") if text == "empty" else text
    with pytest.raises(ModelError, match=says) as told:
        extract_control("no-such-film.mp4", Depth(model=model), offline=True)
    assert "\n" not in str(told.value)


def test_a_folder_of_another_model_is_refused(tmp_path):
    from transformers import CLIPTextConfig, CLIPTextModel

    small = {
        "num_hidden_layers": 1,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_attention_heads": 1,
    }
    CLIPTextModel(CLIPTextConfig(vocab_size=8, **small)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded as a depth estimator"):
        extract_control(film(1), Depth(model=str(tmp_path)))


def test_scales_are_named():
    with pytest.raises(InputError, match="'clip' or 'running'"):
        Depth(scale="frame")


@pytest.fixture(scope="module")
def puppet_depth():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cases = [held_out(7100 + index, 6).truth for index in range(2)]
    made = [
        extract_control(truth.frames, Depth(model="puppet"), **OWN_SIZE).frames for truth in cases
    ]
    return made, cases


def levels(frames):
    """Grey levels 0..1, brought to the same mean and spread: what a scale and a shift do not change."""
    grey = frames[..., 0].astype(float)
    return (grey - grey.mean()) / grey.std()


def test_the_embedded_estimator_knows_puppets_depth(puppet_depth):
    for found, truth in zip(*puppet_depth, strict=True):
        same = np.corrcoef(levels(found).ravel(), levels(truth.depth).ravel())[0, 1]
        assert same > 0.75
        other = levels(truth.depth[::-1, :, ::-1]).ravel()
        assert np.corrcoef(levels(found).ravel(), other)[0, 1] < same - 0.2


def test_its_depth_does_not_pump(puppet_depth):
    """The change from frame to frame where the dancer never is, against the truth's, which is none."""
    for found, truth in zip(*puppet_depth, strict=True):
        still = ~truth.silhouette.any(0)
        change = np.abs(np.diff(found[..., 0].astype(int), axis=0))[:, still].mean()
        assert change < 6, "levels of 255"
