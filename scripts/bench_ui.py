#!/usr/bin/env python
"""What a run on the page costs beside the same run without it, and what the server's memory does meanwhile.

Both are made in turn, with the model loaded: on the page with its previews, while a tab asks for the progress
as often in a run as a browser does on an idle machine, however busy this one is. The processor's seconds tell
what is done; the clock's also how busy the machine was.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from hgc_video.generator import Generator
from hgc_video.options import GenerateOptions

CLIP = Path(__file__).resolve().parents[1] / "examples" / "dance_pose.mp4"
# As the page does; seconds of the server's work, which are those of the clock on an idle machine.
ASKS_S = 0.4
IDLE_S = 2.0  # without work, it has ended
TICK_S = 0.01


class Served:
    """A running `hgc-video ui`, and a client of it."""

    def __init__(self, folder: Path) -> None:
        code = "from hgc_video.cli import main; main()"
        told = [sys.executable, "-c", code, "ui", "--port", "0", "--folder", str(folder)]
        began = time.perf_counter()
        self._process = subprocess.Popen(told, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        found = re.search(r"http://[\d.:]+", self._process.stdout.readline())
        assert found, "hgc-video ui gave no address"
        self._url = found.group()
        self.ask("/", plain=True)
        self.page_s = time.perf_counter() - began
        while self.ask("/api/state")["model"]["state"] == "loading":
            time.sleep(0.2)

    def ask(
        self, path: str, body: bytes | None = None, method: str = "GET", *, plain: bool = False
    ) -> Any:
        """What a path answers."""
        asked = urllib.request.Request(
            self._url + path, body, {"x-hgc-video": "bench"}, method=method
        )
        with urllib.request.urlopen(asked, timeout=600) as answer:
            told = answer.read()
        return told if plain else json.loads(told)

    def make(self, values: dict[str, Any]) -> float:
        """Makes a clip, and asks for its progress until it is there; gives back the run's seconds."""
        task = self.ask("/api/clips", json.dumps(values).encode(), "POST")
        while task["state"] in ("queued", "running"):
            self._work_on()
            task = self.ask(f"/api/tasks/{task['id']}")
            self.ask("/api/state")
        if task["state"] != "done":
            raise SystemExit(f"the run on the page is {task['state']}: {task['why']}")
        return float(task["seconds"])

    def _work_on(self) -> None:
        """Waits until the server has worked for as long as passes between two questions of the page."""
        began = last = self.cpu_s()
        worked_at = time.monotonic()
        while last < began + ASKS_S and time.monotonic() < worked_at + IDLE_S:
            time.sleep(ASKS_S / 10)
            if (now := self.cpu_s()) > last:
                last, worked_at = now, time.monotonic()

    def cpu_s(self) -> float:
        """The processor's seconds of the server so far."""
        told = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) * TICK_S

    def nbytes(self) -> int:
        """The memory of the server."""
        told = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", told)
        assert found
        return int(found[1]) * 1024

    def close(self) -> None:
        """Ends it."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(120)
        finally:
            self._process.kill()


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of every pair of runs, and the server's memory after each on the page."""
    options = {
        "prompt": "a dancer in a red shirt and blue trousers on a beach", "num_frames": args.num_frames,
        "num_inference_steps": args.num_inference_steps, "preset": args.preset,
    }  # fmt: skip
    served = Served(folder / "ui")
    rows: list[dict[str, float]] = []
    try:
        clip = served.ask("/api/uploads?name=pose.mp4&kind=video", CLIP.read_bytes(), "PUT")["id"]
        generator = Generator(progress=False)
        for number in range(
            args.pairs + 1
        ):  # the first pair fills what is kept, and does not count
            row: dict[str, float] = {}
            cpu = served.cpu_s()
            row["page_s"] = served.make({**options, "control_video": clip})
            row["page_cpu_s"] = served.cpu_s() - cpu
            row["nbytes"] = served.nbytes()
            began, cpu = time.perf_counter(), time.process_time()
            alone = GenerateOptions(**options, control_video=CLIP, out=folder / "alone.mp4")
            generator.make([alone], False, None)
            row["alone_s"], row["alone_cpu_s"] = (
                time.perf_counter() - began,
                time.process_time() - cpu,
            )
            if number:
                rows.append(row)
                seconds = [row[n] for n in ("page_cpu_s", "alone_cpu_s", "page_s", "alone_s")]
                cells = " | ".join(f"{one:.2f}" for one in seconds)
                print(f"| {number} | {cells} | {row['nbytes'] / 2**20:.0f} |", flush=True)
    finally:
        served.close()
    told: dict[str, Any] = {"first_page_s": served.page_s, "pairs": rows}
    for name in ("", "cpu_"):
        ratios = [row[f"page_{name}s"] / row[f"alone_{name}s"] for row in rows]
        told[f"{name}ratio"] = statistics.median(ratios)
        told[f"{name}ratios"] = sorted(ratios)
    return told


def main() -> None:
    """Reads the options, measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--num-frames", type=int, default=8)
    parser.add_argument("--num-inference-steps", type=int, default=12)
    parser.add_argument("--preset", default="off")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    columns = "run | page, CPU s | alone, CPU s | page, s | alone, s | server, MiB"
    print(f"| {columns} |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench_ui-") as place:
        told = measure(args, Path(place))
    print(
        f"the page takes {told['cpu_ratio']:.3f} of the processor's seconds of a run without it, "
        f"{told['ratio']:.3f} of the clock's (medians); it is up after {told['first_page_s']:.2f} s"
    )
    if args.json:
        args.json.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
