"""The limits on the browser of the tests: what stands still is ended by force, told, and not left behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.ui.browser import chromium
from tests.ui.conftest import ROOT

pytestmark = pytest.mark.slow
# In a process of its own: playwright drives one browser at a time in a thread.
CODE = """
import os, sys
from playwright import sync_api
from tests.ui.browser import Driven, _descendants
with Driven(sync_api, sys.argv[1]) as driven:
    page = driven.browser.new_page()
    try:
        with driven.within(1, "the spinning"):
            page.evaluate("() => { while (true) {} }")
    except AssertionError as error:
        print(error)
print("left:", len(_descendants(os.getpid())))
"""


def test_a_page_that_spins_is_ended_by_force_and_nothing_is_left():
    pytest.importorskip("playwright", reason="playwright is not installed")
    done = subprocess.run(
        [sys.executable, "-c", CODE, chromium()],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ROOT,
    )
    assert done.stdout.splitlines() == [
        "the spinning took more than 1 s; the browser was ended by force", "left: 0",
    ], done.stderr  # fmt: skip
