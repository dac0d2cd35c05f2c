"""The store's two tiers: what is parked and brought back is the same to the bit, and counted."""

from __future__ import annotations

import gc

import pytest
import torch

from hgc_video.cache.offload import MappedHost
from hgc_video.cache.store import Key, Store, Value
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
    assert torch.equal(back, expected) and back.stride() == strides
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
