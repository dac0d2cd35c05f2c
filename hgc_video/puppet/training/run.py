"""The stages of training in order, each resumable, each reading what the one before it left."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNetMotionModel
from torch import Tensor

from ..judge import Judge, load_judge
from .data import make_shards
from .denoiser import Denoiser, add_motion, make_controlnet, make_unet, train_clips, train_stills
from .export import export
from .half_precision import fit_float16
from .judge import save_judge, train_judge
from .latents import ClipSource, encode_shard, normalise
from .progress import finished
from .text import train_text
from .vae import first_frames, train_decoder, train_vae

_HELD_OUT_SHARDS = 2  # whose loss goes into the curve
STAGES = ("data", "vae", "decoder", "text", "stills", "clips", "judge")


@dataclass(frozen=True)
class Plan:
    """How much each stage does; `still_muon_rate` and `clip_muon_rate` are for matrices and kernels."""

    shards: int = 120
    vae_steps: int = 19000
    text_steps: int = 1500
    still_steps: int = 4000
    still_frames: int = 20
    still_rate: float = 1e-3
    still_muon_rate: float = 0.02
    clip_steps: int = 3300
    clip_frames: int = 32
    clip_rate: float = 5e-4
    clip_muon_rate: float = 0.01
    decoder_steps: int = 4800
    judge_steps: int = 1731

    def steps(self, folder: Path) -> dict[str, int]:
        """The planned steps of the stages whose weights a run's folder holds and no later stage replaced."""
        planned = {
            "vae": self.vae_steps,
            "text": self.text_steps,
            "stills": self.still_steps,
            "clips": self.clip_steps,
            "decoder": self.decoder_steps,
        }
        held = {k: v for k, v in planned.items() if (folder / f"{k}.safetensors").exists()}
        if "clips" in held:
            held.pop("stills", None)
        return held


@dataclass(frozen=True)
class Trained:
    """What training has made so far."""

    denoiser: Denoiser
    vae: AutoencoderKL
    judge: Judge
    frames: Tensor  # (b 3 H W) in -1..1, on which the VAE's values are held within float16

    def export(self, target: Path) -> None:
        """Writes the model in diffusers format."""
        fit_float16(self.vae, self.frames)
        unet = self.denoiser.unet
        if not isinstance(unet, UNetMotionModel):
            unet = add_motion(unet)
        export(
            target, unet=unet, controlnets=self.denoiser.controlnets, vae=self.vae,
            text_encoder=self.denoiser.text_encoder, tokenizer=self.denoiser.tokenizer,
        )  # fmt: skip
        save_judge(self.judge, target)


def train(
    folder: Path, plan: Plan, *, seed: int, until: float, last: str = STAGES[-1], device: str = "cpu",
    processes: int = 1,
) -> Trained:  # fmt: skip
    """Runs the stages up to `last` or to the time `until`, then returns the averaged weights.

    Stills and clips are trained on `device`, cpu or cuda; `processes` render the clips. Until it has trained
    one of its own, the judge is the one that comes with the package.
    """
    stages = STAGES[: STAGES.index(last) + 1]
    time_for = {stage: until if stage in stages else 0.0 for stage in STAGES}
    folder.mkdir(parents=True, exist_ok=True)
    shards = make_shards(folder / "data", plan.shards, seed, processes)
    vae = train_vae(
        folder, shards, steps=plan.vae_steps, batch=16, seed=seed, until=time_for["vae"]
    )
    frames = first_frames(shards[:3])
    normalise(vae, frames)
    if "decoder" in stages and finished(folder, "vae", plan.vae_steps):
        train_decoder(
            folder, vae, shards, steps=plan.decoder_steps, batch=4, seed=seed, until=until
        )
    tokenizer, text_encoder = train_text(
        folder, steps=plan.text_steps, seed=seed, until=time_for["text"]
    )
    unet, controlnets = make_unet(), {"pose": make_controlnet(), "depth": make_controlnet()}
    denoiser = Denoiser(unet, controlnets, tokenizer, text_encoder, device)
    if "stills" in stages and finished(folder, "vae", plan.vae_steps):  # latents are coded once
        apart = make_shards(folder / "held_out", _HELD_OUT_SHARDS, seed + 1)
        coder = vae
        if device != "cpu":  # at once, as several threads will read them
            coder = copy.deepcopy(vae)
            torch.nn.Module.to(coder, device)
            for path in (*shards, *apart):
                encode_shard(coder, path)
        sources = ClipSource(shards, seed, coder), ClipSource(apart, seed, coder)
        _train_denoiser(folder, plan, denoiser, sources, time_for)
    judge = train_judge(folder, steps=plan.judge_steps, seed=seed, until=time_for["judge"])
    if not finished(folder, "judge", plan.judge_steps):
        judge = load_judge()
    return Trained(denoiser, vae, judge, frames)


def _train_denoiser(
    folder: Path, plan: Plan, denoiser: Denoiser, sources: tuple[ClipSource, ClipSource],
    time_for: dict[str, float],
) -> None:  # fmt: skip
    """Stills, then clips; once there are weights of clips they hold all that stills have taught."""
    clips = folder / "clips.safetensors"
    if not clips.exists():
        train_stills(
            folder, denoiser, *sources, steps=plan.still_steps, frames=plan.still_frames,
            rate=plan.still_rate, muon_rate=plan.still_muon_rate, until=time_for["stills"],
        )  # fmt: skip
        if not finished(folder, "stills", plan.still_steps):
            return
    if clips.exists() or time_for["clips"]:
        denoiser.unet = add_motion(denoiser.unet)
        torch.nn.Module.to(denoiser.unet, denoiser.device)
        train_clips(
            folder, denoiser, *sources, steps=plan.clip_steps, frames=plan.clip_frames,
            rate=plan.clip_rate, muon_rate=plan.clip_muon_rate, until=time_for["clips"],
        )  # fmt: skip
