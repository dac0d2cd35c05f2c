"""Trains UNet and ControlNets: single frames first, then clips with motion modules (AnimateDiff's recipe)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from .ahead import Ahead
from .data import CLIPS_PER_SHARD
from .graphed import GraphedLoss
from .latents import Batch, ClipSource
from .progress import Stage
from .text import WIDTH, tokenize
from .vae import LATENT_CHANNELS

CHANNELS = (64, 128, 96)
HEADS = (2, 4, 3)
HINT_CHANNELS = (8, 16, 32, 48)
MAX_FRAMES = 16
_AHEAD = 4  # batches that threads make while a GPU is at work
_MAX_SNR = 5.0  # above it a noise level counts less


def make_scheduler() -> DDIMScheduler:
    """v-prediction from pure noise (zero terminal SNR, Lin et al. 2305.08891) on a cosine schedule."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", rescale_betas_zero_snr=True,
        timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True,
    )  # fmt: skip


def make_unet() -> UNet2DConditionModel:
    """The spatial half of the UNet."""
    return UNet2DConditionModel(
        sample_size=16, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS,
        block_out_channels=CHANNELS, layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=HEADS, norm_num_groups=16,
    )  # fmt: skip


def make_controlnet() -> ControlNetModel:
    """A ControlNet of the same shape; its zero convolutions make it silent at first."""
    return ControlNetModel(
        in_channels=LATENT_CHANNELS, block_out_channels=CHANNELS, layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=HEADS, norm_num_groups=16,
        conditioning_embedding_out_channels=HINT_CHANNELS,
    )  # fmt: skip


def make_motion_adapter() -> MotionAdapter:
    """Motion modules at every level; silent at first, as their last projections start at zero."""
    adapter = MotionAdapter(
        block_out_channels=CHANNELS, motion_layers_per_block=2, motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=4, motion_norm_num_groups=32, motion_max_seq_length=MAX_FRAMES,
        use_motion_mid_block=True,
    )  # fmt: skip
    for name, module in adapter.named_modules():
        if name.endswith("proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return adapter


def level_weights(alphas_cumprod: Tensor) -> Tensor:
    """What the velocity's error counts at each noise level: 1 up to a signal-to-noise ratio of 5, less above.

    Min-SNR (Hang et al. 2303.09556) for v-prediction: what is left to find at low noise is mostly the
    noise itself, while structure and colour are decided above.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod).clamp(min=1e-6)
    return (snr.clamp(max=_MAX_SNR) + 1) / (snr + 1)


class Denoiser:
    """UNet, two ControlNets and a frozen text encoder on one device: the loss of a batch."""

    def __init__(
        self, unet: nn.Module, controlnets: dict[str, ControlNetModel],
        tokenizer: PreTrainedTokenizerFast, text_encoder: CLIPTextModel, device: str = "cpu",
    ) -> None:  # fmt: skip
        self.unet, self.controlnets, self.device = unet, controlnets, torch.device(device)
        self.tokenizer, self.text_encoder = tokenizer, text_encoder.requires_grad_(False).eval()
        self.scheduler = make_scheduler()
        for module in (unet, *controlnets.values(), text_encoder):
            nn.Module.to(module, self.device)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Weighted mean squared error of the predicted velocity; one noise level per clip."""
        return self.loss_of(self.inputs(batch, generator), batch.kind)

    def inputs(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """What a step reads, on the device: noisy latents, timesteps, text, control, and what the prediction
        is held against, with its weight. The random numbers are the CPU's, whatever the device is."""
        latents = batch.latents
        k, _, f, _, _ = latents.shape
        noise = torch.randn(latents.shape, generator=generator)
        offsets = (
            torch.arange(k) + torch.rand(k, generator=generator)
        ) / k  # spread evenly in a batch
        t = (offsets * self.scheduler.config.num_train_timesteps).long()
        noisy = self.scheduler.add_noise(latents, noise, t)
        target = self.scheduler.get_velocity(latents, noise, t)
        ids = tokenize(self.tokenizer, batch.prompts).to(self.device)
        with torch.no_grad():
            text = self.text_encoder(ids).last_hidden_state.repeat_interleave(f, 0)
        weight = level_weights(self.scheduler.alphas_cumprod[t])
        told = {"noisy": noisy, "t": t, "text": text, "target": target, "weight": weight}
        if batch.control is not None:
            told["control"] = batch.control
        return {name: value.to(self.device) for name, value in told.items()}

    def loss_of(self, inputs: dict[str, Tensor], kind: str) -> Tensor:
        """The loss of what `inputs` gave, with this kind of control."""
        on_cpu = self.device.type == "cpu"
        # The backward of fused attention takes longer on a CPU than that of plain products.
        backends = (
            [SDPBackend.MATH] if on_cpu else [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        )
        # A cast that is kept between steps must not be one of a recorded graph.
        cast = torch.autocast(self.device.type, torch.bfloat16, cache_enabled=on_cpu)
        with cast, sdpa_kernel(backends):
            predicted = self._predict(inputs, kind)
        errors = (predicted.float() - inputs["target"]).square().mean((1, 2, 3, 4))
        return (inputs["weight"] * errors).mean()

    def _predict(self, inputs: dict[str, Tensor], kind: str) -> Tensor:
        noisy, t, text = (inputs[name] for name in ("noisy", "t", "text"))
        k, c, f, h, w = noisy.shape
        flat = noisy.transpose(1, 2).reshape(k * f, c, h, w)
        residuals: dict[str, object] = {}
        if "control" in inputs:
            down, mid = self.controlnets[kind](
                flat, t.repeat_interleave(f), text, inputs["control"], return_dict=False
            )
            residuals = {
                "down_block_additional_residuals": down,
                "mid_block_additional_residual": mid,
            }
        if isinstance(self.unet, UNetMotionModel):
            out: Tensor = self.unet(noisy, t, text, **residuals).sample
            return out
        out = self.unet(flat, t.repeat_interleave(f), text, **residuals).sample
        return out.reshape(k, f, c, h, w).transpose(1, 2)

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """The trained parts by name."""
        yield "unet", self.unet
        for kind, net in self.controlnets.items():
            yield f"controlnet_{kind}", net


def train_stills(
    folder: Path,
    denoiser: Denoiser,
    source: ClipSource,
    held_out: ClipSource,
    *,
    steps: int,
    frames: int,
    rate: float,
    muon_rate: float,
    until: float,
) -> bool:
    """Single frames: colours, scenes and control are learnt here; True when finished."""
    stage = Stage(
        "stills",
        folder,
        dict(denoiser.modules()),
        steps=steps,
        rate=rate,
        muon_rate=muon_rate,
        decay=0.4,
        ema=0.998,
    )

    loss_of = _losses(denoiser, lambda step: source(step, clips=frames, frames=1), 0)
    done = stage.run(loss_of, until=until, held_out=lambda: _held_out(denoiser, held_out, 16, 1))
    stage.use_ema()
    return done


def train_clips(
    folder: Path,
    denoiser: Denoiser,
    source: ClipSource,
    held_out: ClipSource,
    *,
    steps: int,
    frames: int,
    rate: float,
    muon_rate: float,
    until: float,
) -> bool:
    """Clips with motion modules; batches alternate between few long and many short clips."""
    stage = Stage(
        "clips",
        folder,
        dict(denoiser.modules()),
        steps=steps,
        rate=rate,
        muon_rate=muon_rate,
        decay=0.5,
        ema=0.998,
    )

    def batch(step: int) -> Batch:
        length = 16 if step % 2 else 8
        clips = min(max(1, frames // length), CLIPS_PER_SHARD)
        return source(10**6 + step, clips=clips, frames=length)

    loss_of = _losses(denoiser, batch, 10**6)
    done = stage.run(loss_of, until=until, held_out=lambda: _held_out(denoiser, held_out, 2, 16))
    stage.use_ema()
    return done


def _losses(
    denoiser: Denoiser, batch: Callable[[int], Batch], seed: int
) -> Callable[[int], Tensor]:
    """The loss of every step. On a GPU steps are replayed graphs, and threads make the batches."""
    on_gpu = denoiser.device.type == "cuda"
    batches = Ahead(batch, _AHEAD if on_gpu else 0)
    parameters = [p for _, module in denoiser.modules() for p in module.parameters()]
    loss = GraphedLoss(denoiser.loss_of, parameters) if on_gpu else denoiser.loss_of

    def loss_of(step: int) -> Tensor:
        made, generator = batches(step), torch.Generator().manual_seed(seed + step)
        return loss(denoiser.inputs(made, generator), made.kind)

    return loss_of


def _held_out(denoiser: Denoiser, source: ClipSource, clips: int, frames: int) -> Tensor:
    """The loss on four batches that are always the same."""
    losses = [
        denoiser.loss(source(k, clips, frames), torch.Generator().manual_seed(k)) for k in range(4)
    ]
    return torch.stack(losses).mean()


def add_motion(unet: UNet2DConditionModel) -> UNetMotionModel:
    """The spatial UNet with silent motion modules."""
    return UNetMotionModel.from_unet2d(unet, make_motion_adapter())
