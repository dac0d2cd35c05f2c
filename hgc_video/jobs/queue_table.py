"""The SQLite file of a batch: its table, the states of a job, and transactions.

In WAL mode, for which all who open it must be on one machine; several machines work for one `batch` command.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import user_path

FILE = "queue.sqlite"
QUEUED, RUNNING, DONE = "queued", "running", "done"
FAILED, SET_ASIDE, CANCELLED = "failed", "set aside", "cancelled"
STATES = (QUEUED, RUNNING, DONE, FAILED, SET_ASIDE, CANCELLED)
_VERSION = 1
_BUSY_S = 30.0

# key: hash of the configuration and of the files it reads. loading: what of it decides which model is
# loaded. claim: a token of the one run that may end the job; owner: the process that runs it, as
# host:pid:time; worker: by whom, for people. history: every change of a state, never rewritten.
_TABLES = """
CREATE TABLE jobs (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, key TEXT NOT NULL, loading TEXT NOT NULL,
  options TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued', claim TEXT, owner TEXT, worker TEXT,
  heartbeat REAL, step INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL DEFAULT 0,
  deaths INTEGER NOT NULL DEFAULT 0, cancel INTEGER NOT NULL DEFAULT 0, why TEXT, digest TEXT,
  seconds REAL, macs_saved REAL, warnings TEXT
);
CREATE INDEX jobs_by_state ON jobs (state, loading, id);
CREATE TABLE history (
  at REAL NOT NULL, job INTEGER NOT NULL, state TEXT NOT NULL, worker TEXT, why TEXT
);
PRAGMA user_version = 1;
"""


def open_table(folder: Path) -> sqlite3.Connection:
    """The table of a batch folder, made where there is none.

    Raises:
        InputError: the folder cannot be written, or its file is of another version.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        table = sqlite3.connect(
            folder / FILE, timeout=_BUSY_S, isolation_level=None, factory=_Table
        )
    except (OSError, sqlite3.Error) as error:
        raise _unkept(folder, error) from error
    try:
        _prepare(table, folder)
        _check(table)
    except BaseException:
        table.close()
        raise
    return table


def _prepare(table: sqlite3.Connection, folder: Path) -> None:
    """Settings of the connection, and the tables where there are none. InputError for another version."""
    try:
        table.row_factory = sqlite3.Row
        table.execute("PRAGMA journal_mode = WAL")
        table.execute("PRAGMA synchronous = FULL")  # what is done outlives a power cut
        with transaction(table):
            (version,) = table.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _TABLES.split(";"):
                    table.execute(statement)
    except sqlite3.Error as error:
        raise _unkept(folder, error) from error
    if version not in (0, _VERSION):
        raise InputError(
            f'the queue in "{folder}" is of version {version}, this is hgc-video for version {_VERSION}; '
            "choose another folder"
        )


def _unkept(folder: Path, error: Exception) -> InputError:
    return InputError(f'cannot keep a queue in "{folder}": {error}; choose a local folder')


class _Rows(sqlite3.Cursor):
    """Rows of a file that may be damaged, which SQLite finds as it reads them."""

    def execute(self, *given: Any) -> _Rows:
        """As sqlite3's; InputError where the file is damaged."""
        with _readable():
            super().execute(*given)
        return self

    def fetchone(self) -> Any:
        """As sqlite3's; InputError where the file is damaged."""
        with _readable():
            return super().fetchone()

    def fetchall(self) -> list[Any]:
        """As sqlite3's; InputError where the file is damaged."""
        with _readable():
            return super().fetchall()

    def __next__(self) -> Any:
        with _readable():
            return super().__next__()


class _Table(sqlite3.Connection):
    """A connection whose rows are `_Rows`."""

    def execute(self, *given: Any) -> _Rows:
        """As sqlite3's; InputError where the file is damaged."""
        return self.cursor(_Rows).execute(*given)


@contextmanager
def _readable() -> Iterator[None]:
    """InputError where the file is damaged; what a disk or another process is the cause of stays as it is."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        said = str(error)
        inside = "no such" in said or "decode" in said  # a table that is gone, text that is none
        if isinstance(error, sqlite3.OperationalError) and not inside:
            raise
        raise _damaged(said) from error
    except (OverflowError, UnicodeDecodeError) as error:  # of what stands in it
        raise _damaged(str(error)) from error


def _damaged(why: str) -> InputError:
    said = " ".join(why.split())[:200]
    return InputError(
        f"the queue is damaged ({said}); begin the batch in another folder, results that are done stay"
    )


# What a row that we wrote never is. Files may come from elsewhere: a name leads nowhere but into the folder.
_ODD = f"""
SELECT id FROM jobs WHERE state NOT IN ({", ".join(repr(state) for state in STATES)})
  OR typeof(name) != 'text' OR name = '' OR name LIKE '/%' OR '/' || name || '/' LIKE '%/../%'
  OR instr(name, char(0)) OR instr(name, char(92))
  OR typeof(key) != 'text' OR typeof(loading) != 'text' OR typeof(options) != 'text'
  OR NOT json_valid(options) OR json_type(options) != 'object'
  OR typeof(step) != 'integer' OR typeof(steps) != 'integer' OR typeof(deaths) != 'integer'
  OR typeof(cancel) != 'integer' OR abs(deaths / 2) > 1000000
  OR (state = 'running' AND (typeof(claim) != 'text' OR typeof(owner) != 'text'
    OR owner NOT LIKE '%:%:%' OR typeof(heartbeat) NOT IN ('real', 'integer')))
  OR typeof(seconds) NOT IN ('real', 'integer', 'null')
  OR typeof(macs_saved) NOT IN ('real', 'integer', 'null')
  OR typeof(why) NOT IN ('text', 'null') OR typeof(warnings) NOT IN ('text', 'null')
LIMIT 1
"""


def _check(table: sqlite3.Connection) -> None:
    """InputError where the table holds what we do not write."""
    try:
        odd = table.execute(_ODD).fetchone()
        table.execute("SELECT at, job, state, worker, why FROM history LIMIT 1").fetchone()
        if odd is not None:
            raise _damaged(f"job {odd[0]}")
    except sqlite3.Error as error:
        raise _damaged(str(error)) from error


def has_table(folder: Path) -> bool:
    """Whether a folder is the folder of a batch."""
    return (folder / FILE).is_file()


def batch_folder(source: Path, told: Path | None = None) -> Path:
    """The folder of a batch: as told; the source itself where it is one already; `batch` in a folder of shot
    files; beside a list of jobs its name with .batch."""
    if told is not None:
        return user_path(told)
    if has_table(source):
        return source
    return source / "batch" if source.is_dir() else source.with_suffix(".batch")


@contextmanager
def transaction(table: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A transaction that is the only writer from its beginning; rolled back where it raises, or where what
    it changed cannot be written.

    Raises:
        InputError: the file of the queue cannot be written, the disk is full.
    """
    try:
        table.execute("BEGIN IMMEDIATE")
        yield table
        table.execute("COMMIT")
    except BaseException as error:
        _roll_back(table)
        if isinstance(error, sqlite3.OperationalError):
            raise InputError(
                f"the queue cannot be written: {error}; free space, or see whether its folder is there and "
                "may be written, then start the batch again"
            ) from error
        raise


def _roll_back(table: sqlite3.Connection) -> None:
    """Undoes the transaction, where SQLite has not done so itself: on a full disk it has."""
    if table.in_transaction:
        with suppress(sqlite3.Error, InputError):
            table.execute("ROLLBACK")
