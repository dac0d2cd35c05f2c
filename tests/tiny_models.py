"""Small random models of the stock classes, with nothing left at zero that would hide a mistake."""

from __future__ import annotations

import torch
from diffusers import ControlNetModel, UNet2DConditionModel, UNetMotionModel

TOKENS, TEXT_WIDTH, FRAMES, SIZE = 7, 16, 3, 8


def motion_unet(motion_mid: bool = True) -> UNetMotionModel:
    torch.manual_seed(0)
    return UNetMotionModel(
        sample_size=SIZE, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=2,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"), cross_attention_dim=TEXT_WIDTH,
        num_attention_heads=2, motion_num_attention_heads=2, motion_max_seq_length=8,
        use_motion_mid_block=motion_mid,
    ).eval()  # fmt: skip


def image_unet() -> UNet2DConditionModel:
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=SIZE, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
    ).eval()  # fmt: skip


def controlnet() -> ControlNetModel:
    """A fresh ControlNet ends in zero convolutions; these are not zero."""
    torch.manual_seed(2)
    model = ControlNetModel(
        in_channels=4, block_out_channels=(32, 64), layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2, conditioning_embedding_out_channels=(8, 16),
    ).eval()  # fmt: skip
    zero = [
        *model.controlnet_down_blocks,
        model.controlnet_mid_block,
        model.controlnet_cond_embedding.conv_out,
    ]
    for conv in zero:
        torch.nn.init.normal_(conv.weight, std=0.2)
    return model


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

    @torch.no_grad()
    def step(self, t, scale: float = 0.7):
        """Both branches' predictions at t."""
        sample = self.latents.repeat(self.branches, 1, 1, 1, 1) * (0.5 + t / 1000)
        flat = sample.transpose(1, 2).flatten(0, 1)
        down = mid = None
        if self.controlnet is not None:
            down, mid = self.controlnet(
                flat, t, encoder_hidden_states=self.text, controlnet_cond=self.hint,
                conditioning_scale=scale, return_dict=False,
            )  # fmt: skip
        is_motion = isinstance(self.unet, UNetMotionModel)
        return self.unet(
            sample if is_motion else flat, t, encoder_hidden_states=self.text,
            down_block_additional_residuals=down, mid_block_additional_residual=mid,
        ).sample  # fmt: skip

    def run(self, engine=None):
        """The predictions of all timesteps, with the position told to an engine if there is one."""
        outputs = []
        for i, t in enumerate(self.timesteps):
            if engine is not None:
                engine.at(i)
            outputs.append(self.step(t))
        return outputs


def graph_of(clip: Clip):
    """The block graph of a tiny clip."""
    from hgc_video.models.graph import build_graph

    return build_graph(
        clip.unet, clip.controlnet, num_frames=FRAMES, height=SIZE, width=SIZE, num_tokens=TOKENS,
        branches=clip.branches,
    )  # fmt: skip
