"""What a finished clip carries: a good configuration, damaged ones in a clip, and how they are read."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hgc_video.jobs.shot import read_shot
from hgc_video.media.video import write_video
from hgc_video.media.write import Extras
from hgc_video.options import GenerateOptions
from hgc_video.sampling.configuration import options_of, read_configuration

from .mutate import mutated_data, mutated_text


def good_configurations(folder: Path) -> list[Path]:
    """The configuration of a clip as JSON; a damaged one is embedded again."""
    options = GenerateOptions(
        control={"pose": "pose.mp4"}, prompt={0: "a", 8: "b"}, lora={"a.safetensors": 0.5}
    )
    told = {"format": 1, "options": options.to_dict(), "versions": {"python": "3.12"},
            "files": {"control.pose": {"name": "pose.mp4", "sha256": "0" * 64},
                      "lora.0": {"name": "a.safetensors", "key": True}}}  # fmt: skip
    path = folder / "configuration.json"
    path.write_text(json.dumps(told))
    return [path]


def damaged_configuration(good: Path, folder: Path, random_: random.Random) -> tuple[str, Path]:
    """A GIF that carries a damaged configuration."""
    if random_.random() < 0.7:
        how, data = mutated_data(json.loads(good.read_text()), random_)
        text = json.dumps(data)
    else:
        how, text = mutated_text(good.read_text(), random_)
    (folder / "pose.mp4").write_bytes(b"")
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    return how, write_video(folder / "clip.gif", frames, 8, extras=Extras(text=text))


def check_configuration(path: Path) -> None:
    """Reads the options of a finished clip, and checks them."""
    check_found(read_configuration(path), path)
    read_shot(path).checked()


def check_found(told: Mapping[str, Any], path: Path) -> None:
    """Reads the options of a configuration that a clip carries."""
    found = options_of(told, path)
    assert found.get("out") is None and found.get("work") is None, "a clip says where to write"
