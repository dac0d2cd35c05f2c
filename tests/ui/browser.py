"""A real browser for the tests of the page: playwright drives a Chromium that is installed.

They run where HGC_VIDEO_BROWSER=1 asks for them: beside other tests the browser has stood still.
"""

from __future__ import annotations

import os
import shutil

import pytest


def chromium() -> str:
    """The Chromium to drive; skips with a plain message where there is none."""
    if not os.environ.get("HGC_VIDEO_BROWSER"):
        pytest.skip("tests in a real browser run where HGC_VIDEO_BROWSER=1 asks for them")
    found = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    )
    found = found or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium is installed: apt-get install chromium, or name one in $CHROMIUM")
    return found
