"""A real browser for the tests of the page: playwright drives an installed Chromium, within hard limits.

Nothing of it may stand still for long: a limit that is passed ends the browser and its driver by force, and
what waits for them fails with a message. Nothing of it is left behind either.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LAUNCH_S, TEST_S, CLOSE_S = 90, 240, 20  # on a machine whose cores are shared by several others
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-software-rasterizer", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-extensions", "--mute-audio", "--renderer-process-limit=2",
]  # fmt: skip


def chromium() -> str:
    """The Chromium to drive; skips with a plain message where there is none."""
    if os.environ.get("HGC_VIDEO_BROWSER") == "0":
        pytest.skip("HGC_VIDEO_BROWSER=0 leaves the tests in a real browser out")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip(
            "the page is not tested in a browser: no Chromium is installed; apt-get install chromium, or "
            "name one in $CHROMIUM"
        )
    return found


class Driven:
    """A headless Chromium, its driver, and the limits on both; `browser` is playwright's.

    Use it as a context. After a limit was passed, `stopped` says which; the browser is dead then.
    """

    def __init__(self, sync_api: Any, path: str) -> None:
        self._sync_api, self._path = sync_api, path
        self._before = {pid for pid, _ in _descendants(os.getpid())}
        self.stopped = ""

    def __enter__(self) -> Driven:
        with self.within(LAUNCH_S, "the start of Chromium"):
            self._play = self._sync_api.sync_playwright().start()
            self.browser = self._play.chromium.launch(executable_path=self._path, args=ARGUMENTS)
        return self

    def __exit__(self, *told: object) -> None:
        ours = self._ours()
        timer = threading.Timer(CLOSE_S, lambda: _kill(ours))
        timer.start()
        with contextlib.suppress(Exception):  # a browser that was ended by force closes no more
            self.browser.close()
        with contextlib.suppress(Exception):
            self._play.stop()
        timer.cancel()
        _kill(ours)

    def _ours(self) -> list[tuple[int, str]]:
        """The driver, the browser and its processes: what this process started since."""
        return [
            one
            for one in _descendants(os.getpid())
            if one[0] not in self._before and any(n in one[1] for n in ("playwright", "chrom"))
        ]

    @contextlib.contextmanager
    def within(self, limit_s: float, what: str) -> Iterator[None]:
        """Fails what is done inside where it takes longer; the browser is ended by force then."""
        if self.stopped:
            pytest.fail(self.stopped, pytrace=False)

        def stop() -> None:
            self.stopped = f"{what} took more than {limit_s:.0f} s; the browser was ended by force"
            _kill(self._ours())

        timer = threading.Timer(limit_s, stop)
        timer.start()
        try:
            yield
        except Exception as error:
            if self.stopped:
                raise AssertionError(self.stopped) from error
            raise
        finally:
            timer.cancel()


def _descendants(root: int) -> list[tuple[int, str]]:
    """The processes below one, each with its command line; those that end meanwhile are left out."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(folder.name))
    found, waiting = [], [root]
    while waiting:
        for pid in parents.get(waiting.pop(), ()):
            waiting.append(pid)
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                found.append((pid, line.replace(b"\0", b" ").decode(errors="replace")))
    return found


def _kill(processes: list[tuple[int, str]]) -> None:
    """Ends processes by force, where a number still is of the same command line."""
    for pid, line in processes:
        with contextlib.suppress(OSError):
            now = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            if now.decode(errors="replace") == line:
                os.kill(pid, signal.SIGKILL)
