"""Every script in examples/ runs and leaves clips; none is longer than one screen."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from hgc_video.media.video import probe

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {"quickstart.py": ["a.mp4"], "depth_to_video.py": ["depth_0.mp4", "depth_1.mp4"]}


def test_every_example_is_run_here():
    assert {p.name for p in (ROOT / "examples").glob("*.py")} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_short(name):
    assert len((ROOT / "examples" / name).read_text().splitlines()) < 40


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_runs(name, tmp_path, monkeypatch, few_steps):
    target = tmp_path / "a.mp4" if SCRIPTS[name] == ["a.mp4"] else tmp_path
    monkeypatch.setattr(sys, "argv", [name, str(target)])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    for clip in SCRIPTS[name]:
        assert probe(tmp_path / clip).num_frames in {8, 16}
