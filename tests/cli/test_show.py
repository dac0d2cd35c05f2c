"""What a finished clip says of itself, where that is damaged or made to harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgc_video.cli.show import lines
from hgc_video.errors import InputError

PATH = Path("a.mp4")
STEP = {"step": 3, "label": "key", "reason": "code F", "macs": 1, "macs_stock": 4}


def test_a_line_for_each_fact():
    clip = {"num_frames": 8, "width": 64, "height": 48, "fps": 12.5}
    told = lines({"format": 1, "options": {"seed": 3}, "clip": clip, "steps": [STEP]}, PATH)
    assert told[:2] == ["clip      8 frames of 64x48 at 12.5 fps", "options   seed = 3"]
    assert told[-1].startswith("schedule    3  █") and told[-1].endswith(
        " 25.0 %  key             code F"
    )


def test_nothing_in_it_steers_the_terminal():
    told = {"options": {"prompt": "a\x1b[2J"}, "versions": {"torch": "2\x1b]0;x\x07"},
            "models": {"u\u202enet": "\ud800"}}  # fmt: skip
    shown = lines(told, PATH)
    assert all(line.isprintable() for line in shown)
    assert (
        shown[-1] == r"versions  torch 2\x1b]0;x\x07" and r"u\u202enet  sha256 \ud800" in shown[-2]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"clip": 5}, {"clip": {"width": 8}}, {"files": []}, {"files": {"a": 1}}, {"models": {"unet": 1}},
        {"versions": 3}, {"steps": 1}, {"steps": [{}]}, {"steps": [STEP | {"macs_stock": 0}]},
        {"steps": [STEP | {"step": "x"}]},
    ],
)  # fmt: skip
def test_a_damaged_one_is_told_in_one_line(change):
    with pytest.raises(InputError, match=r'"a.mp4" carries is damaged .*--json prints it'):
        lines({"options": {}} | change, PATH)
