"""What a checkpoint writes: each storage once, into files that stay while a checkpoint needs them."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from hgc_video.cache.offload import MappedHost
from hgc_video.cache.store import Lasting
from hgc_video.errors import HGCVideoWarning, InputError, StateError
from hgc_video.jobs.checkpoint import shards
from hgc_video.jobs.checkpoint.snapshot import Snapshot
from hgc_video.jobs.checkpoint.work_folder import WorkFolder
from hgc_video.jobs.checkpoint.writer import Abandoned, Writer

CPU = torch.device("cpu")
MIB = 2**18  # numbers of float32


@pytest.fixture
def work(tmp_path):
    return WorkFolder(tmp_path)


def keep(work, **state):
    return work.keep(work.snapshot(state))


def files(work):
    return {path.name for path in work.path.glob("*.safetensors")}


def test_what_lasts_is_written_once_and_what_changes_every_time(work):
    cache, latents = torch.rand(MIB), torch.rand(100)
    assert keep(work, cache=Lasting([cache]), latents=latents) == cache.nbytes + latents.nbytes
    latents.add_(1)
    assert keep(work, cache=Lasting([cache]), latents=latents) == latents.nbytes
    kept = latents.clone()
    latents.add_(1)
    back = WorkFolder(work.path).newest(CPU)
    assert torch.equal(back["cache"][0], cache) and torch.equal(back["latents"], kept)
    assert keep(work, cache=Lasting([cache.clone()])) == 0, (
        "of another place, the bytes are the same"
    )


def test_a_process_that_goes_on_writes_nothing_anew(work):
    cache = torch.rand(MIB)
    keep(work, cache=Lasting(cache))
    again = WorkFolder(work.path)
    assert keep(again, cache=Lasting(again.newest(CPU)["cache"])) == 0
    blind = WorkFolder(work.path)
    assert keep(blind, cache=Lasting(cache)) == cache.nbytes, "it has not seen that these are whole"


def test_files_go_when_no_checkpoint_needs_them(work):
    """Of ten values one is replaced at each checkpoint: no more than twice the state lies there."""
    values = [torch.rand(MIB // 4) for _ in range(10)]
    state_nbytes = sum(value.nbytes for value in values)
    written = keep(work, cache=Lasting(values))
    for at in range(30):
        values[at % 10] = torch.rand(MIB // 4)
        written += keep(work, cache=Lasting(values))
        there = sum(path.stat().st_size for path in work.path.glob("*.safetensors"))
        assert there < 2.5 * state_nbytes
    assert written < 3 * 4 * state_nbytes, "31 times the state, were each written whole"
    back = WorkFolder(work.path).newest(CPU)["cache"]
    assert all(map(torch.equal, back, values))
    keep(work, a=1)
    keep(work, a=1)
    assert not files(work)


def test_a_place_that_is_used_again_is_not_taken_for_what_lay_there(work):
    for at in range(8):
        value = torch.full((MIB,), float(at))
        keep(work, cache=Lasting(value))
        del value
        assert WorkFolder(work.path).newest(CPU)["cache"][0] == at


def test_a_spoilt_file_costs_the_checkpoints_that_need_it(work):
    old, new = torch.rand(100), torch.rand(100)
    keep(work, cache=Lasting([old]))
    keep(work, cache=Lasting([old, new]))
    path = work.path / "tensors-000002-0.safetensors"
    spoilt = bytearray(path.read_bytes())
    spoilt[-1] ^= 1
    path.write_bytes(spoilt)
    again = WorkFolder(work.path)
    with pytest.warns(HGCVideoWarning, match="checkpoint-000002 is left out: tensors-000002"):
        (back,) = again.newest(CPU)["cache"]
    assert torch.equal(back, old)
    keep(again, cache=Lasting([old, new]))
    assert {p.name for p in work.path.glob("checkpoint-*")} == {
        "checkpoint-000001",
        "checkpoint-000003",
    }
    assert len(WorkFolder(work.path).newest(CPU)["cache"]) == 2


def test_what_lasts_may_not_be_written_to(work):
    cache = torch.rand(100)
    snapshot = work.snapshot({"cache": Lasting(cache)})
    cache.add_(1)
    with pytest.raises(StateError, match="was written to"):
        work.keep(snapshot)
    assert not list(work.path.glob("checkpoint-*"))


def test_shards_are_of_a_bounded_size_and_left_when_nobody_needs_them(work, monkeypatch):
    monkeypatch.setattr(shards, "_SHARD_NBYTES", 2**20)
    values = [torch.rand(MIB) for _ in range(3)]
    asked = []

    def going_on():
        asked.append(len(files(work)))
        if len(asked) == 3:
            raise Abandoned

    with pytest.raises(Abandoned):
        work.keep(work.snapshot({"cache": values}), going_on)
    assert asked == [0, 1, 2] and WorkFolder(work.path).newest(CPU) is None
    keep(work, cache=values)
    assert len(files(work)) == 3


def test_a_value_of_the_offload_tier_stays_while_it_is_written():
    host = MappedHost()
    parked = host.park(torch.ones(64))
    reader = parked.tensor[3:]
    parked.free()
    other = host.park(torch.zeros(64))
    assert reader.eq(1).all()
    address = reader.untyped_storage().data_ptr()
    del reader
    assert host.park(torch.zeros(64)).tensor.data_ptr() == address, "then its place is used again"
    assert other.tensor.eq(0).all()


def test_the_writer_writes_one_thing_at_a_time_and_tells_its_errors_later():
    writer, going, on = Writer(), threading.Event(), threading.Event()

    def slow(going_on):
        going.set()
        on.wait(60)
        going_on()
        return 5

    writer.begin(slow)
    assert going.wait(60) and writer.busy
    on.set()
    writer.begin(lambda _: 1 // 0)
    assert [nbytes for _, nbytes in writer.writes] == [5]
    with pytest.raises(ZeroDivisionError):
        writer.wait()
    writer.wait()

    def until_abandoned(going_on):
        while True:
            going_on()

    writer.begin(until_abandoned)
    writer.abandon()
    assert not writer.busy and len(writer.writes) == 1

    def full(going_on):
        raise InputError("the disk is full")

    writer.begin(full)
    with pytest.raises(InputError):
        writer.begin(slow)


def rows(*sizes):
    """Values of so many bytes, no two alike."""
    return [torch.full((size,), at, dtype=torch.uint8) for at, size in enumerate(sizes)]


def go_on():
    pass


def test_values_go_to_a_file_until_it_is_large_enough(tmp_path, monkeypatch):
    """Of 1000 bytes: 999 are too few, and one more is enough."""
    monkeypatch.setattr(shards, "_SHARD_NBYTES", 1000)
    folder = shards.Shards(tmp_path)
    listed, nbytes = folder.write(1, Snapshot({"a": rows(999, 1, 999, 1, 5)}).storages, go_on)
    assert nbytes == 2005
    places = folder.places(listed.values())
    assert [places[listed[name]][-13:-12] for name in "01234"] == ["0", "0", "1", "1", "2"]


@pytest.mark.parametrize(
    ("file_nbytes", "is_kept"), [(800, True), (801, False), (800_000, False), (None, False)]
)
def test_what_lasts_is_known_by_its_place_while_half_of_its_file_is_needed(
    tmp_path, file_nbytes, is_kept
):
    """400 bytes in a file of so many, or in one that is gone. What is kept is not held on to again."""
    folder, (value,) = shards.Shards(tmp_path), rows(400)
    first = Snapshot({"a": Lasting(value)}, folder.kept).storages["0"]
    listed, _ = folder.write(1, {"0": first}, go_on)
    (path,) = tmp_path.iterdir()
    if file_nbytes is None:
        path.unlink()
    else:
        os.truncate(path, file_nbytes)
    again = Snapshot({"a": Lasting(value)}, folder.kept).storages["0"]
    assert (again.data is None, again.checksum) == (is_kept, listed["0"] if is_kept else None)
