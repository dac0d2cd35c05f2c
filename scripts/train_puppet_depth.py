#!/usr/bin/env python
"""Trains a small depth estimator from nothing on puppet's own true depth, and tells how near it comes.

A Depth Anything of a third of a million parameters, small enough to be shipped, so that depth extraction runs
for real where no weights can be downloaded. It knows puppet's world alone; real films are not for it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import l1_loss
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessorPil,
)

from hgc_video.evaluate.results_header import results_header, write_results
from hgc_video.puppet.evaluation import held_out
from hgc_video.puppet.motion import random_motion
from hgc_video.puppet.spec import random_spec
from hgc_video.puppet.world import render

SIDE, PATCH = 128, 8
_LAYERS = 4


def make_model() -> DepthAnythingForDepthEstimation:
    """The estimator with fresh weights: patches of 8 pixels, four layers, and the neck that joins them."""
    backbone = Dinov2Config(
        image_size=SIDE, patch_size=PATCH, hidden_size=64, num_hidden_layers=_LAYERS, mlp_ratio=2,
        num_attention_heads=4, apply_layernorm=True, reshape_hidden_states=False,
        out_features=[f"stage{k + 1}" for k in range(_LAYERS)],
    )  # fmt: skip
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone, patch_size=PATCH, reassemble_hidden_size=64,
            reassemble_factors=[2, 1, 1, 0.5], neck_hidden_sizes=[24, 32, 32, 48],
            fusion_hidden_size=32, head_hidden_size=16,
        )
    )  # fmt: skip


def draw_pairs(rng: np.random.Generator, clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames (n H W 3) and true depth (n H W) of random clips, two frames of each."""
    frames, depth = [], []
    for _ in range(clips):
        motion = random_motion(rng, 12)[[0, 11]]
        truth = render(random_spec(rng), motion, int(rng.integers(2**31)), height=SIDE, width=SIDE)
        frames.append(truth.frames)
        depth.append(truth.depth[..., 0])
    return np.concatenate(frames), np.concatenate(depth)


def as_input(frames: np.ndarray) -> Tensor:
    """Frames (n H W 3) uint8 as the model takes them (n 3 H W), as its image processor makes them."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def blurred(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames as generated ones may be: softer, noisier, of another brightness."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    if rng.random() < 0.5:
        kernel = int(rng.choice([3, 5]))
        pixels = torch.nn.functional.avg_pool2d(
            pixels, kernel, 1, kernel // 2, count_include_pad=False
        )
    pixels = pixels * rng.uniform(0.8, 1.2) + rng.normal(0, 12)
    pixels = pixels + torch.randn_like(pixels) * rng.uniform(0, 8)
    return pixels.clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def loss_of(found: Tensor, true: Tensor) -> Tensor:
    """Distance in depth and in its slopes, so that outlines are sharp."""
    loss = l1_loss(found, true)
    for axis in (1, 2):
        loss = loss + l1_loss(found.diff(dim=axis), true.diff(dim=axis))
    return loss


def train(model: DepthAnythingForDepthEstimation, args: argparse.Namespace) -> int:
    """Trains for so long; the number of steps. A pool of clips is drawn first and renewed bit by bit."""
    rng = np.random.default_rng(args.seed)
    frames, depth = draw_pairs(rng, args.pool)
    ends = time.perf_counter() + 60 * args.minutes
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.01)
    step, began = 0, time.perf_counter()
    while (now := time.perf_counter()) < ends or step == 0:
        share = (now - began) / max(ends - began, 1e-9)
        optimizer.param_groups[0]["lr"] = args.rate * min(1, (step + 1) / 50) * max(0.02, 1 - share)
        at = rng.integers(len(frames), size=args.batch)
        true = torch.from_numpy(depth[at]).float() / 255
        loss = loss_of(model(as_input(blurred(frames[at], rng))).predicted_depth, true)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)
        if step % 4 == 0:
            new, new_depth = draw_pairs(rng, 1)
            put = rng.integers(len(frames), size=len(new))
            frames[put], depth[put] = new, new_depth
        step += 1
    return step


@torch.inference_mode()
def errors(model: DepthAnythingForDepthEstimation, clips: int) -> dict[str, float]:
    """On held-out clips of four frames: mean error of depth (0..1), of the dancer's alone, and of the change
    from frame to frame; beside them the error of the mean depth, which knows nothing of the picture."""
    found, true, inside = [], [], []
    for index in range(clips):
        truth = held_out(7000 + index, 4).truth
        found.append(model(as_input(truth.frames)).predicted_depth.numpy())
        true.append(truth.depth[..., 0] / 255)
        inside.append(truth.silhouette)
    got, wanted, dancer = np.stack(found), np.stack(true), np.stack(inside)
    change = np.abs(np.diff(got, axis=1) - np.diff(wanted, axis=1))
    return {
        "error": float(np.abs(got - wanted).mean()),
        "error_of_the_dancer": float(np.abs(got - wanted)[dancer].mean()),
        "error_of_changes": float(change.mean()),
        "error_of_the_mean": float(np.abs(wanted - wanted.mean((0, 1))).mean()),
    }


def save(model: DepthAnythingForDepthEstimation, folder: Path) -> None:
    """Weights in half precision and the image processor's settings, as from_pretrained reads them."""
    model.half().save_pretrained(folder)
    side = {"height": SIDE, "width": SIDE}
    DPTImageProcessorPil(
        size=side, keep_aspect_ratio=True, ensure_multiple_of=PATCH, do_pad=False,
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    ).save_pretrained(folder)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--pool", type=int, default=400, help="clips drawn before training begins")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--clips", type=int, default=16, help="held-out clips it is measured on")
    parser.add_argument(
        "--measure", type=Path, help="train nothing: measure the estimator in this folder"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--start", type=Path, help="weights to go on from; default: fresh ones")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate, falling to zero")
    parser.add_argument("--seed", type=int, default=0, help="of the clips that are drawn")
    parser.add_argument("--out", type=Path, default=Path("runs/puppet-depth"))
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, start = make_model(), args.measure or args.start
    if start is not None:
        model = DepthAnythingForDepthEstimation.from_pretrained(start, dtype=torch.float32)
    told: dict[str, float] = {"weights": sum(p.numel() for p in model.parameters())}
    if args.measure is None:
        told["steps"] = train(model.train(), args)
    told |= errors(model.eval(), args.clips)
    if args.measure is None:
        save(model, args.out)
    print(json.dumps(told, indent=2))
    if args.json is not None:
        measured = str(args.measure or args.out)
        write_results(args.json, results_header(measured, clips=args.clips), **told)


if __name__ == "__main__":
    main()
