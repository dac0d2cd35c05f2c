"""What our loop needs of a stock pipeline, by the pipeline's own methods: what steers a clip, its first
latents, its frames, and what the parts beside the loop cost.

`adapter_of` tells which kind a pipeline is: one that reads a prompt (AnimateDiff), or one that begins with
an image (Stable Video Diffusion). Neither runs the loop.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import NumericalError, warn
from ..measure.macs import module_macs
from ..media.frames import Frames
from ..options import GenerateOptions, ImageMotion
from .conditioning import Conditioning, ControlFrames, ImageConditioning, TextConditioning
from .prompts import encode_text, num_tokens
from .restyle import restyled_latents, restyling_steps


@dataclass(frozen=True)
class RunInputs:
    """What a run is given: its options, frames of height x width pixels, control clips (f 3 H W) uint8, and
    where it has them the image that it begins with (H W 3), the video that it restyles (f H W 3), and the
    picture that it is to look like (H W 3)."""

    options: GenerateOptions
    num_frames: int
    height: int
    width: int
    controlnet_cond: tuple[ControlFrames, ...]
    image: NDArray[np.uint8] | None = None
    video: Frames | None = None
    picture: NDArray[np.uint8] | None = None

    @property
    def guidance_scale(self) -> float:
        """The strength of classifier-free guidance."""
        return float(self.options.guidance_scale or 0)

    @property
    def guided(self) -> bool:
        """Whether an unconditional branch is computed."""
        return self.options.branches == 2

    def generator(self) -> torch.Generator:
        """The seed's, on the CPU, so that all devices draw the same noise."""
        return torch.Generator(device="cpu").manual_seed(self.options.seed or 0)


class PipelineAdapter(ABC):
    """A stock pipeline that our loop runs the models of.

    `frames_axis` is where its latents have their frames; `encoders` are the models that read the prompt
    or the image.
    """

    frames_axis: int

    def __init__(self, pipe: Any, options: GenerateOptions | None = None) -> None:
        self.pipe, self.options = pipe, options
        self._exceeds_float16 = False  # whether the VAE was seen to

    @property
    def num_tokens(self) -> int:
        """Tokens that the models read."""
        return 1  # an image

    def timesteps(self, num_inference_steps: int) -> Tensor:
        """The timesteps of a run, set anew; of a video that is restyled the last ones alone."""
        scheduler = self.pipe.scheduler
        scheduler.set_timesteps(num_inference_steps, device=self.pipe.device)
        timesteps: Tensor = scheduler.timesteps
        return timesteps

    @property
    @abstractmethod
    def encoders(self) -> list[Any]:
        """The models that read what the clip is to be."""

    @abstractmethod
    def decoded_at_once(self, num_frames: int) -> int:
        """Frames that are decoded together where memory does not matter, as the pipeline's own default."""

    @abstractmethod
    def encode(
        self, take: RunInputs, timesteps: Tensor
    ) -> tuple[Conditioning, Tensor, dict[str, Any]]:
        """What steers the clip, its first latents, and options of the scheduler's step."""

    def decode(self, latents: Tensor, at_once: int) -> NDArray[np.uint8]:
        """Frames (f H W 3) uint8 of latents, so many of them at once.

        Where the VAE's values exceed float16, it decodes in float32 from there on, one frame at a time if
        frames do not depend on each other, and a warning says so. NumericalError where that does not help.
        """
        chunks = latents.split(at_once, dim=self.frames_axis)
        return np.concatenate([self._pixels(chunk) for chunk in chunks])

    def _pixels(self, latents: Tensor) -> NDArray[np.uint8]:
        process = self.pipe.video_processor.postprocess_video
        pixels = process(video=self._finite_video(latents), output_type="np")[0]
        return np.asarray(np.round(pixels * 255), np.uint8)

    def _finite_video(self, latents: Tensor) -> Tensor:
        """Pixels (1 3 f H W) of latents, in float32 where float16 does not hold the VAE's values."""
        vae = self.pipe.vae
        if not self._exceeds_float16:
            video = self._video(latents)
            if video.isfinite().all():
                return video
            self._exceeds_float16 = vae.dtype == torch.float16
            if self._exceeds_float16:
                warn(
                    "the VAE's values exceed float16, so it decodes in float32; bfloat16 holds them"
                )
        if self._exceeds_float16:
            with _in_float(vae, True):
                singly = latents.float().split(self._least_at_once(latents), dim=self.frames_axis)
                video = torch.cat([self._video(frames) for frames in singly], dim=2)
            if video.isfinite().all():
                return video
        dtype = "float32" if self._exceeds_float16 else str(vae.dtype).removeprefix("torch.")
        raise NumericalError(
            f"the VAE decodes finite latents to NaN or infinite values in {dtype}; its weights are damaged "
            "or not the model's"
        )

    def _least_at_once(self, latents: Tensor) -> int:
        """The fewest frames that decode to what all of these together do."""
        return latents.shape[self.frames_axis]

    @abstractmethod
    def _video(self, latents: Tensor) -> Tensor:
        """Pixels (1 3 f H W) of latents, all at once."""

    @abstractmethod
    def other_macs(self, take: RunInputs) -> dict[str, int]:
        """MACs of the parts that no schedule touches."""


class TextHost(PipelineAdapter):
    """An AnimateDiff pipeline, of SD1.5 or SDXL: latents (b c f h w)."""

    frames_axis = 2

    @property
    def encoders(self) -> list[Any]:
        found = [self.pipe.text_encoder, getattr(self.pipe, "text_encoder_2", None)]
        return [encoder for encoder in found if encoder is not None]

    def decoded_at_once(self, num_frames: int) -> int:
        return 16

    @cached_property
    def num_tokens(self) -> int:
        return num_tokens(self.pipe, self.options)

    def timesteps(self, num_inference_steps: int) -> Tensor:
        timesteps, options = super().timesteps(num_inference_steps), self.options
        if options is None or options.video is None:
            return timesteps
        return restyling_steps(self.pipe, timesteps, num_inference_steps, options.strength)

    def encode(
        self, take: RunInputs, timesteps: Tensor
    ) -> tuple[Conditioning, Tensor, dict[str, Any]]:
        pipe, options, generator = self.pipe, take.options, take.generator()
        text = encode_text(
            pipe, options, take.num_frames, take.height, take.width, guided=take.guided
        )
        if take.video is None:
            latents = pipe.prepare_latents(
                1, pipe.unet.config.in_channels, take.num_frames, take.height, take.width,
                text.prompt_embeds.dtype, pipe.device, generator, None,
            )  # fmt: skip
        else:
            latents = restyled_latents(pipe, take.video, timesteps, generator)
        guidance = TextConditioning(
            text.prompt_embeds, take.controlnet_cond, take.guidance_scale, options.scales,
            options.control_guidance_start, options.control_guidance_end, text.added,
            self._pictures(take),
        )  # fmt: skip
        return guidance, latents, pipe.prepare_extra_step_kwargs(generator, 0.0)

    def _pictures(self, take: RunInputs) -> tuple[Tensor, ...]:
        """What the IP-Adapter reads (branches 1 d), or (branches 1 n d), uncond first."""
        if take.picture is None:
            return ()
        picture = Image.fromarray(take.picture)
        prepare = self.pipe.prepare_ip_adapter_image_embeds
        return tuple(prepare(picture, None, self.pipe.device, 1, take.guided))

    def _least_at_once(self, latents: Tensor) -> int:
        return 1

    def _video(self, latents: Tensor) -> Tensor:
        decode = self.pipe.decode_latents
        # SDXL's decodes all that it is given at once.
        chunked = "decode_chunk_size" in inspect.signature(decode).parameters
        video: Tensor = decode(latents, latents.shape[2]) if chunked else decode(latents)
        return video

    def other_macs(self, take: RunInputs) -> dict[str, int]:
        pipe, factor = self.pipe, self.pipe.vae_scale_factor
        at_once = int(pipe.tokenizer.model_max_length)
        tokens = torch.zeros(1, at_once, dtype=torch.long, device="meta")
        shape = (1, pipe.unet.config.in_channels, take.height // factor, take.width // factor)
        per_frame = module_macs(pipe.vae, _meta(*shape), method="decode")
        if take.video is not None:
            pixels = _meta(1, 3, take.height, take.width)
            per_frame += module_macs(pipe.vae, pixels, method="encode")
        texts = self._num_texts(take) * (self.num_tokens // at_once)
        seen = {} if take.picture is None else {"image_encoder": self._picture_macs(take)}
        return {
            "text_encoder": texts * sum(module_macs(e, tokens) for e in self.encoders),
            **seen,
            "vae": per_frame * take.num_frames,
        }

    def _num_texts(self, take: RunInputs) -> int:
        """Texts that are encoded; SDXL has zeros for a negative prompt that is not given."""
        options = take.options
        zeros = self.pipe.config.get("force_zeros_for_empty_prompt", False)
        is_left_out = zeros and options.negative_prompt is None and options.prompt_syntax == "plain"
        return 2 if take.guided and not is_left_out else 1

    def _picture_macs(self, take: RunInputs) -> int:
        """Of the image encoder; some IP-Adapters have it read an empty picture as well."""
        encoder = self.pipe.image_encoder
        side = encoder.config.image_size
        layers = self.pipe.unet.encoder_hid_proj.image_projection_layers
        plain = all(type(layer).__name__ == "ImageProjection" for layer in layers)
        return module_macs(encoder, _meta(1, 3, side, side)) * (
            1 if plain or not take.guided else 2
        )


class ImageHost(PipelineAdapter):
    """Stable Video Diffusion (2311.15127): latents (b f c h w), a first image for the whole clip.

    The image is read twice: by CLIP, and by the VAE with a little noise on it, whose latents every frame
    gets beside its own. Frame rate, motion and that noise condition the UNet.
    """

    frames_axis = 1

    @property
    def encoders(self) -> list[Any]:
        return [self.pipe.image_encoder]

    def decoded_at_once(self, num_frames: int) -> int:
        return num_frames  # its decoder mixes the frames that it is given together

    def encode(
        self, take: RunInputs, timesteps: Tensor
    ) -> tuple[Conditioning, Tensor, dict[str, Any]]:
        pipe, options, generator = self.pipe, take.options, take.generator()
        assert take.image is not None  # the options were checked
        image, motion = Image.fromarray(take.image), options.image_motion
        embeds = pipe._encode_image(image, pipe.device, 1, take.guided)
        image_latents = self._image_latents(image, take, generator).to(embeds.dtype)
        ids = pipe._get_add_time_ids(
            motion.fps - 1, motion.motion_bucket_id, motion.noise_aug_strength, embeds.dtype, 1, 1,
            take.guided,
        ).to(pipe.device)  # fmt: skip
        latents = pipe.prepare_latents(
            1, take.num_frames, pipe.unet.config.in_channels, take.height, take.width, embeds.dtype,
            pipe.device, generator,
        )  # fmt: skip
        pull = _growing(motion, take.guidance_scale, take.num_frames).to(latents)
        guidance = ImageConditioning(
            embeds, image_latents[:, None], ids, take.controlnet_cond, pull, options.scales,
            options.control_guidance_start, options.control_guidance_end,
        )  # fmt: skip
        return guidance, latents, {}

    def _image_latents(
        self, image: Image.Image, take: RunInputs, generator: torch.Generator
    ) -> Tensor:
        """Latents (2 c h w) of the image with noise on it, zeros for the first branch."""
        from diffusers.utils.torch_utils import randn_tensor

        pipe = self.pipe
        pixels = pipe.video_processor.preprocess(image, height=take.height, width=take.width)
        pixels = pixels.to(pipe.device)
        noise = randn_tensor(
            pixels.shape, generator=generator, device=pipe.device, dtype=pixels.dtype
        )
        pixels = pixels + take.options.image_motion.noise_aug_strength * noise
        with _in_float(pipe.vae, pipe.vae.config.force_upcast):
            made: Tensor = pipe._encode_vae_image(pixels, pipe.device, 1, take.guided)
        return made

    def _video(self, latents: Tensor) -> Tensor:
        count = latents.shape[1]
        video: Tensor = self.pipe.decode_latents(latents, count, count)
        return video

    def other_macs(self, take: RunInputs) -> dict[str, int]:
        pipe, factor, f = self.pipe, self.pipe.vae_scale_factor, take.num_frames
        side = pipe.image_encoder.config.image_size
        channels = pipe.vae.config.latent_channels
        size = (f, channels, take.height // factor, take.width // factor)
        seen, pixels = _meta(1, 3, side, side), _meta(1, 3, take.height, take.width)
        decoded = module_macs(pipe.vae, _meta(*size), num_frames=f, method="decode")
        return {
            "image_encoder": module_macs(pipe.image_encoder, seen),
            "vae": module_macs(pipe.vae, pixels, method="encode") + decoded,
        }


def adapter_of(pipe: Any, options: GenerateOptions | None = None) -> PipelineAdapter:
    """The kind that a pipeline is; `options` are those of a run."""
    kind = TextHost if hasattr(pipe, "text_encoder") else ImageHost
    return kind(pipe, options)


def _growing(motion: ImageMotion, guidance_scale: float, num_frames: int) -> Tensor:
    """The pull (1 f 1 1 1) of every frame, from the first one's to the last one's."""
    lowest = min(motion.min_guidance_scale, guidance_scale)
    return torch.linspace(lowest, guidance_scale, num_frames).view(1, -1, 1, 1, 1)


@contextmanager
def _in_float(vae: Any, overflows: bool) -> Iterator[None]:
    """Has a VAE in float16 that overflows run in float32."""
    overflows = overflows and vae.dtype == torch.float16
    if overflows:
        vae.to(dtype=torch.float32)
    try:
        yield
    finally:
        if overflows:
            vae.to(dtype=torch.float16)


def _meta(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device="meta")
