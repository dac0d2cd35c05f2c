"""Files that appear complete or not at all."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hgc_video.errors import InputError
from hgc_video.files import check_writable, write_text


def test_a_new_file_replaces_an_old_one(tmp_path):
    for text in ("old", "new"):
        assert write_text(tmp_path / "a.json", text).read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_asking_leaves_nothing_and_touches_nothing(tmp_path):
    check_writable(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.json").write_text("old")
    check_writable(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == "old"


@pytest.mark.parametrize("place", ["missing/a.json", "file/a.json", "folder"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"create it first|is a folder"):
        check_writable(tmp_path / place)
    with pytest.raises(InputError, match="cannot write"):
        write_text(tmp_path / place, "text")
    assert {p.name for p in tmp_path.iterdir()} == {"file", "folder"}


def test_a_place_that_takes_no_files_is_refused():
    with pytest.raises(InputError, match=r"cannot write|no folder"):
        check_writable("/proc/a.json")


def test_a_full_disk_keeps_the_old_file_and_leaves_no_part(tmp_path):
    (tmp_path / "a.json").write_text("old")
    code = (
        "import resource, sys; from hgc_video.files import write_text;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        f"write_text({str(tmp_path / 'a.json')!r}, 'x' * 5000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "the disk is full" in done.stderr.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"
