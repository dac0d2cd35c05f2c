"""The stages of training in order, each resumable, each reading what the one before it left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKL, UNetMotionModel

from ..judge import Judge
from .data import make_shard
from .denoiser import Denoiser, add_motion, make_controlnet, make_unet, train_clips, train_stills
from .export import export
from .judge import save_judge, train_judge
from .latents import ClipSource, encode_shard, normalise
from .progress import finished
from .text import train_text
from .vae import first_frames, train_decoder, train_vae

STAGES = ("data", "vae", "text", "stills", "clips", "decoder", "judge")


@dataclass(frozen=True)
class Plan:
    """How much each stage does; the defaults are what the shipped weights were trained with."""

    shards: int = 80
    vae_steps: int = 13500
    text_steps: int = 1500
    still_steps: int = 1500
    still_frames: int = 20
    still_rate: float = 1e-3
    clip_steps: int = 3700
    clip_frames: int = 32
    clip_rate: float = 5e-4
    decoder_steps: int = 1200
    judge_steps: int = 1731


@dataclass(frozen=True)
class Trained:
    """What training has made so far."""

    denoiser: Denoiser
    vae: AutoencoderKL
    judge: Judge

    def export(self, target: Path) -> None:
        """Writes the model in diffusers format."""
        unet = self.denoiser.unet
        if not isinstance(unet, UNetMotionModel):
            unet = add_motion(unet)
        export(
            target, unet=unet, controlnets=self.denoiser.controlnets, vae=self.vae,
            text_encoder=self.denoiser.text_encoder, tokenizer=self.denoiser.tokenizer,
        )  # fmt: skip
        save_judge(self.judge, target)


def train(folder: Path, plan: Plan, *, seed: int, until: float, last: str = STAGES[-1]) -> Trained:
    """Runs the stages up to `last` or to the time `until`, then returns the averaged weights."""
    stages = STAGES[: STAGES.index(last) + 1]
    time_for = {stage: until if stage in stages else 0.0 for stage in STAGES}
    folder.mkdir(parents=True, exist_ok=True)
    shards = [make_shard(folder / "data", i, seed) for i in range(plan.shards)]
    vae = train_vae(
        folder, shards, steps=plan.vae_steps, batch=16, seed=seed, until=time_for["vae"]
    )
    normalise(vae, first_frames(shards[:3]))
    tokenizer, text_encoder = train_text(
        folder, steps=plan.text_steps, seed=seed, until=time_for["text"]
    )
    unet, controlnets = make_unet(), {"pose": make_controlnet(), "depth": make_controlnet()}
    denoiser = Denoiser(unet, controlnets, tokenizer, text_encoder)
    source = None
    if "stills" in stages and finished(folder, "vae", plan.vae_steps):  # latents are coded once
        for shard in shards:
            encode_shard(vae, shard)
        source = ClipSource(shards, seed)
        train_stills(
            folder, denoiser, source, steps=plan.still_steps, frames=plan.still_frames,
            rate=plan.still_rate, until=until,
        )  # fmt: skip
    if source is not None and "clips" in stages:
        denoiser.unet = add_motion(unet)
        train_clips(
            folder, denoiser, source, steps=plan.clip_steps, frames=plan.clip_frames,
            rate=plan.clip_rate, until=until,
        )  # fmt: skip
    if "decoder" in stages:
        train_decoder(
            folder, vae, shards, steps=plan.decoder_steps, batch=8, seed=seed, until=until
        )
    judge = train_judge(folder, steps=plan.judge_steps, seed=seed, until=time_for["judge"])
    return Trained(denoiser, vae, judge)
