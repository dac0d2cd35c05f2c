"""The queue's file and its folder: full, moved, damaged, or another's."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from hgc_video.errors import InputError
from hgc_video.jobs.add_jobs import add_jobs
from hgc_video.jobs.queue import Queue
from hgc_video.jobs.queue_status import rows_of, status_of
from hgc_video.jobs.queue_table import FILE, batch_folder, transaction

from .queue_parts import RESULT, job, part, states


def test_a_queue_on_a_full_disk_says_so_and_goes_on_when_there_is_room(queue):
    """By SQLite's own limit, at which it rolls back by itself, as on a disk."""
    add_jobs(queue, [job("a")])
    claimed = queue.claim("w")
    pages = queue.table.execute("PRAGMA page_count").fetchone()[0]
    queue.table.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(InputError, match=r"the queue cannot be written: .*full"):
        queue.fail(claimed, "x" * 100_000)
    assert not queue.table.in_transaction and states(queue) == {"a.mp4": "running"}
    queue.table.execute("PRAGMA max_page_count = 100000")
    assert queue.finish(claimed, part(queue), RESULT)


def test_a_folder_that_cannot_hold_a_queue(tmp_path, queue):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r'cannot keep a queue in ".*file": .*exists') as refused:
        Queue(tmp_path / "file")
    assert isinstance(refused.value.__cause__, OSError)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / FILE).write_bytes(b"no database at all" * 100)
    queue.table.execute("PRAGMA user_version = 9")
    queue.close()
    for folder, says in (
        (tmp_path / "damaged", "queue is damaged"),
        (queue.folder, r"in \".*b\" is of version 9"),
    ):
        before = open_files()
        with pytest.raises(InputError, match=says):
            Queue(folder)
        assert open_files() == before, "what is refused is closed"


def test_a_folder_that_is_moved_away_ends_the_batch(queue, tmp_path):
    """What would be put down there nobody would find, and the clips would lie in a new folder."""
    add_jobs(queue, [job("a"), job("b")])
    held = queue.claim("w")
    queue.folder.rename(tmp_path / "elsewhere")
    for there in (False, True):
        if there:
            Queue(queue.folder).close()
        asks = (lambda: queue.claim("w"), lambda: queue.finish(held, tmp_path / "part.mp4", RESULT))
        for ask in asks:
            with pytest.raises(InputError, match="is gone, or another is in its place"):
                ask()
    shutil.rmtree(queue.folder)
    (tmp_path / "elsewhere").rename(queue.folder)
    assert queue.claim("w").name == "b.mp4"


def open_files():
    """How many files this process has open, or that cannot be told."""
    there = Path("/proc/self/fd")
    return len(list(there.iterdir())) if there.is_dir() else None


@pytest.mark.parametrize(
    "column, value",
    [
        ("name", "../../x.mp4"), ("name", "/etc/x.mp4"), ("name", "a/../../x.mp4"), ("options", "{"),
        ("options", "[]"), ("state", "dreaming"), ("deaths", "many"), ("cancel", b"\xff"), ("step", 1e300),
        ("seconds", "long"), ("deaths", 2**62),
    ],
)  # fmt: skip
def test_a_table_that_we_did_not_write_is_refused(queue, column, value):
    """Above all one whose results would lie outside of its folder."""
    add_jobs(queue, [job("a"), job("..b..")])
    Queue(queue.folder).close()
    queue.table.execute(f"UPDATE jobs SET {column} = ? WHERE id = 1", (value,))
    with pytest.raises(InputError, match=r"the queue is damaged \(job 1\)"):
        Queue(queue.folder)


def test_a_damaged_file_is_told_in_one_line(queue):
    add_jobs(queue, [job(f"job{number}") for number in range(200)])
    queue.table.execute("PRAGMA journal_mode = DELETE")
    queue.close()
    file = queue.folder / FILE
    whole, told = file.read_bytes(), set()
    for page in range(1, len(whole) // 4096):
        file.write_bytes(whole[: page * 4096] + b"\xa5" * 4096 + whole[(page + 1) * 4096 :])
        try:
            damaged = Queue(queue.folder)
            status_of(damaged, 0.0)
            while damaged.claim("w") is not None:
                pass
        except InputError as error:
            told.add(str(error))
    assert told and all("queue is damaged" in one and "\n" not in one for one in told)


def test_text_that_is_none_is_told_in_one_line(queue):
    """A byte of a name that is no UTF-8, which SQLite keeps and Python cannot read."""
    add_jobs(queue, [job("name")])
    queue.table.execute("UPDATE jobs SET name = CAST(x'612eff' AS TEXT)")
    with pytest.raises(InputError, match=r"the queue is damaged \(Could not decode to UTF-8"):
        rows_of(queue)


def test_a_queue_is_made_with_its_folders_and_waits_for_those_who_write(tmp_path):
    made = Queue(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c" / FILE).is_file()
    assert made.table.execute("PRAGMA busy_timeout").fetchone()[0] == 30_000
    made.close()


def test_the_folder_of_a_batch(queue, tmp_path):
    for source, told, folder in (
        (queue.folder, None, queue.folder),
        (tmp_path, None, tmp_path / "batch"),
        (tmp_path / "jobs.yaml", None, tmp_path / "jobs.batch"),
        (queue.folder, tmp_path / "c", tmp_path / "c"),
        (tmp_path, Path("~/c"), Path.home() / "c"),
    ):
        assert batch_folder(source, told) == folder


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("others WHERE abs(-9223372036854775807 - 1) > 0", "integer overflow"),
        ("x" * 300, "no such table: main." + "x" * 180),  # 200 characters of what SQLite says
    ],
)
def test_a_view_in_place_of_the_table_is_told_in_one_line(queue, rows, says):
    """One whose rows SQLite cannot compute, and one of a table that is not there."""
    queue.table.execute("ALTER TABLE jobs RENAME TO others")
    queue.table.execute(f"CREATE VIEW jobs AS SELECT * FROM {rows}")
    with pytest.raises(InputError, match=rf"the queue is damaged \({says}\)"):
        Queue(queue.folder)


@pytest.mark.parametrize("answer", [sqlite3.SQLITE_DENY, -1])
def test_what_cannot_be_undone_hides_no_error(queue, answer):
    """SQLite is made to refuse the ROLLBACK: as not allowed, and by an answer that is none."""
    with pytest.raises(ValueError, match="the first one"), transaction(queue.table):
        queue.table.set_authorizer(lambda *asked: answer)
        raise ValueError("the first one")
    assert queue.table.in_transaction
