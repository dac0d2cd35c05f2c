"""How alike two clips are, frame by frame and over time; metrics of torchmetrics where it has them."""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ..errors import MissingExtraError

Frames = NDArray[np.uint8]
_SCALES = (0.25, 0.35, 0.4)  # weights of three scales: small frames have no more


def psnr(frames: Frames, reference: Frames) -> float:
    """Peak signal-to-noise ratio in dB over a whole clip (f H W 3)."""
    error = np.mean((frames.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(float(error), 1e-10)))


def ssim(frames: Frames, reference: Frames) -> float:
    """Mean structural similarity of the frames (f H W 3), Wang et al. 2004; 1 is the same."""
    metric = _torchmetrics("structural_similarity_index_measure")
    return float(metric(_images(frames), _images(reference), data_range=255.0))


def structure_distance(frames: Frames, reference: Frames) -> float:
    """One minus the multi-scale structural similarity over three scales (Wang et al. 2003): a distance of
    what is seen that needs no trained network. It is not LPIPS."""
    metric = _torchmetrics("multiscale_structural_similarity_index_measure")
    found = metric(
        _images(frames),
        _images(reference),
        data_range=255.0,
        betas=_SCALES,
        kernel_size=7,
        sigma=1.0,
    )
    return 1 - float(found)


def flicker(frames: Frames) -> float:
    """Mean absolute change (0..255) between neighbouring frames (f H W 3); motion is part of it."""
    if len(frames) < 2:
        return 0.0
    return float(np.abs(np.diff(frames.astype(np.float32), axis=0)).mean())


def _images(frames: Frames) -> Tensor:
    return rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "f h w c -> f c h w").float()


def _torchmetrics(name: str):  # type: ignore[no-untyped-def]
    try:
        from torchmetrics.functional import image
    except ImportError as error:
        raise MissingExtraError(
            'comparing clips needs torchmetrics; install it with pip install "hgc-video[eval]"'
        ) from error
    return getattr(image, name)
