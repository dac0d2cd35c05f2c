"""Distances that trained networks see, where their weights are present: LPIPS, CLIP score, Fréchet video
distance. Weights are folders that the user names; nothing is downloaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from ..errors import MissingExtraError, ModelError
from ..models.building import loading
from ..models.config_file import check_configs

Frames = NDArray[np.uint8]
Features = NDArray[np.float64]


def clip_score(frames: Frames, prompt: str, folder: Path) -> float:
    """100 times the mean cosine between frames (f H W 3) and prompt under a CLIP model (2104.08718), not
    below 0. ModelError where the folder holds none."""
    model, processor = _clip(folder)
    with torch.no_grad():
        seen = processor(
            text=[prompt], images=list(frames), return_tensors="pt", padding=True, truncation=True
        )
        out = model(**seen)
    cosines = (out.image_embeds @ out.text_embeds.T).flatten()  # both have length 1
    return max(0.0, 100 * float(cosines.mean()))


def video_features(frames: Frames, folder: Path) -> Features:
    """The mean token (d) of a clip (f H W 3) under a VideoMAE model (2203.12602), its frames spread over
    as many as the model takes. ModelError where the folder holds none."""
    model, processor = _video(folder)
    wanted = np.linspace(0, len(frames) - 1, model.config.num_frames).round().astype(int)
    with torch.no_grad():
        seen = processor(list(frames[wanted]), return_tensors="pt")
        tokens = model(seen["pixel_values"]).last_hidden_state
    mean: Features = tokens.mean(1)[0].double().numpy()
    return mean


def frechet_distance(found: Features, reference: Features) -> float:
    """Fréchet distance (Heusel et al. 1706.08500, eq. 6) between two sets of features (clips d).

    With the features of clips it is the Fréchet video distance, here on VideoMAE as 2404.12391 advises.
    Of few clips it is biased upwards: compare it between rows of one run only.
    """
    apart = found.mean(0) - reference.mean(0)
    own, other = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (found, reference))
    # The product of two positive semi-definite matrices has real eigenvalues, none below 0.
    roots = np.sqrt(np.clip(np.linalg.eigvals(own @ other).real, 0, None)).sum()
    return max(0.0, float(apart @ apart + np.trace(own) + np.trace(other) - 2 * roots))


def lpips(frames: Frames, reference: Frames) -> float:
    """LPIPS (1801.03924, AlexNet) between clips (f H W 3), the mean over frames.

    MissingExtraError where torchmetrics or torchvision, which brings the network, is not installed.
    """
    try:
        from torchmetrics.functional.image import (
            learned_perceptual_image_patch_similarity as metric,
        )

        return float(metric(_unit(frames), _unit(reference), net_type="alex", normalize=True))
    except (
        ImportError,
        OSError,
    ) as error:  # an OSError: AlexNet's weights are not in torch's cache
        raise MissingExtraError(
            f"LPIPS needs torchmetrics, torchvision and AlexNet's weights ({str(error).splitlines()[0]}); "
            "install them, or leave --lpips out"
        ) from error


def _unit(frames: Frames) -> torch.Tensor:
    return (
        rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "f h w c -> f c h w").float()
        / 255
    )


@lru_cache(maxsize=1)
def _clip(folder: Path) -> tuple[Any, Any]:
    from transformers import CLIPModel, CLIPProcessor

    return _load(folder, CLIPModel, CLIPProcessor)


@lru_cache(maxsize=1)
def _video(folder: Path) -> tuple[Any, Any]:
    from transformers import VideoMAEImageProcessor, VideoMAEModel

    return _load(folder, VideoMAEModel, VideoMAEImageProcessor)


def _load(folder: Path, *kinds: Any) -> tuple[Any, Any]:
    model_kind, processor_kind = kinds
    check_configs(folder)
    try:
        with loading():
            model = model_kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        processor = processor_kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f'"{folder}" holds no {model_kind.__name__} with safetensors weights: '
            f"{str(error).splitlines()[0]}"
        ) from error
    return model.eval(), processor
