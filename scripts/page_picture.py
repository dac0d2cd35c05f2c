#!/usr/bin/env python
"""Takes the picture of the page: serves it, makes a clip on it in a real browser, and keeps what is seen.

Needs the extras `ui` and `dev` (playwright) and a Chromium: on the PATH, or in $CHROMIUM.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from hgc_video.evaluate.results_header import results_header, save_png

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a dancer in a red shirt and blue trousers on a beach"
WIDTH, HEIGHT = 840, 900  # pixels of the window; the picture is as high as the page
COLOURS = 256
_SERVE = [sys.executable, "-c", "from hgc_video.cli import main; main()", "ui", "--port", "0"]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the page, served by a process of its own."""
    server = subprocess.Popen([*_SERVE, "--folder", folder], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r"http://[\d.:]+/", server.stdout.readline())
        if found is None:
            raise SystemExit("the page is not served; try: hgc-video ui")
        yield found.group()
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:  # an error of the page is what is to be seen
            server.kill()


def make_clip(page: Page, frames: int, steps: int, minutes: float) -> None:
    """Fills the form, makes a clip and waits until it can be seen."""
    page.set_input_files("#field-control_video", ROOT / "examples" / "dance_pose.mp4")
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-num_frames", str(frames))
    page.fill("#field-preset", "balanced")
    page.locator("summary", has_text="Steps and cost").click()
    page.fill("#field-num_inference_steps", str(steps))
    page.locator("summary", has_text="Steps and cost").click()
    page.locator("#control-view .told", has_text="clip of skeletons").wait_for()
    page.locator("#estimate", has_text="MACs").wait_for(timeout=60_000 * minutes)
    page.click("#run")
    page.locator("#result").wait_for(timeout=60_000 * minutes)
    page.evaluate("document.getElementById('clip').readyState >= 4 || new Promise(r => "
                  "document.getElementById('clip').addEventListener('canplaythrough', r))")  # fmt: skip
    page.get_by_text("1 running").wait_for(state="hidden", timeout=60_000 * minutes)


def main() -> None:
    """Takes the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-frames", type=int, default=8)
    parser.add_argument("--num-inference-steps", type=int, default=25)
    parser.add_argument("--minutes", type=float, default=10, help="that the clip may take")
    parser.add_argument("--out", type=Path, default=ROOT / "examples" / "page.png")
    args = parser.parse_args()
    chromium = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    )
    if chromium is None:
        raise SystemExit(
            "no Chromium is installed: apt-get install chromium, or name one in $CHROMIUM"
        )
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder)) as address,
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(address)
        make_clip(page, args.num_frames, args.num_inference_steps, args.minutes)
        taken = Image.open(io.BytesIO(page.screenshot(full_page=True)))
        browser.close()
    picture = taken.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    save_png(picture, args.out, results_header("puppet", clips=1, seeds=1))
    print(args.out)


if __name__ == "__main__":
    main()
