"""The command where its surroundings are odd: output that is closed or full, a folder that is gone, links."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hgc_video.errors import VideoError
from hgc_video.files import as_argument, check_distinct
from hgc_video.media.metadata import read_text
from hgc_video.media.video import open_clip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a shell, /dev/full, and links")
COMMAND = "from hgc_video.cli import main; main()"


def run(line, *options, **more):
    """The command under a shell, which opens and closes its output."""
    shell = f'exec "{sys.executable}" {" ".join(options)} -c "{COMMAND}" {line}'
    return subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=300, **more)


@pytest.mark.parametrize("line", ["--version", "--help", "plan --help", "policies hgc"])
def test_what_cannot_be_printed_is_told_in_one_line(line):
    done = run(f"{line} >/dev/full")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and "what is printed" in done.stderr


@pytest.mark.parametrize("line", ["--version", "policies hgc", "schema"])
def test_output_that_is_closed_goes_nowhere(line):
    for closed in (">&-", ">&- 2>&-"):
        done = run(f"{line} {closed}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_current_folder_that_is_gone_is_told(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    root = str(Path.cwd())
    done = subprocess.run(
        ["sh", "-c", f'rmdir "{gone}"; exec "{sys.executable}" -c "{COMMAND}" doctor'],
        cwd=gone, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: the current folder is not there any more; change to another\n"


def test_python_without_docstrings_is_refused():
    done = run("--version", "-OO")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "-OO" in done.stderr


def test_letters_of_help_that_a_terminal_lacks_are_escaped():
    env = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("generate --help", env=env)
    assert done.returncode == 0 and "--prompt" in done.stdout


@pytest.mark.parametrize("name", ["pipe.mp4", "pipe.gif", "pipe"])
def test_a_pipe_is_no_clip(tmp_path, name):
    """It would wait for somebody to write."""
    os.mkfifo(tmp_path / name)
    for read in (open_clip, read_text):
        with pytest.raises(VideoError, match="is a device or a pipe; name a file"):
            read(tmp_path / name)


def test_links_in_a_circle_are_no_file(tmp_path):
    (tmp_path / "a.mp4").symlink_to(tmp_path / "b.mp4")
    (tmp_path / "b.mp4").symlink_to(tmp_path / "a.mp4")
    check_distinct({"--out": tmp_path / "c.mp4"}, [("control clip", tmp_path / "a.mp4")])
    with pytest.raises(VideoError, match="no file"):
        open_clip(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("a.yaml", "a.yaml"),
        ("my shot.yaml", "'my shot.yaml'"),
        ("-a.yaml", "./-a.yaml"),
        ("a'b", "'a'\"'\"'b'"),
    ],
)
def test_a_path_is_told_as_a_shell_takes_it(path, told):
    assert as_argument(path) == told
    shown = subprocess.run(["sh", "-c", f"printf %s {told}"], capture_output=True, text=True).stdout
    assert shown.removeprefix("./") == path
