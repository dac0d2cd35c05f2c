"""Small random models of the stock classes, with nothing left at zero that would hide a mistake."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from diffusers import (
    ControlNetModel,
    MultiControlNetModel,
    UNet2DConditionModel,
    UNetMotionModel,
    UNetSpatioTemporalConditionModel,
)

from hgc_video.cache.residual_inputs import residual_inputs
from hgc_video.models.svd_controlnet import SpatioTemporalControlNetModel
from hgc_video.plan.clip_shape import ClipShape

TOKENS, TEXT_WIDTH, FRAMES, SIZE = 7, 16, 3, 8


def motion_unet(motion_mid: bool = True, layers: int = 1) -> UNetMotionModel:
    torch.manual_seed(0)
    return UNetMotionModel(
        sample_size=SIZE, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=layers,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"), cross_attention_dim=TEXT_WIDTH,
        num_attention_heads=2, motion_num_attention_heads=2, motion_max_seq_length=8,
        use_motion_mid_block=motion_mid,
    ).eval()  # fmt: skip


def image_unet(layers: int = 1) -> UNet2DConditionModel:
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=SIZE, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=layers,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
    ).eval()  # fmt: skip


def controlnet(layers: int = 1) -> ControlNetModel:
    """A fresh ControlNet ends in zero convolutions; these are not zero."""
    torch.manual_seed(2)
    model = ControlNetModel(
        in_channels=4, block_out_channels=(32, 64), layers_per_block=layers,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2, conditioning_embedding_out_channels=(8, 16),
    ).eval()  # fmt: skip
    return _not_silent(model)


def _not_silent(model: ControlNetModel) -> ControlNetModel:
    zero = [
        *model.controlnet_down_blocks,
        model.controlnet_mid_block,
        model.controlnet_cond_embedding.conv_out,
    ]
    for conv in zero:
        torch.nn.init.normal_(conv.weight, std=0.2)
    return model


def multi_controlnet() -> MultiControlNetModel:
    """Two different ones."""
    second = controlnet()
    for conv in second.controlnet_down_blocks:
        torch.nn.init.normal_(conv.weight, std=0.3)
    return MultiControlNetModel([controlnet(), second])


SDXL = {
    "in_channels": 4, "block_out_channels": (32, 64), "layers_per_block": 1, "attention_head_dim": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "cross_attention_dim": TEXT_WIDTH,
    "transformer_layers_per_block": (1, 2), "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 16 + 6 * 8,
    "use_linear_projection": True,
}  # fmt: skip


def sdxl_unet() -> UNet2DConditionModel:
    torch.manual_seed(3)
    return UNet2DConditionModel(
        **SDXL, sample_size=SIZE, up_block_types=("CrossAttnUpBlock2D", "UpBlock2D")
    ).eval()


def sdxl_controlnet() -> ControlNetModel:
    torch.manual_seed(4)
    return _not_silent(ControlNetModel(**SDXL, conditioning_embedding_out_channels=(8, 16)).eval())


def svd_unet() -> UNetSpatioTemporalConditionModel:
    torch.manual_seed(6)
    return UNetSpatioTemporalConditionModel(
        sample_size=SIZE, in_channels=8, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=TEXT_WIDTH, num_attention_heads=(2, 4), num_frames=FRAMES,
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=24,
    ).eval()  # fmt: skip


def svd_controlnet() -> SpatioTemporalControlNetModel:
    net = SpatioTemporalControlNetModel.from_unet(svd_unet(), (8, 16))
    torch.manual_seed(8)
    return _not_silent(net)


class Clip:
    """Inputs of a tiny guided run, uncond first, and the step that a pipeline would make of them."""

    def __init__(self, unet, net, *, guided: bool = True) -> None:
        generator = torch.Generator().manual_seed(5)
        self.unet, self.controlnet, self.branches = unet, net, 2 if guided else 1
        self.latents = torch.randn(1, 4, FRAMES, SIZE, SIZE, generator=generator)
        text = torch.randn(self.branches, TOKENS, TEXT_WIDTH, generator=generator)
        self.text = text.repeat_interleave(FRAMES, 0)
        hint = torch.rand(FRAMES, 3, 2 * SIZE, 2 * SIZE, generator=generator)
        self.hint = hint.repeat(self.branches, 1, 1, 1)
        self.timesteps = torch.tensor([900, 700, 500, 300, 100])
        self.pooled = torch.randn(self.branches, 16, generator=generator).repeat_interleave(
            FRAMES, 0
        )
        self.tokens = TOKENS

    @torch.no_grad()
    def step(self, t, scale: float = 0.7):
        """Both branches' predictions at t."""
        sample = self.latents.repeat(self.branches, 1, 1, 1, 1) * (0.5 + t / 1000)
        flat = sample.transpose(1, 2).flatten(0, 1)
        down = mid = added = None
        if getattr(self.unet.config, "addition_embed_type", None) == "text_time":
            ids = torch.arange(6.0).repeat(len(flat), 1)
            added = {"text_embeds": self.pooled, "time_ids": ids}
        if self.controlnet is not None:
            several = isinstance(self.controlnet, MultiControlNetModel)
            down, mid = self.controlnet(
                flat, t, encoder_hidden_states=self.text,
                controlnet_cond=[self.hint, self.hint.flip(-1)] if several else self.hint,
                conditioning_scale=[scale, 0.5] if several else scale, return_dict=False,
                added_cond_kwargs=added,
            )  # fmt: skip
        is_motion = isinstance(getattr(self.unet, "_orig_mod", self.unet), UNetMotionModel)
        return self.unet(
            sample if is_motion else flat, t, encoder_hidden_states=self.text,
            down_block_additional_residuals=down, mid_block_additional_residual=mid,
            added_cond_kwargs=added,
        ).sample  # fmt: skip

    def run(self, engine=None):
        """The predictions of all timesteps, with the position told to an engine if there is one."""
        outputs = []
        for i, t in enumerate(self.timesteps):
            if engine is not None:
                engine.at(i)
            outputs.append(self.step(t))
        return outputs


class ImageClip(Clip):
    """Inputs of a tiny guided run of the image-to-video UNet: one context token, latents (b f c h w)."""

    def __init__(self, unet, net=None) -> None:
        generator = torch.Generator().manual_seed(7)
        self.unet, self.controlnet, self.branches = unet, net, 2
        self._wrapped = ExitStack()
        if net is not None:
            self._wrapped.enter_context(residual_inputs(unet))
        self.latents = torch.randn(1, FRAMES, 8, SIZE, SIZE, generator=generator)
        self.text = torch.randn(2, 1, TEXT_WIDTH, generator=generator)
        hint = torch.rand(1, FRAMES, 3, 2 * SIZE, 2 * SIZE, generator=generator)
        self.hint = hint.repeat(2, 1, 1, 1, 1)
        self.timesteps = torch.tensor([900, 700, 500, 300, 100])
        self.tokens = 1

    @torch.no_grad()
    def step(self, t, scale: float = 0.7):
        """Both branches' predictions at t."""
        sample = self.latents.repeat(2, 1, 1, 1, 1) * (0.5 + t / 1000)
        given = {
            "encoder_hidden_states": self.text,
            "added_time_ids": torch.tensor([[6, 127, 0.02]] * 2),
        }
        if self.controlnet is None:
            return self.unet(sample, t, **given).sample
        down, mid = self.controlnet(
            sample,
            t,
            **given,
            controlnet_cond=self.hint,
            conditioning_scale=scale,
            return_dict=False,
        )
        return self.unet(
            sample,
            t,
            **given,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample


def graph_of(clip: Clip):
    """The block graph of a tiny clip."""
    from hgc_video.models.graph_builder import build_graph

    return build_graph(
        clip.unet, clip.controlnet, ClipShape(FRAMES, SIZE, SIZE, clip.tokens, clip.branches)
    )


CLIPS = {
    "motion": lambda: Clip(motion_unet(), controlnet()),
    "without motion in the middle": lambda: Clip(motion_unet(False), controlnet()),
    "image": lambda: Clip(image_unet(), controlnet()),
    "two controlnets": lambda: Clip(motion_unet(), multi_controlnet()),
    "sdxl": lambda: Clip(sdxl_unet(), sdxl_controlnet()),
    "svd": lambda: ImageClip(svd_unet()),
    "svd with a controlnet": lambda: ImageClip(svd_unet(), svd_controlnet()),
}


def group_offloads_here() -> bool:
    """Whether diffusers offloads groups of layers on this machine: 0.40 asks for an accelerator."""
    from diffusers.hooks import apply_group_offloading

    device = torch.device("cpu")
    try:
        apply_group_offloading(torch.nn.Linear(1, 1), device, offload_type="leaf_level")
    except AttributeError:
        return False
    return True
