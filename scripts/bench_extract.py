#!/usr/bin/env python
"""Times extraction against the model's own time, and a second run, which takes the control from disk.

The model's own time is that of its network or filter on frames that lie in memory; extraction reads the film,
estimates, keeps what is found and draws. Both are timed in turn, several times in one run, and their medians
divided, by the clock and in CPU time (of use where nothing runs on a GPU). Frames are those of a film, or are
drawn here.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from hgc_video.errors import HGCVideoError, InputError
from hgc_video.media.frames import Frame
from hgc_video.media.video import read_frames, write_video
from hgc_video.preprocess import kept
from hgc_video.preprocess.base import Preprocessor
from hgc_video.preprocess.extract import extract_control
from hgc_video.preprocess.registry import make_preprocessor
from hgc_video.puppet.evaluation import held_out

DEFAULT = ("canny", "lineart", "pose", "depth:model=puppet")


def film_of(given: Path | None, num_frames: int, side: int, folder: Path) -> Path:
    """A film of so many frames, `side` pixels high: the beginning of the one given, or a puppet."""
    if given is None:
        frames = held_out(8000, num_frames).truth.frames
    else:
        frames = read_frames(given, indices=range(num_frames))
    width = round(side * frames.shape[2] / frames.shape[1]) // 2 * 2
    sized = [np.asarray(Image.fromarray(frame).resize((width, side))) for frame in frames]
    return write_video(folder / "film.mp4", np.stack(sized), 12)


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock, and seconds of CPU time, which other work on the machine hardly changes."""

    wall_s: float
    cpu_s: float

    @classmethod
    def of(cls, work: Iterable[object]) -> Spent:
        """What it takes to go through `work`."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in work:
            pass
        return cls(time.perf_counter() - wall, time.process_time() - cpu)


def extraction(preprocessor: Preprocessor, film: Path) -> Iterator[Frame]:
    """All frames of a film's control, from the film on."""
    yield from extract_control(film, preprocessor, multiple=1, default_area=None).stream


def measured(text: str, film: Path, repeats: int) -> dict[str, object]:
    """One row: seconds, ratios, and what is kept on disk."""
    preprocessor = make_preprocessor(text)
    preprocessor.require(offline=True)
    frames = list(read_frames(film))
    Spent.of(preprocessor.estimates(frames[:2], 12.0))  # loads what is loaded once
    own, first, second = [], [], []
    for _ in range(repeats):
        kept.clear()
        own.append(Spent.of(preprocessor.estimates(frames, 12.0)))
        first.append(Spent.of(extraction(preprocessor, film)))
        second.append(Spent.of(extraction(preprocessor, film)))
    (entry,) = kept.entries()
    row: dict[str, object] = {
        "preprocessor": text, "frames": len(frames), "height": frames[0].shape[0],
        "width": frames[0].shape[1], "kept_nbytes": entry.nbytes,
    }  # fmt: skip
    for clock in ("wall_s", "cpu_s"):
        model, whole, again = (
            median(getattr(s, clock) for s in spent) for spent in (own, first, second)
        )
        row[clock] = {
            "model": model, "extract": whole, "again": again, "extract_ratio": whole / model,
            "again_ratio": again / model,
        }  # fmt: skip
    return row


def line_of(row: dict[str, Any]) -> str:
    """A row of the table."""
    wall, cpu, frames = row["wall_s"], row["cpu_s"], row["frames"]
    return (
        f"| `{row['preprocessor']}` | {1000 * cpu['model'] / frames:.1f} | {cpu['extract_ratio']:.2f}x "
        f"({wall['extract_ratio']:.2f}x) | {cpu['again_ratio']:.2f}x ({wall['again_ratio']:.2f}x) | "
        f"{row['kept_nbytes'] / 1024 / frames:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--film", type=Path, help="a film; default: a puppet, drawn here")
    parser.add_argument("--preprocessors", nargs="+", default=DEFAULT)
    parser.add_argument("--num-frames", type=int, default=24)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HGC_VIDEO_HOME"] = folder  # what is kept is not the user's
        film = film_of(args.film, args.num_frames, args.height, Path(folder))
        print(
            "| preprocessor | model, CPU ms/frame | extraction, CPU (wall) | again | kept, KiB/frame |"
        )
        print("|---|---|---|---|---|")
        for text in args.preprocessors:
            try:
                row = measured(text, film, args.repeats)
            except InputError:
                raise
            except HGCVideoError as error:
                print(f"| `{text}` | left out: {error} | | | |")
                continue
            rows.append(row)
            print(line_of(row), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
