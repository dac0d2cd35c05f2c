"""Pipes and devices where a command reads or keeps a file: one line at once, nobody is waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pipes, devices and bash")
ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from hgc_video.cli import main; main()"]
POSE = str(ROOT / "examples" / "dance_pose.mp4")
CALIBRATION = str(ROOT / "configs" / "puppet-calibration.yaml")
SCHEDULE = str(ROOT / "configs" / "schedules" / "balanced.yaml")
GENERATE = [
    "generate",
    "--pose",
    POSE,
    "--prompt",
    "a dancer",
    "--out",
    "a.mp4",
    "--num-frames",
    "2",
]


def refused(arguments, folder):
    """The one line of a command that is refused, in a folder with the pipes f.yaml and f.safetensors."""
    for name in ("f.yaml", "f.safetensors"):
        os.mkfifo(folder / name)
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=120, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not (folder / "a.mp4").exists()
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "f.yaml"],
        ["batch", "f.yaml"],
        ["search", "--calibration", "f.yaml", "--budget", "0.3", "--out", "s.yaml"],
        ["search", "--calibration", CALIBRATION, "--start", "f.yaml", "--budget", "0.3", "--out", "s.yaml"],
        ["compare", "--samples", "f.yaml", "--methods", "fast"],
        ["plan", "--preset", "searched:file=f.yaml"],
        [*GENERATE, "--preset", "searched:file=f.yaml"],
    ],
)  # fmt: skip
def test_a_pipe_is_no_yaml(arguments, tmp_path):
    assert "it is a device or a pipe" in refused(arguments, tmp_path)


@pytest.mark.parametrize("memory", ["f.yaml", "/dev/zero"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "--methods", "fast", "--clips", "1"],
        ["search", "--calibration", CALIBRATION, "--budget", "0.3", "--out", "s.yaml"],
    ],
    ids=["compare", "search"],
)
def test_what_was_measured_is_kept_in_a_file(arguments, memory, tmp_path):
    told = refused([*arguments, "--memory", memory], tmp_path)
    assert told == f'error: "{memory}" is a device or a pipe; name a file'


@pytest.mark.parametrize("option", ["--lora", "--vae", "--base", "--audio", "--motion-adapter"])
def test_a_pipe_is_no_part_of_a_model_and_no_sound(option, tmp_path):
    (tmp_path / "link.safetensors").symlink_to("f.safetensors")
    told = refused([*GENERATE, option, "link.safetensors"], tmp_path)
    assert told == 'error: "link.safetensors" is a device or a pipe; name a file'


@pytest.mark.parametrize("given", ["<(cat {0})", "/dev/stdin < <(cat {0})"])
def test_what_a_shell_has_opened_is_read(given, tmp_path):
    """Which a schedule may be."""
    line = f'exec "{sys.executable}" -c "{COMMAND[2]}" plan --preset searched:file={given.format(SCHEDULE)}'
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0 and "% saved" in done.stdout, done.stderr
