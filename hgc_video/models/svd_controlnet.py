"""A ControlNet for Stable Video Diffusion's UNet, of which diffusers has none.

The encoder half of UNetSpatioTemporalConditionModel, built from diffusers' own blocks, with a hint encoder
in front and a zero convolution behind every output (Zhang et al. 2302.05543). Parameters and
configuration are named as in the community's checkpoints (ControlNetSDVModel of
CiaraRowles/temporal-controlnet-depth-svd-v1), so that these load.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import AttentionMixin
from diffusers.models.controlnets.controlnet import (
    ControlNetConditioningEmbedding,
    ControlNetOutput,
    zero_module,
)
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_3d_blocks import UNetMidBlockSpatioTemporal, get_down_block
from einops import rearrange
from torch import Tensor, nn

from ..errors import AdapterError, InputError

_SHARED = (
    "sample_size", "in_channels", "out_channels", "down_block_types", "up_block_types",
    "block_out_channels", "addition_time_embed_dim", "projection_class_embeddings_input_dim",
    "layers_per_block", "cross_attention_dim", "transformer_layers_per_block", "num_attention_heads",
    "num_frames",
)  # fmt: skip
_COPIED = ("conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block")
_ACROSS = "CrossAttnDownBlockSpatioTemporal"


class SpatioTemporalControlNetModel(ModelMixin, AttentionMixin, ConfigMixin):  # type: ignore[misc]
    """Residuals for the skips and the middle of a UNetSpatioTemporalConditionModel, from a hint per frame.

    The configuration is that UNet's and two fields of ControlNetModel: `conditioning_channels` of the hint
    and `conditioning_embedding_out_channels` of its encoder, which halves the size once for each but the
    first. `out_channels`, `up_block_types`, `sample_size` and `num_frames` are read and not used.
    """

    _supports_gradient_checkpointing = True

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (_ACROSS, _ACROSS, _ACROSS, "DownBlockSpatioTemporal"),
        up_block_types: tuple[str, ...] = (
            "UpBlockSpatioTemporal", *("CrossAttnUpBlockSpatioTemporal",) * 3,
        ),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int | tuple[int, ...] = 2,
        cross_attention_dim: int | tuple[int, ...] = 1024,
        transformer_layers_per_block: int | tuple[int, ...] = 1,
        num_attention_heads: int | tuple[int, ...] = (5, 10, 20, 20),
        num_frames: int = 25,
        conditioning_channels: int = 3,
        conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256),
    ) -> None:  # fmt: skip
        super().__init__()
        count = len(down_block_types)
        layers = _each("layers_per_block", layers_per_block, count)
        heads = _each("num_attention_heads", num_attention_heads, count)
        contexts = _each("cross_attention_dim", cross_attention_dim, count)
        depths = _each("transformer_layers_per_block", transformer_layers_per_block, count)
        widths = _each("block_out_channels", block_out_channels, count)
        time_width = widths[0] * 4
        self.conv_in = nn.Conv2d(in_channels, widths[0], kernel_size=3, padding=1)
        self.time_proj = Timesteps(widths[0], True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(widths[0], time_width)
        self.add_time_proj = Timesteps(addition_time_embed_dim, True, downscale_freq_shift=0)
        self.add_embedding = TimestepEmbedding(projection_class_embeddings_input_dim, time_width)
        self.controlnet_cond_embedding = ControlNetConditioningEmbedding(
            widths[0], conditioning_channels, tuple(conditioning_embedding_out_channels)
        )
        self.down_blocks = nn.ModuleList()
        outputs = [widths[0]]  # channels of every tensor that is handed to a skip
        for i, kind in enumerate(down_block_types):
            last = i == count - 1
            block = get_down_block(
                kind, num_layers=layers[i], transformer_layers_per_block=depths[i],
                in_channels=widths[max(0, i - 1)], out_channels=widths[i], temb_channels=time_width,
                add_downsample=not last, resnet_eps=1e-5, resnet_act_fn="silu",
                cross_attention_dim=contexts[i], num_attention_heads=heads[i],
            )  # fmt: skip
            self.down_blocks.append(block)
            outputs += [widths[i]] * (layers[i] + (not last))
        self.mid_block = UNetMidBlockSpatioTemporal(
            widths[-1], temb_channels=time_width, transformer_layers_per_block=depths[-1],
            cross_attention_dim=contexts[-1], num_attention_heads=heads[-1],
        )  # fmt: skip
        self.controlnet_down_blocks = nn.ModuleList(_zero_conv(channels) for channels in outputs)
        self.controlnet_mid_block = _zero_conv(widths[-1])

    @classmethod
    def from_unet(
        cls, unet: Any, conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256),
        conditioning_channels: int = 3,
    ) -> Self:  # fmt: skip
        """A ControlNet to train, with the UNet's weights and zero convolutions, so that it adds nothing."""
        shared = {name: unet.config[name] for name in _SHARED if name in unet.config}
        made: Self = cls(
            **shared, conditioning_channels=conditioning_channels,
            conditioning_embedding_out_channels=conditioning_embedding_out_channels,
        )  # fmt: skip
        for name in _COPIED:
            getattr(made, name).load_state_dict(getattr(unet, name).state_dict())
        nn.Module.to(
            made, unet.device, unet.dtype
        )  # diffusers' own warns of what does not concern us
        made.train(unet.training)
        return made

    def forward(
        self, sample: Tensor, timestep: Tensor | float, encoder_hidden_states: Tensor,
        added_time_ids: Tensor, controlnet_cond: Tensor, conditioning_scale: float = 1.0,
        return_dict: bool = True,
    ) -> ControlNetOutput | tuple[tuple[Tensor, ...], Tensor]:  # fmt: skip
        """The residuals (b·f c h w), in the order of the UNet's skips, and the middle one.

        sample (b f c h w) as the UNet gets it, image latents included; encoder_hidden_states (b n d);
        added_time_ids (b 3); controlnet_cond (b f 3 H W) in -1..1; all times `conditioning_scale`.

        Raises:
            InputError: controlnet_cond is not of the sample's clips and frames.
        """
        if controlnet_cond.shape[:2] != sample.shape[:2] or controlnet_cond.ndim != 5:
            raise InputError(
                f"controlnet_cond has shape {tuple(controlnet_cond.shape)}; give (b f c H W) with the "
                f"sample's {sample.shape[0]} clips of {sample.shape[1]} frames"
            )
        clips, num_frames = sample.shape[:2]
        hidden = self.conv_in(rearrange(sample, "b f c h w -> (b f) c h w"))
        hint = rearrange(controlnet_cond, "b f c h w -> (b f) c h w")
        hidden = hidden + self.controlnet_cond_embedding(hint)
        given: dict[str, Any] = {
            "temb": _per_frame(self._time(timestep, added_time_ids, sample), num_frames),
            "image_only_indicator": torch.zeros(
                clips, num_frames, dtype=sample.dtype, device=sample.device
            ),
        }
        context = _per_frame(encoder_hidden_states, num_frames)
        outputs: tuple[Tensor, ...] = (hidden,)
        for block in self.down_blocks:
            reads = {"encoder_hidden_states": context} if hasattr(block, "attentions") else {}
            hidden, made = block(hidden_states=hidden, **given, **reads)
            outputs += made
        hidden = self.mid_block(hidden_states=hidden, encoder_hidden_states=context, **given)
        down = tuple(
            conv(output) * conditioning_scale
            for conv, output in zip(self.controlnet_down_blocks, outputs, strict=True)
        )
        mid = self.controlnet_mid_block(hidden) * conditioning_scale
        if not return_dict:
            return down, mid
        return ControlNetOutput(down_block_res_samples=down, mid_block_res_sample=mid)

    def _time(self, timestep: Tensor | float, added_time_ids: Tensor, sample: Tensor) -> Tensor:
        """The embedding (b d) of the timestep and of frame rate, motion and noise (b 3)."""
        t = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(len(sample))
        # Timesteps gives float32 whatever the model's dtype.
        embedded: Tensor = self.time_embedding(self.time_proj(t).to(sample.dtype))
        ids = self.add_time_proj(added_time_ids.flatten()).reshape(len(sample), -1)
        added: Tensor = self.add_embedding(ids.to(embedded.dtype))
        return embedded + added


def _per_frame(rows: Tensor, num_frames: int) -> Tensor:
    """Every clip's row for each of its frames; with the count given, CUDA need not wait for it."""
    return rows.repeat_interleave(num_frames, 0, output_size=len(rows) * num_frames)


def _each(name: str, value: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    """One value for each down block; AdapterError where their number is another."""
    values = (value,) * count if isinstance(value, int) else tuple(value)
    if len(values) != count:
        raise AdapterError(f"{name}={values} is not possible; give one number, or {count} of them")
    return values


def _zero_conv(channels: int) -> nn.Module:
    zeroed: nn.Module = zero_module(nn.Conv2d(channels, channels, kernel_size=1))
    return zeroed
