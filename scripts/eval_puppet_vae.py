#!/usr/bin/env python
"""Measures the embedded model's VAE on held-out frames; with --sheet draws truth above reconstruction.

`--vae` is a folder in diffusers format, or the training's own `vae.safetensors` (averaged weights).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image

from hgc_video.evaluate.results_header import results_header, save_png, write_results
from hgc_video.puppet.reconstruction import held_out_frames, measure, sheet
from hgc_video.puppet.training.progress import averaged_weights
from hgc_video.puppet.training.vae import make_vae

SHIPPED = Path(__file__).resolve().parent.parent / "hgc_video" / "puppet" / "weights" / "vae"


def load_vae(path: Path) -> AutoencoderKL:
    """The VAE of a folder or of a training checkpoint, in single precision."""
    if path.is_dir():
        vae = AutoencoderKL.from_pretrained(path)
    else:
        vae = make_vae()
        vae.load_state_dict(averaged_weights(path, "vae"))
    return vae.float().eval()


def main() -> None:
    """Reads the options, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--vae", type=Path, default=SHIPPED)
    parser.add_argument("--frames", type=int, default=256)
    parser.add_argument("--sheet", type=Path, help="write a picture of the first frames here")
    parser.add_argument("--sheet-frames", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    truth = held_out_frames(args.frames)
    figures, made = measure(load_vae(args.vae), truth)
    print(json.dumps(figures.as_dict(), indent=2))
    header = results_header("puppet" if args.vae == SHIPPED else None, clips=args.frames)
    if args.json is not None:
        write_results(args.json, header, vae=_told(args.vae), **figures.as_dict())
    if args.sheet is not None:
        count = args.sheet_frames
        save_png(Image.fromarray(sheet(truth[:count], made[:count])), args.sheet, header)


def _told(vae: Path) -> str:
    return "shipped" if vae == SHIPPED else str(vae)


if __name__ == "__main__":
    main()
