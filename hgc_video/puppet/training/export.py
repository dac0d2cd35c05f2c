"""Writes the trained parts as one diffusers folder, half precision, safetensors.

The text encoder alone stays in single precision: transformers loads weights as they are stored,
diffusers in single precision, and a pipeline of both would stop at its first product.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AnimateDiffControlNetPipeline, AutoencoderKL, ControlNetModel, UNetMotionModel
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from .denoiser import make_scheduler

_SHARD = "16MB"  # so that no file of the repository grows beyond it


def export(
    target: Path,
    *,
    unet: UNetMotionModel,
    controlnets: dict[str, ControlNetModel],
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Saves every part below `target`; `controlnet_<kind>` is the folder of each ControlNet.

    `model_index.json` names no ControlNet: the caller picks one and passes it to `from_pretrained`.
    """
    parts = {"unet": unet, "vae": vae, **{f"controlnet_{k}": c for k, c in controlnets.items()}}
    for name, module in parts.items():
        half = type(module).from_config(module.config)
        half.load_state_dict(module.state_dict())
        half.to(torch.float16).save_pretrained(target / name, max_shard_size=_SHARD)
    encoder = CLIPTextModel(text_encoder.config)
    encoder.load_state_dict(text_encoder.state_dict())
    encoder.save_pretrained(target / "text_encoder", max_shard_size=_SHARD)
    tokenizer.save_pretrained(target / "tokenizer")
    make_scheduler().save_pretrained(target / "scheduler")
    (target / "model_index.json").write_text(json.dumps(_index(), indent=2) + "\n")


def _index() -> dict[str, object]:
    return {
        "_class_name": AnimateDiffControlNetPipeline.__name__,
        "_diffusers_version": "0.42.1",
        "controlnet": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "motion_adapter": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "unet": ["diffusers", "UNetMotionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
