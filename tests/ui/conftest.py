"""What the tests of the page share: a server of its own process, and a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from hgc_video.media.video import read_frames, write_video
from tests.media import sounding
from tests.ui.browser import TEST_S, Driven, chromium

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from hgc_video.cli import main; main()", "ui", "--port", "0"]
MOST_NBYTES = 2**20


class Server:
    """A running `hgc-video ui`; `folder` is where it keeps uploads and clips."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.folder = folder
        told = [*COMMAND, "--folder", folder, "--max-upload", str(MOST_NBYTES), *arguments]
        self.process = subprocess.Popen(
            [str(one) for one in told], stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        self.url = re.search(r"http://[\d.:]+/", line).group()

    def get(self, path: str) -> bytes:
        """What a path answers."""
        with urllib.request.urlopen(self.url + path.lstrip("/"), timeout=30) as answer:
            return answer.read()

    def state(self) -> dict:
        """What the server is at."""
        return json.loads(self.get("api/state"))

    def cpu_s(self) -> float:
        """The processor's seconds that it took so far, whatever else the machine does."""
        told = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")

    def wait_for_model(self, most_s: float = 180) -> None:
        """Waits until the model is loaded, which takes seconds, and much longer on a busy machine."""
        until = time.monotonic() + most_s
        while (state := self.state()["model"]["state"]) == "loading":
            assert time.monotonic() < until, f"the model is not loaded after {most_s:.0f} s"
            time.sleep(0.2)
        assert state == "ready"

    def close(self) -> int:
        """Ends it as Ctrl-C does; gives back its exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(120)
        finally:
            self.process.kill()


@pytest.fixture(scope="session")
def control_clip(tmp_path_factory):
    """A skeleton clip of 4 frames with sound."""
    frames = read_frames(ROOT / "examples" / "dance_pose.mp4", indices=range(0, 16, 4))
    folder = tmp_path_factory.mktemp("page")
    return sounding.put_under(write_video(folder / "silent.mp4", frames, 8), folder / "pose.mp4")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A page that is served for all tests."""
    for name in ("starlette", "uvicorn"):
        pytest.importorskip(name, reason=f"the page needs {name}, which is not installed")
    made = Server(tmp_path_factory.mktemp("ui"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def driven():
    """A headless Chromium with its limits, one for all tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with Driven(sync_api, chromium()) as made:
        yield made


@pytest.fixture
def browser(driven):
    """The browser that playwright drives, for the time that one test may take."""
    with driven.within(TEST_S, "the test"):
        yield driven.browser
    if driven.stopped:  # what the test saw of it is a lost connection
        pytest.fail(driven.stopped, pytrace=False)
