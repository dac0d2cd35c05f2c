"""The store's two tiers: what is parked and brought back is the same to the bit, and counted."""

from __future__ import annotations

import errno
import gc
import mmap
import os

import pytest
import torch

from hgc_video.cache import offload
from hgc_video.cache.offload import MappedHost
from hgc_video.cache.store import Key, Offloaded, Store, Value
from hgc_video.errors import CacheStateError
from hgc_video.plan.coefficients import linear

CPU = torch.device("cpu")


def value(seed, *shape, **options):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(**options)
    return Value(tensor, 2, 3)


def key(window, name="a"):
    return Key(1, window, name)


def read(store, at):
    return store.get(at, branches=2, frames=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_was_parked_comes_back_to_the_bit_and_in_its_layout(dtype, layout):
    given = value(0, 6, 5, 4, 7, dtype=dtype, memory_format=layout)
    store = Store()
    store.put(key(0), given)
    expected, strides = given.tensor.clone(), given.tensor.stride()
    store.park(0, CPU)
    given.tensor.zero_()
    back = read(store, key(0))
    assert torch.equal(back, expected) and back.dtype == dtype and back.stride() == strides
    assert back.data_ptr() != given.tensor.data_ptr()


def test_bytes_are_counted_where_they_lie():
    store = Store()
    one, two = value(0, 6, 100), value(1, 6, 50)
    store.put(key(0), one)
    store.put(key(0, "view of it"), Value(one.tensor[:3], 2, 3))
    store.put(key(1), two)
    assert (store.nbytes, store.device.now, store.host.now) == (3600, 3600, 0)
    store.park(1, CPU)
    assert (store.nbytes, store.device.now, store.host.now) == (3600, 2400, 1200)
    store.fetch(1, None)
    assert (store.nbytes, store.device.now, store.host.now) == (3600, 3600, 1200)
    store.park(1, CPU)  # the copy is there still
    assert (store.to_host, store.to_device) == (1200, 1200)
    store.only_windows({0})
    assert (store.nbytes, store.host.now, store.host.peak) == (2400, 0, 1200)
    store.clear()
    assert (store.nbytes, store.device.now, store.device.peak) == (0, 0, 3600)


def test_only_what_is_asked_for_is_fetched():
    store = Store()
    for seed in range(3):
        store.put(key(0), value(seed, 6, 10), depth=3)
    store.put(key(0, "b"), value(3, 6, 10))
    store.park(0, CPU)
    store.fetch(0, {"a": 2})
    assert store.to_device == 2 * 240 == store.device.now
    torch.testing.assert_close(
        store.get(key(0), branches=2, frames=3, coefficients=linear(1.0)),
        2 * value(2, 6, 10).tensor - value(1, 6, 10).tensor,
    )
    assert store.to_device == 480  # nothing more came
    assert torch.equal(read(store, key(0, "b")), value(3, 6, 10).tensor)


def test_no_more_of_the_last_values_are_held_than_asked_for():
    store, values = Store(), [value(seed, 6, 10) for seed in range(4)]
    for one in values:
        store.put(key(0), one, depth=2)
    assert [(kept.frames, kept.branches) for kept in store.values(key(0))] == [(3, 2)] * 2
    for kept, put in zip(store.values(key(0)), (values[3], values[2]), strict=True):
        assert kept.tensor is put.tensor
    assert (store.device.now, store.device.peak) == (480, 720)
    assert store.values(key(1)) == ()
    for one in values[:2]:
        store.put(key(1), one)  # the last one alone, unless more are asked for
    assert len(store.values(key(1))) == 1 and store.device.now == 720
    store.keep_only(1, {})
    store.keep_only(0, {"another": 1})
    assert key(0) not in store and store.device.now == 0


def test_the_prompts_rows_come_last_and_one_branch_is_not_both():
    store, both = Store(), value(0, 6, 10)
    store.put(key(0), both)
    store.put(key(0, "prompt"), Value(both.tensor[:3], 1, 3))
    assert torch.equal(store.get(key(0), branches=1, frames=3), both.tensor[3:])
    with pytest.raises(CacheStateError, match="made for 1 branch is read for 2; let that step"):
        read(store, key(0, "prompt"))
    with pytest.raises(CacheStateError, match="a was stored for 3 rows and is read for 4; start"):
        store.get(key(0), branches=2, frames=4)


def test_a_store_that_was_cleared_parks_again_and_begin_alone_counts_anew():
    store = Store()
    for times in (1, 2):
        store.put(key(0), value(0, 6, 10))
        store.put(key(0, "b"), value(1, 6, 10))
        store.park(0, CPU)
        assert torch.equal(read(store, key(0)), value(0, 6, 10).tensor)
        assert (store.to_host, store.to_device) == (480 * times, 240 * times)
        store.clear()
    assert (store.device.now, store.host.now) == (0, 0)
    assert (store.device.peak, store.host.peak) == (480, 480)
    store.begin()
    assert (store.to_host, store.to_device, store.device.peak, store.host.peak) == (0, 0, 0, 0)


def three_tiers():
    """A store with values on the device (of window 0, the older one is a view of what another name keeps),
    in the offload tier (1) and in both (2); there was more once."""
    store, shared = Store(), value(0, 6, 10)
    store.put(key(3), value(9, 6, 100))
    store.put(key(4), shared)
    store.park(3, CPU)
    store.only_windows({0, 1, 2})
    store.put(key(0), Value(shared.tensor[:3], 1, 3), depth=2)
    store.put(key(0), value(1, 6, 10), depth=2)
    store.put(key(0, "b"), shared)
    for window in (1, 2):
        store.put(key(window), value(1 + window, 8, 10))
        store.park(window, CPU)
    store.fetch(2, None)
    return store


def test_a_store_goes_on_from_its_state_in_the_tiers_where_it_was():
    store = Store()
    store.restore(three_tiers().state(), 7, CPU)
    # Two storages of 240 bytes and one of 320 on the device, and two of 320 in the other tier.
    assert (store.device.now, store.host.now, store.nbytes) == (800, 640, 1120)
    assert (store.device.peak, store.host.peak) == (2640, 2400)
    assert (store.to_host, store.to_device) == (3040, 320)
    newest, older = store.values(Key(7, 0, "a"))
    assert newest[1:] == (2, 3) and torch.equal(newest.tensor, value(1, 6, 10).tensor)
    assert older[1:] == (1, 3) and torch.equal(older.tensor, value(0, 6, 10).tensor[:3])
    assert torch.equal(read(store, Key(7, 2, "a")), value(3, 8, 10).tensor)
    assert store.to_device == 320, "these were there"
    assert torch.equal(read(store, Key(7, 1, "a")), value(2, 8, 10).tensor)
    assert store.to_device == 640
    store.park(2, CPU)  # the copy is there still
    assert (store.device.now, store.host.now, store.to_host) == (800, 640, 3040)


def test_of_a_saved_state_nothing_is_copied_and_what_is_parked_comes_when_asked_for():
    store = three_tiers()
    told = {
        (e["window"], e["name"], i): kept
        for e in store.state()["values"]
        for i, kept in enumerate(e["kept"])
    }
    assert {at for at, kept in told.items() if kept["parked"]} == {(1, "a", 0), (2, "a", 0)}
    assert isinstance(told[1, "a", 0]["tensor"], Offloaded)
    assert (store.device.now, store.to_device) == (800, 320), "to save is not to fetch"
    assert torch.equal(told[1, "a", 0]["tensor"].load(), value(2, 8, 10).tensor)
    assert told[0, "a", 1]["tensor"].data_ptr() == told[0, "b", 0]["tensor"].data_ptr()
    assert told[2, "a", 0]["tensor"] is store.values(key(2))[0].tensor


class LateTier:
    """A tier whose copies arrive when they are waited for, as a GPU's may."""

    def __init__(self):
        self.waits = 0

    def park(self, tensor):
        copy, tier = tensor.clone(), self

        class Late:
            nbytes, tensor = copy.nbytes, copy

            def bring(self):
                back = torch.zeros_like(copy)

                def wait():
                    tier.waits += 1
                    back.copy_(copy)

                return back, wait

            def free(self):
                pass

        return Late()


def test_what_is_on_its_way_is_waited_for_once_and_before_it_is_read_or_saved():
    store, given = Store(), value(0, 6, 10)
    store._host = tier = LateTier()
    store.put(key(0), given)
    expected = given.tensor.clone()
    store.park(0, CPU)
    store.fetch(0, None)
    assert tier.waits == 0
    assert torch.equal(read(store, key(0)), expected)
    read(store, key(0))
    assert tier.waits == 1
    store.park(0, CPU)
    store.fetch(0, None)
    ((saved,),) = (entry["kept"] for entry in store.state()["values"])
    assert torch.equal(saved["tensor"], expected) and tier.waits == 2


def test_old_values_and_other_names_are_let_go_of_in_both_tiers():
    store = Store()
    store.put(key(0), value(0, 6, 10), depth=2)
    store.put(key(0, "hint"), value(1, 6, 10))
    store.park(0, CPU)
    store.put(key(0), value(2, 6, 10), depth=2)
    store.keep_only(0, {"a": 1, "hint": 1})
    assert (store.device.now, store.host.now) == (240, 240)
    store.only_windows({5}, always=("hint",))
    assert key(0, "hint") in store and key(0) not in store
    with pytest.raises(CacheStateError, match="a step before this one must compute it"):
        read(store, key(0))


def test_places_in_the_file_are_used_again():
    host = MappedHost()
    tensor = torch.arange(1000.0)
    parked = [host.park(tensor + i) for i in range(3)]
    end = host._end
    for round_ in range(50):
        parked.pop(0).free()
        parked.append(host.park(tensor * round_))
    assert host._end == end
    back, wait = parked[-1].bring()
    assert wait is None and torch.equal(back, tensor * 49)


@pytest.fixture(params=["posix_fallocate", None])
def small_slabs(request, monkeypatch):
    """A slab is of 64 KiB; and so where the system cannot have room allocated, as macOS."""
    monkeypatch.setattr(offload, "_SLAB_NBYTES", SLAB)
    if request.param is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    elif not hasattr(os, request.param):
        pytest.skip("this system has it not")


SLAB = 2**16


def test_a_slab_is_filled_before_there_is_another_and_none_lies_over_another(small_slabs):
    host, half = MappedHost(), SLAB // 2
    parked = [host.park(torch.full((half,), i, dtype=torch.uint8)) for i in range(6)]
    assert host._end == 3 * SLAB
    for i, one in enumerate(parked):
        assert one.tensor.eq(i).all()
    host.park(torch.zeros(1))
    assert host._end == 4 * SLAB


def test_places_are_aligned_and_do_not_overlap(small_slabs):
    host = MappedHost()
    sizes = [4, 65, 130, 64, 1, 4096]
    given = [torch.full((n,), i, dtype=torch.uint8) for i, n in enumerate(sizes)]
    parked = [host.park(tensor) for tensor in given]
    for one, tensor in zip(parked, given, strict=True):
        assert torch.equal(one.tensor, tensor)
        assert one.tensor.data_ptr() % 64 == 0 and one.nbytes == len(tensor)
    assert host._end == SLAB, "all of them lie in the file"


def test_values_larger_than_a_slab_fit(tmp_path):
    host = MappedHost()
    large = torch.arange(6_000_000)
    assert torch.equal(host.park(large).bring()[0], large)


def test_the_file_is_gone_with_its_store():
    store = Store()
    store.put(key(0), value(0, 6, 10))
    store.park(0, CPU)
    file = store._host._file
    store.clear()
    gc.collect()
    assert file.closed


def test_a_full_disk_is_told_with_what_to_do():
    host = MappedHost()
    host._end = 2**62  # beyond what any file may be
    with pytest.raises(CacheStateError, match="TMPDIR"):
        host.park(torch.zeros(10))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system allocates no room")
def test_room_in_the_file_is_taken_when_it_is_mapped(monkeypatch):
    """A disk that is full is found then: a page of a mapped file that finds no room is a signal."""

    def full(fd, offset, nbytes):
        assert nbytes % mmap.ALLOCATIONGRANULARITY == 0
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CacheStateError, match="No space left on device"):
        MappedHost().park(torch.zeros(10))


def test_meta_tensors_wait_as_shapes():
    """Their bytes are counted in both tiers, as those of real ones."""
    meta, store = torch.device("meta"), Store()
    tensor = torch.empty(6, 5, 4, 7, dtype=torch.bfloat16, device=meta)
    store.put(key(0), Value(tensor.to(memory_format=torch.channels_last), 2, 3))
    strides = read(store, key(0)).stride()
    store.park(0, meta)
    assert (store.device.now, store.host.now) == (0, 1680)
    (saved,) = store.state()["values"][0]["kept"]
    for back in (saved["tensor"].load(), read(store, key(0))):
        assert (back.shape, back.stride(), back.dtype) == (tensor.shape, strides, tensor.dtype)
        assert back.is_meta
    assert (store.device.now, store.to_device) == (1680, 1680)
    store.clear()
    assert (store.device.now, store.host.now) == (0, 0)


def test_the_layout_of_a_copy_is_found_without_its_memory():
    """Beside a tensor that fills a device there is no room for another one."""
    assert offload._strides(torch.zeros(1).expand(2**50)) == (1,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_copies_wait_for_nobody_and_are_exact():
    device = torch.device("cuda")
    store = Store()
    tensors = [torch.randn(2**22, device=device) for _ in range(4)]
    expected = [t.clone() for t in tensors]
    for window, tensor in enumerate(tensors):
        store.put(key(window), Value(tensor, 2, 3))
        store.park(window, device)
    del tensors, tensor
    busy = torch.randn(4096, 4096, device=device)
    for _ in range(3):
        for window in range(4):
            store.fetch((window + 1) % 4, None)
            busy = busy @ busy / 64
            assert torch.equal(read(store, key(window)), expected[window])
            store.park(window, device)
    assert store.host.now == 4 * 2**24


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_combination_of_the_last_values_has_its_coefficients(dtype):
    store, values = Store(), [value(seed, 6, 10, dtype=dtype) for seed in range(3)]
    for one in values:
        store.put(key(0), one, depth=3)
    options = {"branches": 2, "frames": 3, "coefficients": (30.0, -45.0, 16.0)}
    found = store.get(key(0), **options)
    third, second, newest = (one.tensor.double() for one in values)
    expected = 30 * newest - 45 * second + 16 * third
    torch.testing.assert_close(found, expected.to(dtype))  # in bfloat16 too, though they cancel
    for progress in (1.0, 0.5):
        told = store.get(key(0), **options, progress=torch.tensor([progress]))
        rule = newest + progress * (expected - newest)
        torch.testing.assert_close(told, rule.to(dtype), rtol=2e-2, atol=0.5)
    with pytest.raises(CacheStateError, match=r"3 values are stored .* 4 are read"):
        store.get(key(0), branches=2, frames=3, coefficients=(1.0,) * 4)


def test_two_coefficients_of_a_slope_are_that_slope_to_the_bit():
    store, (older, newest) = Store(), [value(seed, 6, 10) for seed in range(2)]
    store.put(key(0), older, depth=2)
    store.put(key(0), newest, depth=2)
    for slope in (0.5, 0.123457, 1.2):
        found = store.get(key(0), branches=2, frames=3, coefficients=linear(slope))
        assert torch.equal(found, newest.tensor + slope * (newest.tensor - older.tensor))
