#!/usr/bin/env python
"""Draws the README's picture: input, control, uncached and cached result, one row each.

python scripts/contact_sheet.py --pose dancing.mp4 --extract --out examples/contact_sheet.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import hgc_video
from hgc_video.evaluate.results_header import results_header, save_png
from hgc_video.media.control import Placement, plan_frames
from hgc_video.media.video import open_clip

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a dancer in a red shirt and blue trousers on a beach"
GAP, LABEL_WIDTH, TEXT = 4, 150, 15  # pixels

Frames = NDArray[np.uint8]


def source_frames(path: Path, clip: hgc_video.Clip, wanted: int) -> Frames:
    """The input's frames that the clip follows, whole and at the clip's size (f H W 3)."""
    source = open_clip(path)
    info = source.info
    indices, _ = plan_frames(info.num_frames, info.fps, num_frames=wanted)
    place = Placement(info.height, info.width, clip.height, clip.width)
    return np.stack([place.frame(frame) for frame in source.frames(indices)])


def cost(clip: hgc_video.Clip) -> str:
    """Preset, MACs and seconds of the denoising, as a label."""
    report = clip.report
    saved = f"\n{100 * report.macs_saved:.0f} % saved" if report.preset != "off" else ""
    seconds = report.seconds["denoise"]
    return f"{report.preset}\n{report.macs / 1e12:.2f} T MACs\n{seconds:.1f} s denoising{saved}"


def sheet(rows: dict[str, Frames], columns: int, scale: int) -> Image.Image:
    """Rows of evenly spaced frames (f H W 3) with their labels on the left."""
    count, height, width = next(iter(rows.values())).shape[:3]
    columns = min(columns, count)
    shown = np.linspace(0, count - 1, columns).round().astype(int)
    cell_height, cell_width = height * scale + GAP, width * scale + GAP
    size = (LABEL_WIDTH + columns * cell_width, len(rows) * cell_height + GAP)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(TEXT)
    for row, (label, frames) in enumerate(rows.items()):
        top = GAP + row * cell_height
        draw.multiline_text((GAP, top), label, fill="black", font=font, spacing=5)
        for column, index in enumerate(shown):
            frame = Image.fromarray(frames[index])
            frame = frame.resize((width * scale, height * scale), Image.Resampling.BICUBIC)
            picture.paste(frame, (LABEL_WIDTH + column * cell_width, top))
    return picture


def main() -> None:
    """Makes both clips at the same noise and draws them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--pose", type=Path, default=ROOT / "examples" / "dance_pose.mp4")
    given.add_argument("--depth", type=Path)
    parser.add_argument("--extract", action="store_true", help="the input is a raw video")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--preset", default="balanced", help="of the cached row")
    parser.add_argument("--num-frames", type=int, default=16)
    parser.add_argument("--num-inference-steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--scale", type=int, default=1, help="pixels of the sheet per pixel")
    parser.add_argument("--out", type=Path, default=ROOT / "examples" / "contact_sheet.png")
    args = parser.parse_args()
    source, control = (args.depth, "depth") if args.depth else (args.pose, "pose")
    uncached, cached = (
        hgc_video.generate(
            source,
            args.prompt,
            control=control,
            preset=preset,
            num_frames=args.num_frames,
            num_inference_steps=args.num_inference_steps,
            seed=args.seed,
            extract=args.extract,
        )
        for preset in ("off", args.preset)
    )
    assert cached.control is not None
    rows = {
        "input": source_frames(source, cached, args.num_frames),
        f"control\n({control})": cached.control,
        f"uncached\n{cost(uncached)}": uncached.frames,
        f"cached\n{cost(cached)}": cached.frames,
    }
    save_png(
        sheet(rows, args.columns, args.scale), args.out, results_header("puppet", clips=1, seeds=1)
    )
    print(args.out)


if __name__ == "__main__":
    main()
