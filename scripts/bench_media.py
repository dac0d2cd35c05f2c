#!/usr/bin/env python
"""How fast clips are read and written, as ratios to PyAV's own work in the same run, and the memory it takes.

Draws a clip (1,000 frames of 1080p unless told otherwise), then, each in a process of its own: PyAV alone
decodes it to RGB; `iter_frames` reads it; half of it is read, every second frame; `write_video` encodes
frames as they come from a source that takes its time, as a decoder does.
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from hgc_video.media.video import iter_frames, probe, write_video  # noqa: E402

_WRITTEN = 200  # frames; encoding 1080p takes far longer than reading it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument(
        "--repeats", type=int, default=3, help="pairs of runs; their median is told"
    )
    parser.add_argument(
        "--clip", type=Path, help="a clip of your own, in place of the one that is drawn"
    )
    parser.add_argument("--json", type=Path, help="JSON file for the figures")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # what a process of its own does
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measured(options.only, options.clip, options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        clip = options.clip or drawn(Path(folder) / "clip.mp4", options)
        figures = compared(clip, options)
    for line in table(figures):
        print(line)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def drawn(path: Path, options: argparse.Namespace) -> Path:
    """A clip in which a picture with detail moves, so that decoding costs what it costs in a film."""
    generator = np.random.default_rng(0)
    small = generator.integers(
        0, 256, (options.height // 8 + 1, options.width // 8 + 1, 3), np.uint8
    )
    picture = small.repeat(8, 0).repeat(8, 1)[: options.height, : options.width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=24)
        stream.height, stream.width, stream.pix_fmt = options.height, options.width, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "23", "g": "48"}
        for number in range(options.frames):
            frame = np.roll(picture, 3 * number, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def compared(clip: Path, options: argparse.Namespace) -> dict[str, object]:
    """The figures: seconds of every kind of work, ratios of pairs that ran after each other."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in WORK}
    for _ in range(options.repeats):
        for name in WORK:
            runs[name].append(in_a_process(name, clip, options))
    told = {
        name: {key: statistics.median(run[key] for run in of) for key in of[0]}
        for name, of in runs.items()
    }
    pairs = zip(runs["pyav"], runs["read"], strict=True)
    ratio = statistics.median(alone["seconds"] / ours["seconds"] for alone, ours in pairs)
    info = probe(clip)
    size = {"frames": info.num_frames, "height": info.height, "width": info.width}
    return {**size, "read_to_pyav": ratio, "work": told}


def in_a_process(name: str, clip: Path, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--only", name, "--clip", str(clip)]
    command += ["--frames", str(options.frames)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(name: str, clip: Path, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of the work, and the most bytes of the process above the start, looked at for every frame."""
    process = psutil.Process()
    start_nbytes, most, began = process.memory_info().rss, 0, time.perf_counter()
    count = 0
    for count, _ in enumerate(WORK[name](clip), 1):
        if count % 8 == 0:
            most = max(most, process.memory_info().rss - start_nbytes)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "fps": count / seconds, "nbytes": max(0, most)}


def pyav(clip: Path) -> Iterator[object]:
    """PyAV alone: every frame to RGB."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            yield frame.to_ndarray(format="rgb24")


def read(clip: Path) -> Iterator[object]:
    """This package: every frame, opening the file included."""
    return iter_frames(clip)


def half(clip: Path) -> Iterator[object]:
    """This package: every second frame, as a 24 fps clip is read."""
    return iter_frames(clip, indices=range(0, probe(clip).num_frames, 2))


def write(clip: Path) -> Iterator[object]:
    """Read and written at once: no more of the clip is in memory than the encoder looks ahead."""
    with tempfile.TemporaryDirectory() as folder:
        passed: queue.Queue[bool] = queue.Queue(maxsize=1)

        def told() -> Iterator[np.ndarray]:
            for frame in iter_frames(clip, indices=range(min(_WRITTEN, probe(clip).num_frames))):
                passed.put(True)
                yield frame

        def run() -> None:
            try:
                write_video(Path(folder) / "out.mp4", told(), 24)
            finally:
                passed.put(False)

        thread = threading.Thread(target=run)
        thread.start()
        while passed.get():  # once a frame, so that memory is looked at while the file grows
            yield True
        thread.join()


WORK: dict[str, Callable[[Path], Iterator[object]]] = {
    "pyav": pyav,
    "read": read,
    "half": half,
    "write": write,
}


def table(figures: dict[str, object]) -> Iterator[str]:
    work = figures["work"]
    assert isinstance(work, dict)
    yield f"{figures['frames']} frames of {figures['width']}x{figures['height']}"
    yield "| | frames a second | MiB above the start |"
    yield "|---|---|---|"
    for name, told in work.items():
        yield f"| {WORK[name].__doc__.splitlines()[0]} | {told['fps']:.1f} | {told['nbytes'] / 2**20:.0f} |"
    yield f"reading: {figures['read_to_pyav']:.2f} of PyAV's own speed"


if __name__ == "__main__":
    main()
