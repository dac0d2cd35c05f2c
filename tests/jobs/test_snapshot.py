"""A state at one moment: what is copied, what is held on to, what is known already, and how it comes back."""

from __future__ import annotations

import pytest
import torch

from hgc_video.cache.store import Lasting, Offloaded
from hgc_video.errors import StateError
from hgc_video.jobs.checkpoint.snapshot import Held, Restored, Snapshot, bytes_of

CPU = torch.device("cpu")


def told_of(storage, offset, shape, stride, dtype="float32"):
    return {
        "storage": storage, "offset": offset, "shape": shape, "stride": stride, "dtype": dtype,
        "host": True,
    }  # fmt: skip


def restored(snapshot, device=CPU):
    return Restored(lambda name: snapshot.storages[name].data, device).made(snapshot.told)


def place(held):
    return held.data.untyped_storage().data_ptr()


def test_plain_data_is_told_by_its_kinds():
    state = {"a": [1, "x", None], "b": (0.5, [True]), "c": {"d": ()}}
    snapshot = Snapshot(state)
    assert snapshot.told == {
        "mapping": {
            "a": [1, "x", None],
            "b": {"tuple": [0.5, [True]]},
            "c": {"mapping": {"d": {"tuple": []}}},
        }
    }
    assert snapshot.storages == {} and restored(snapshot) == state
    assert type(restored(snapshot)["b"]) is tuple


def test_tensors_are_told_by_storage_place_and_layout():
    base = torch.arange(12.0).reshape(3, 4)
    half = torch.ones(2, dtype=torch.bfloat16)
    snapshot = Snapshot({"a": base, "b": [half, base.T[1:]]})
    told = snapshot.told["mapping"]
    assert told["a"] == {"tensor": told_of("0", 0, [3, 4], [4, 1])}
    assert told["b"][0] == {"tensor": told_of("1", 0, [2], [1], "bfloat16")}
    assert told["b"][1] == {"tensor": told_of("0", 1, [3, 3], [1, 4])}
    assert list(snapshot.storages) == ["0", "1"]
    assert [len(held.data) for held in snapshot.storages.values()] == [48, 4]
    assert all(held.data.dtype == torch.uint8 for held in snapshot.storages.values())


def test_what_changes_is_copied_and_not_watched():
    tensor = torch.zeros(3)
    held = Snapshot({"a": tensor}).storages["0"]
    assert (held.checksum, held.source, held.watched) == (None, None, ())
    assert place(held) != tensor.data_ptr()
    tensor.add_(1)
    assert held.data.eq(0).all()
    held.check()


@pytest.mark.parametrize("wrap", [lambda t: Lasting({"x": [(t,)]}), lambda t: Offloaded(lambda: t)])
def test_what_lasts_is_held_on_to_and_watched(wrap):
    tensor = torch.zeros(3)
    held = Snapshot({"a": wrap(tensor)}).storages["0"]
    assert place(held) == tensor.data_ptr() and held.checksum is None
    assert held.source.cdata == tensor.untyped_storage()._cdata
    ((watched, before),) = held.watched
    assert watched is tensor and before == tensor._version
    held.check()
    tensor.add_(1)
    with pytest.raises(StateError) as told:
        held.check()
    assert str(told.value) == "a value that was to last was written to while it was kept"


def test_every_tensor_on_a_storage_that_lasts_is_watched():
    tensor = torch.zeros(4)
    other = tensor.detach()[2:]
    held = Snapshot({"a": Lasting([tensor, other])}).storages["0"]
    assert [one.shape[0] for one, _ in held.watched] == [4, 2]


@pytest.mark.parametrize(
    "order", [lambda one, other: [one, other], lambda one, other: [other, one]]
)
def test_a_storage_lasts_only_where_all_that_is_on_it_does(order):
    tensor = torch.zeros(4)
    asked = []
    held = Snapshot(
        {"a": order(Lasting(tensor[:2]), tensor[2:])}, lambda found: asked.append(found) or {}
    ).storages["0"]
    assert held.source is None and held.watched == () and place(held) != tensor.data_ptr()
    assert asked == [[]]


def test_a_tensor_of_inference_mode_does_not_last():
    with torch.inference_mode():
        tensor = torch.zeros(4)
    held = Snapshot({"a": Lasting(tensor)}).storages["0"]
    assert held.source is None and held.watched == () and place(held) != tensor.data_ptr()


def test_what_is_known_is_not_held_at_all():
    known, new, changing = torch.zeros(2), torch.ones(3), torch.ones(4)
    asked = []

    def kept(storages):
        asked.extend(storages)
        return {known.untyped_storage()._cdata: "sum"}

    snapshot = Snapshot({"a": changing, "b": Lasting([known, new])}, kept)
    assert [one._cdata for one in asked] == [t.untyped_storage()._cdata for t in (known, new)]
    assert snapshot.storages["1"] == Held(None, "sum", None, ())
    assert snapshot.storages["2"].checksum is None and len(snapshot.storages["2"].data) == 12
    snapshot.storages["1"].check()


def test_what_is_offloaded_is_read_when_it_is_asked_for_and_anew_each_time():
    tensor = torch.arange(6.0).reshape(2, 3).T
    snapshot = Snapshot([Offloaded(lambda: tensor), tensor[1]])
    assert snapshot.told[0] == {"offloaded": told_of("0", 0, [3, 2], [1, 3])}
    read = []

    def bytes_by(name):
        read.append(name)
        return snapshot.storages[name].data

    back, beside = Restored(bytes_by, CPU).made(snapshot.told)
    assert read == ["0"] and beside.tolist() == [1, 4]
    one, other = back.load(), back.load()
    assert read == ["0"] * 3 and torch.equal(one, tensor) and one.stride() == tensor.stride()
    one.add_(1)
    assert torch.equal(other, tensor), "each load is of its own"


def test_tensors_that_shared_a_storage_still_do():
    base = torch.arange(6.0)
    one, other, third = restored(Snapshot([base, base[2:], torch.ones(1)]))
    assert one.tolist() == [0, 1, 2, 3, 4, 5] and other.tolist() == [2, 3, 4, 5]
    one[2] = 9
    assert other[0] == 9 and third.untyped_storage()._cdata != one.untyped_storage()._cdata


def test_what_comes_back_is_of_its_own():
    snapshot = Snapshot({"a": torch.zeros(3)})
    restored(snapshot)["a"].add_(1)
    assert snapshot.storages["0"].data.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.bool, torch.complex64])
def test_dtypes_come_back(dtype):
    tensor = torch.tensor([0, 1, 1]).to(dtype)
    back = restored(Snapshot({"a": tensor}))["a"]
    assert back.dtype == dtype and torch.equal(back, tensor)


def test_what_was_not_on_the_host_goes_to_the_device():
    """One storage may be asked for on both."""
    tensor = torch.arange(3.0)
    snapshot = Snapshot([tensor, tensor[1:], tensor[2:]])
    for at in (1, 2):
        snapshot.told[at]["tensor"]["host"] = False
    host, away, too = restored(snapshot, torch.device("meta"))
    assert host.tolist() == [0, 1, 2] and host.device.type == "cpu"
    assert away.device.type == too.device.type == "meta" and away.shape == (2,)
    assert away.untyped_storage()._cdata == too.untyped_storage()._cdata


def test_an_empty_tensor_comes_back():
    back = restored(Snapshot({"a": torch.empty(0, 3)}))["a"]
    assert back.shape == (0, 3) and back.dtype == torch.float32


def test_the_bytes_of_a_storage_are_not_copied():
    tensor = torch.zeros(2, dtype=torch.int16)
    found = bytes_of(tensor[1:].untyped_storage())
    assert found.dtype == torch.uint8 and found.shape == (4,)
    found[0] = 1
    assert tensor[0] == 1
