"""Control taken from a clip again, and what trained networks say, on networks made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hgc_video.errors import MissingExtraError, ModelError
from hgc_video.evaluate.control_fidelity import overlap
from hgc_video.evaluate.fidelity import Fidelity, fidelity
from hgc_video.evaluate.perceptual import clip_score, frechet_distance, lpips, video_features
from hgc_video.evaluate.table import markdown, rows
from hgc_video.models.load import model_folder
from tests.evaluate.test_compare import figure
from tests.shared_clips import DATA, needs_data

ROOT = Path(__file__).resolve().parents[2]


def drawn(columns):
    """A frame (1 64 64 3) with a vertical line in each of these columns."""
    frame = np.zeros((1, 64, 64, 3), np.uint8)
    frame[:, 10:50, list(columns)] = 255
    return frame


def test_skeletons_agree_where_their_lines_meet():
    line = drawn([20])
    assert overlap(line, line) == 1
    assert overlap(line, drawn([22])) == 1  # two pixels of 64 are within reach
    assert overlap(line, drawn([30])) == 0
    assert overlap(line, drawn([20, 40])) == pytest.approx(2 / 3)
    assert overlap(line, drawn([])) == 0
    assert overlap(drawn([]), drawn([])) == 1


@needs_data
def test_a_real_clip_keeps_to_its_own_control_and_not_to_another(detector):
    from hgc_video.evaluate.samples import SampleSet
    from hgc_video.media.video import read_frames
    from hgc_video.preprocess.extract import extract_control

    class Given:
        control = extract_control(DATA / "dance.mp4", num_frames=3, height=256, width=160)

    source = SampleSet("/models/other", DATA / "samples.yaml", 0, 1, 3)
    own = read_frames(DATA / "dance.mp4", indices=range(0, 6, 2))
    other = read_frames(DATA / "moonwalk.mp4", indices=range(0, 6, 2))
    kept = fidelity(source, 0, Given, own)
    assert kept.colours is None
    assert kept.control > 0.9
    assert fidelity(source, 0, Given, other).control < 0.6
    assert fidelity(source, 0, Given, np.zeros_like(own)).control == 0  # nobody is there


@pytest.fixture(scope="module")
def detector():
    return pytest.importorskip("mediapipe", reason='needs pip install "hgc_video[pose]"')


def test_other_controls_are_not_guessed():
    from hgc_video.evaluate.samples import SampleSet

    class Given:
        class control:
            kind = "depth"

    assert fidelity(SampleSet("/models/other", None, 0, 1, 1), 0, Given, drawn([3])) == Fidelity()


def test_the_frechet_distance_of_gaussians():
    draw = np.random.default_rng(0)
    one = draw.normal(0, 1, (4000, 3))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(one + np.array([3, 0, 0]), one) == pytest.approx(9, abs=1e-6)
    # Of N(0, 4) and N(0, 1) it is (2 - 1)^2 in every dimension.
    assert frechet_distance(2 * one, one) == pytest.approx(3, rel=0.05)
    few = draw.normal(0, 1, (3, 8))  # fewer clips than dimensions
    assert 0 <= frechet_distance(few, few) < 1e-6


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP model of random weights with the embedded model's tokenizer."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(model_folder("puppet") / "tokenizer")
    layers = {
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 16,
    }
    text = {**layers, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    vision = {**layers, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(
        folder
    )
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessor(**size), tokenizer).save_pretrained(folder)
    return folder


def test_the_clip_score_is_the_cosine_of_the_models_own_embeddings(clip_folder):
    from transformers import CLIPModel, CLIPProcessor

    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    prompts = ("a dancer in a red shirt", "a dancer on a beach", "a forest")
    found = [clip_score(frames, prompt, clip_folder) for prompt in prompts]
    assert len(set(found)) > 1 or max(found) == 0
    model, processor = (kind.from_pretrained(clip_folder) for kind in (CLIPModel, CLIPProcessor))
    seen = processor(text=[prompts[0]], images=list(frames), return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = model(**seen).logits_per_image / model.logit_scale.exp()
    assert found[0] == pytest.approx(max(0, 100 * logits.mean().item()), abs=1e-3)


def test_features_of_a_video_network(tmp_path):
    from transformers import VideoMAEConfig, VideoMAEImageProcessor, VideoMAEModel

    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    VideoMAEModel(config).save_pretrained(tmp_path)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    VideoMAEImageProcessor(**size).save_pretrained(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (7, 40, 40, 3), dtype=np.uint8)
    found = video_features(frames, tmp_path)
    assert found.shape == (16,)
    assert np.abs(found - video_features(frames[::-1], tmp_path)).max() > 1e-6  # time counts


def test_missing_networks_are_told(tmp_path):
    frames = drawn([3])
    with pytest.raises(ModelError, match="holds no CLIPModel"):
        clip_score(frames, "a dancer", tmp_path)
    with pytest.raises(ModelError, match="holds no VideoMAEModel"):
        video_features(frames, tmp_path)
    try:
        import torchvision  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="leave --lpips out"):
            lpips(frames, frames)


def test_what_networks_saw_has_columns_of_its_own():
    features = np.random.default_rng(0).normal(0, 1, (2, 4)).tolist()
    told = [
        figure("off", 0.0, 148, clip, features=features[clip], clip_score=20.0 + clip)
        for clip in (0, 1)
    ]
    told += [figure("fast", 0.7, 40, clip, features=features[1 - clip]) for clip in (0, 1)]
    found = {row.method: row for row in rows(told)}
    assert found["off"].means["clip_score"] == 20.5
    assert found["fast"].means["frechet"] == pytest.approx(0, abs=1e-6)  # the same set of clips
    head, _, *body = markdown(list(found.values())).splitlines()
    assert "| CLIP score | Fréchet video distance |" in head
    assert "LPIPS" not in head
    assert all(line.count("|") == head.count("|") for line in body)
