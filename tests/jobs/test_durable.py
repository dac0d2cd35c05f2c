"""Files that outlive a crash: complete or not there, synced in order, and known when they are spoilt."""

from __future__ import annotations

import errno
import hashlib
import json
import os

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from hgc_video.errors import InputError
from hgc_video.jobs.checkpoint import durable
from hgc_video.jobs.checkpoint.durable import (
    COMPLETE,
    durable_folder,
    fault_of,
    read_json,
    save_tensors,
    sync,
    write_json,
)


@pytest.fixture
def synced(monkeypatch):
    """The numbers of the files and folders that were synced, in order."""
    numbers, real = [], os.fsync

    def note(handle):
        numbers.append(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", note)
    return numbers


@pytest.fixture
def full(monkeypatch):
    """From now on the disk is full."""

    def refuse(handle):
        raise OSError(errno.ENOSPC, "no space")

    return lambda: monkeypatch.setattr(os, "fsync", refuse)


def numbers_of(*paths):
    return [path.stat().st_ino for path in paths]


def written(target, **files):
    with durable_folder(target) as part:
        for name, text in files.items():
            (part / name).write_text(text)
    return target


def test_a_folder_takes_its_place_when_all_of_it_is_on_the_disk(tmp_path, synced):
    target = tmp_path / "state"
    with durable_folder(target) as part:
        assert part == tmp_path / ".state.part" and part.is_dir() and not target.exists()
        (part / "b").write_text("two")
        (part / "a").write_text("one")
        assert synced == []
    assert sorted(path.name for path in target.iterdir()) == sorted(["a", "b", COMPLETE])
    assert list(tmp_path.iterdir()) == [target]
    inner = [target / name for name in ("a", "b", COMPLETE)]
    assert synced == numbers_of(*inner, target, tmp_path)
    told = json.loads((target / "COMPLETE").read_text())
    assert told == {
        "a": {"nbytes": 3, "sha256": hashlib.sha256(b"one").hexdigest()},
        "b": {"nbytes": 3, "sha256": hashlib.sha256(b"two").hexdigest()},
    }
    assert list(told) == ["a", "b"] and fault_of(target) is None


def test_folders_that_are_missing_are_made(tmp_path):
    target = written(tmp_path / "x" / "y" / "state", a="one")
    assert (target / "a").read_text() == "one"


def test_what_a_killed_process_left_is_not_part_of_it(tmp_path):
    left = tmp_path / ".state.part"
    left.mkdir()
    (left / "old").write_text("half")
    target = written(tmp_path / "state", a="one")
    assert not (target / "old").exists() and not left.exists()


def test_an_error_in_the_block_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), durable_folder(tmp_path / "state") as part:
        (part / "a").write_text("one")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, full):
    full()
    target = tmp_path / "state"
    with pytest.raises(InputError) as told:
        written(target, a="one")
    assert str(told.value).startswith(f'the disk is full: cannot write "{target}";')
    assert type(told.value) is InputError and isinstance(told.value.__cause__, OSError)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_overwritten(tmp_path):
    target = written(tmp_path / "state", a="one")
    with pytest.raises(InputError, match=r'cannot write ".*state": directory not empty'):
        written(target, a="two")
    assert (target / "a").read_text() == "one" and list(tmp_path.iterdir()) == [target]


def test_what_is_wrong_with_a_folder_is_told(tmp_path):
    target = written(tmp_path / "state", a="one", b="two")
    assert fault_of(target) is None
    (target / "b").write_text("six")  # as long as before
    assert fault_of(target) == "b is not what was written"
    (target / "a").write_text("o")
    assert fault_of(target) == "a is not what was written"
    (target / "a").unlink()
    assert fault_of(target).startswith("it is not complete (") and "/a'" in fault_of(target)
    for spoilt in ('{"a": {"nby', "[]", "null"):
        (target / COMPLETE).write_text(spoilt)
        assert fault_of(target).startswith("it is not complete (")
        assert fault_of(target).endswith(")") and len(fault_of(target)) > 25
    (target / COMPLETE).unlink()
    assert "COMPLETE" in fault_of(target) and fault_of(tmp_path / "no") is not None


def test_json_comes_back_as_it_was(tmp_path, synced):
    path, data = tmp_path / "job.json", {"prompt": "tänzer", "n": [1, None, 0.5]}
    path.write_text("old")
    write_json(path, data)
    assert read_json(path) == data
    assert path.read_bytes() == json.dumps(data, indent=1, ensure_ascii=False).encode()
    assert list(tmp_path.iterdir()) == [path]
    assert synced == numbers_of(path, tmp_path)


def test_json_that_cannot_be_written_leaves_what_was_there(tmp_path, full):
    path = tmp_path / "job.json"
    write_json(path, 1)
    full()
    with pytest.raises(InputError, match="the disk is full") as told:
        write_json(path, 2)
    assert f'"{path}"' in str(told.value) and isinstance(told.value.__cause__, OSError)
    assert type(told.value) is InputError and read_json(path) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"job.json", ".job.json.part"}


def test_json_that_cannot_be_read_is_none(tmp_path):
    path = tmp_path / "job.json"
    assert read_json(path) is None and read_json(tmp_path) is None
    for spoilt in (b"", b'{"a": 1', b'"\xff"'):
        path.write_bytes(spoilt)
        assert read_json(path) is None
    path.write_bytes('"ä"'.encode())
    assert read_json(path) == "ä"


def test_tensors_are_written_to_a_file(tmp_path):
    save_tensors({"a": torch.arange(3)}, tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors")["a"].tolist() == [0, 1, 2]


def test_the_systems_error_is_told_of_tensors_that_cannot_be_written(tmp_path):
    with pytest.raises(OSError) as told:
        save_tensors({"a": torch.ones(1)}, tmp_path / "no" / "a.safetensors")
    assert (told.value.errno, told.value.strerror) == (errno.ENOENT, os.strerror(errno.ENOENT))
    assert isinstance(told.value.__cause__, SafetensorError)


def test_an_error_of_several_digits_is_read_whole(monkeypatch, tmp_path):
    def refuse(*given):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(durable, "save_file", refuse)
    with pytest.raises(OSError) as told:
        save_tensors({}, tmp_path / "a")
    assert (told.value.errno, told.value.strerror) == (28, os.strerror(28))


def test_another_error_of_tensors_is_told_as_it_is(monkeypatch, tmp_path):
    def refuse(*given):
        raise SafetensorError("the header is too large")

    monkeypatch.setattr(durable, "save_file", refuse)
    with pytest.raises(SafetensorError, match="the header is too large"):
        save_tensors({}, tmp_path / "a")


def test_files_and_folders_are_synced_and_closed_again(tmp_path, synced, full, monkeypatch):
    closed, real = [], os.close

    def close(handle):
        closed.append(handle)
        real(handle)

    (tmp_path / "a").write_text("one")
    (tmp_path / "a").chmod(0o444)
    monkeypatch.setattr(os, "close", close)
    sync(tmp_path / "a")
    sync(tmp_path)
    assert synced == numbers_of(tmp_path / "a", tmp_path) and len(closed) == 2
    full()
    with pytest.raises(OSError):
        sync(tmp_path / "a")
    assert len(closed) == 3


def test_folders_are_left_alone_where_the_system_opens_none(tmp_path, synced, monkeypatch):
    (tmp_path / "a").write_text("one")
    monkeypatch.setattr(os, "name", "nt")
    folder, file = tmp_path, tmp_path / "a"
    sync(folder)
    assert synced == []
    sync(file)
    monkeypatch.undo()
    assert synced == numbers_of(file)
