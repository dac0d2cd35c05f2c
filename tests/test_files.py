"""Files that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import select
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from hgc_video import files
from hgc_video.errors import InputError
from hgc_video.files import (
    alone_in,
    check_writable,
    complete_or_gone,
    fault_of_machine,
    is_open_already,
    remove_folder,
    require_writable,
    user_path,
    without_home,
    write_text,
)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "no space", "/a/b"), 'the disk is full: cannot write "/a/b"'),
        (
            OSError(errno.EFBIG, "too large", "/a/b"),
            "larger than a limit of the system (ulimit -f)",
        ),
        (OSError(errno.EROFS, "read-only"), "read-only file system"),
        (MemoryError("8 GiB"), "memory ran out"),
        (OSError(errno.ENOENT, "no such file", "/a/b"), None),
        (ValueError("ours"), None),
    ],
)
def test_a_fault_of_the_machine_is_told_from_ours(error, says):
    fault = fault_of_machine(error)
    assert (fault is None) == (says is None) and (says is None or says in str(fault))


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


def test_a_limit_of_file_sizes_keeps_the_old_file_and_leaves_no_part(tmp_path):
    (tmp_path / "a.json").write_text("old")
    code = (
        "import resource, sys; from hgc_video.files import write_text;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        f"write_text({str(tmp_path / 'a.json')!r}, 'x' * 5000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "(ulimit -f)" in done.stderr.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def killed_at(step, code):
    """Runs code in a process that kills itself (-9) at this one, from 1, of its file operations that remove,
    rename or make folders; whether it got so far."""
    audit = (
        "import os, signal, sys; seen = []\n"
        "def hook(event, args):\n"
        "    if event in ('os.rename', 'os.remove', 'os.rmdir', 'os.mkdir'):\n"
        f"        seen.append(event); len(seen) == {step} and os.kill(os.getpid(), signal.SIGKILL)\n"
        "from pathlib import Path; from hgc_video.files import *\n"
        "sys.addaudithook(hook)\n"
    )
    return subprocess.run([sys.executable, "-c", audit + code], check=False).returncode == -9


def folder_of(path, *names):
    path.mkdir()
    for name in names:
        (path / name).write_text(path.name)
    return path


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_is_the_old_or_the_new_one_wherever_a_kill_comes(tmp_path):
    """And what the killed process left aside is removed by the next one."""
    steps = 0
    while True:
        place = tmp_path / str(steps)
        old = folder_of(place, "x") and folder_of(place / "clip", "1", "2", "3")
        code = (
            f"with complete_or_gone(Path({str(old)!r})) as part:\n"
            "    part.mkdir(); (part / '1').write_text('new'); (part / '4').write_text('new')\n"
        )
        killed = killed_at(steps + 1, code)
        assert names(old) in (["1", "2", "3"], ["1", "4"])
        with complete_or_gone(old) as part:
            folder_of(part, "last")
        assert names(old) == ["last"] and names(place) == ["clip", "x"]
        if not killed:
            break
        steps += 1
    assert steps >= 5


def test_a_folder_is_whole_or_gone_wherever_its_removal_is_killed(tmp_path):
    steps = 0
    while True:
        place = tmp_path / str(steps)
        old = folder_of(place) and folder_of(place / "kept", "1", "2")
        killed = killed_at(steps + 1, f"remove_folder(Path({str(old)!r}))")
        assert not old.exists() or names(old) == ["1", "2"]
        folder_of(old, "again") if not old.exists() else None
        remove_folder(old)
        assert names(place) == []
        if not killed:
            break
        steps += 1
    assert steps == 4


def test_what_a_process_writes_now_is_left_alone(tmp_path):
    with (
        complete_or_gone(tmp_path / "a.txt") as mine,
        complete_or_gone(tmp_path / "a.txt") as other,
    ):
        mine.write_text("one")
        other.write_text("two")
        (tmp_path / ".a.elsewhere-1.12345678.part.txt").write_text("another machine's")
        write_text(tmp_path / "a.txt", "three")
        assert mine.exists() and other.exists()
    assert (tmp_path / "a.txt").read_text() == "one"
    assert names(tmp_path) == [".a.elsewhere-1.12345678.part.txt", "a.txt"]


def test_paths_of_the_users_home_are_told_with_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    told = {
        "out": "/home/ann/a.mp4", "/home/ann/b.safetensors": 0.5, "seed": 3, "none": None,
        "preset": "searched:file=/home/ann/s.yaml+lossless",
        "others": ["/home/anna/c.mp4", "/srv/home/ann/d.mp4", "clips/e.mp4"],
    }  # fmt: skip
    assert without_home(told) == {
        "out": "~/a.mp4", "~/b.safetensors": 0.5, "seed": 3, "none": None,
        "preset": "searched:file=~/s.yaml+lossless",
        "others": ["/home/anna/c.mp4", "/srv/home/ann/d.mp4", "clips/e.mp4"],
    }  # fmt: skip
    assert str(user_path(without_home("/home/ann/a.mp4"))) == "/home/ann/a.mp4"
    monkeypatch.setenv("HOME", "/")
    assert without_home("/srv/a.mp4") == "/srv/a.mp4"


@pytest.fixture
def folders(tmp_path):
    """A folder that is to take the place of another one, both with a file."""
    for name in ("new", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    return tmp_path / "new", tmp_path / "target"


def test_a_folder_that_another_process_makes_meanwhile_is_replaced(folders, monkeypatch):
    """It is not there when it is looked for, and is when the part is renamed."""
    new, target = folders
    is_dir, looks = Path.is_dir, []

    def later(path):
        looks.append(path)
        return is_dir(path) and not (path == target and looks.count(target) == 1)

    monkeypatch.setattr(Path, "is_dir", later)
    files._replace(new, target)
    monkeypatch.undo()
    assert [path.name for path in target.iterdir()] == ["new"] and looks.count(target) == 2


def test_a_folder_that_another_process_removes_meanwhile_is_made(folders, monkeypatch):
    """It is there when it is looked for, and gone when it is to be exchanged."""
    new, target = folders

    def gone(one, other):
        shutil.rmtree(other)
        return False

    monkeypatch.setattr(files, "_exchange", gone)
    files._replace(new, target)
    assert [path.name for path in target.iterdir()] == ["new"] and not new.exists()


def test_a_place_that_is_gone_is_an_error_after_some_tries(folders):
    new, _ = folders
    with pytest.raises(FileNotFoundError):
        files._replace(new, new.parent / "no" / "such")
    assert new.is_dir()


def test_a_device_or_a_pipe_is_never_replaced(tmp_path):
    """Root writes to /dev: a clip that took the place of /dev/null would end every other program."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for target in (pipe, link):
        for write in (require_writable, check_writable, partial(write_text, text="one")):
            with pytest.raises(InputError, match="is a device or a pipe, and would be replaced"):
                write(target)
        remove_folder(target)
    assert pipe.is_fifo() and link.is_symlink()
    assert names(tmp_path) == ["link", "pipe"]
    with pytest.raises(InputError, match="is a device or a pipe"):
        write_text("/dev/null", "one")


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path, there):
    """Behind it may be another disk, with the room that there is not here."""
    (tmp_path / "big").mkdir()
    target, link = tmp_path / "big" / "clip.txt", tmp_path / "link.txt"
    if there:
        target.write_text("before")
    link.symlink_to("big/clip.txt")
    check_writable(link)
    assert write_text(link, "one") == link
    assert link.is_symlink() and target.read_text() == "one"
    assert names(tmp_path) == ["big", "link.txt"] and names(tmp_path / "big") == ["clip.txt"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_behind_a_link_is_replaced_as_a_whole(folders, monkeypatch, exchanges):
    new, target = folders
    link = target.with_name("link")
    link.symlink_to(target)
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    with complete_or_gone(link) as part:
        shutil.copytree(new, part)
    assert link.is_symlink() and names(target) == ["new"]
    assert names(link.parent) == sorted(["link", new.name, target.name])


def test_a_link_to_where_there_is_no_folder_is_refused_before_work_begins(tmp_path):
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "away" / "clip.txt")
    for write in (check_writable, partial(write_text, text="one")):
        with pytest.raises(InputError, match=r'cannot write ".*away/clip.txt": no such file'):
            write(link)
    assert names(tmp_path) == ["link.txt"] and link.is_symlink()


def test_what_a_process_has_open_is_told_from_other_pipes(tmp_path):
    for name in ("/dev/stdin", "/dev/fd/63", "/proc/self/fd/0"):
        assert is_open_already(Path(name))
    for name in ("/dev/zero", "/dev/tty", "stdin", "fd/63", tmp_path / "63"):
        assert not is_open_already(Path(name))


def test_one_process_at_a_time_is_alone_in_a_folder(tmp_path):
    """The other waits, and a kill lets it go on."""
    code = (
        "import sys, time; from pathlib import Path; from hgc_video.files import alone_in\n"
        "with alone_in(Path(sys.argv[1])): print('in', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    one, other = (subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2))
    try:
        first, _, _ = select.select([one.stdout, other.stdout], [], [], 60)
        assert len(first) == 1 and first[0].readline() == "in\n"
        waits = other if first[0] is one.stdout else one
        assert not select.select([waits.stdout], [], [], 1)[0]
        (one if waits is other else other).kill()
        assert waits.stdout.readline() == "in\n"
    finally:
        for process in (one, other):
            process.kill()
            process.communicate()
    with alone_in(tmp_path / "missing"):  # which others will tell
        assert names(tmp_path) == []


def test_what_is_no_folder_is_not_removed_as_one(tmp_path):
    (tmp_path / "a").write_text("one")
    remove_folder(tmp_path / "a")
    remove_folder(tmp_path / "missing")
    assert names(tmp_path) == ["a"]
