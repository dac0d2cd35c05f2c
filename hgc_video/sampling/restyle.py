"""Video to video: the latents that a clip's own frames give, with noise, and the steps that are left.

As AnimateDiffVideoToVideoPipeline does it, by its own methods (SDEdit, 2108.01073).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..media.frames import Frames

_AT_ONCE = 16  # frames, as the stock pipeline encodes them


def restyling_steps(
    pipe: Any, timesteps: Tensor, num_inference_steps: int, strength: float
) -> Tensor:
    """The last timesteps of a run, a share of `strength`. InputError where none is left."""
    cut: Tensor = _stock(pipe).get_timesteps(num_inference_steps, timesteps, strength, pipe.device)[
        0
    ]
    if not len(cut):
        raise InputError(
            f"strength={strength} of {num_inference_steps} steps leaves no step; give "
            f"{1 / num_inference_steps:.3g} or more"
        )
    return cut


def restyled_latents(
    pipe: Any, video: Frames, timesteps: Tensor, generator: torch.Generator
) -> Tensor:
    """Latents (1 c f h w) of a video (f H W 3) with the noise of the first of `timesteps`; the frames are
    encoded a few at a time, so that only their latents are there as a whole."""
    from diffusers.utils.torch_utils import randn_tensor

    stock, dtype, vae = _stock(pipe), pipe.unet.dtype, pipe.vae
    upcast = vae.config.force_upcast and vae.dtype != torch.float32
    if upcast:  # it overflows in half precision
        vae.to(dtype=torch.float32)
    chunks = []
    for start in range(0, video.shape[0], _AT_ONCE):
        frames = np.asarray(video[start : start + _AT_ONCE])
        images = [Image.fromarray(frame) for frame in frames]
        pixels = stock.video_processor.preprocess_video(images)[0].transpose(0, 1)
        pixels = pixels.to(device=pipe.device, dtype=vae.dtype)
        chunks.append(stock.encode_video(pixels, generator, _AT_ONCE))
    if upcast:
        vae.to(dtype)
    # Frame by frame in memory, as the stock pipeline has them: the layout decides the last bits.
    clean = vae.config.scaling_factor * torch.cat(chunks)[None].contiguous().to(dtype)
    noise = randn_tensor(clean.shape, generator=generator, device=pipe.device, dtype=dtype)
    noisy: Tensor = pipe.scheduler.add_noise(clean, noise, timesteps[:1])
    return noisy.transpose(1, 2)


def _stock(pipe: Any) -> Any:
    """The stock pipeline for it around the same models; SDXL has none, and its VAE is used the same way."""
    from diffusers import AnimateDiffVideoToVideoPipeline

    return AnimateDiffVideoToVideoPipeline(
        vae=pipe.vae, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer, unet=pipe.unet,
        motion_adapter=None, scheduler=pipe.scheduler,
    )  # fmt: skip
