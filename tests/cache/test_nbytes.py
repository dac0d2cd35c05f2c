"""Bytes of tensors are counted by storage, as they come and go, with the most there were at once."""

from __future__ import annotations

import torch

from hgc_video.cache.nbytes import Count, Tally, storage_nbytes


def numbers(count, dtype=torch.float32):
    return torch.zeros(count, dtype=dtype)


def test_a_count_begins_with_nothing():
    for count in (Count(), Tally()):
        assert (count.now, count.peak) == (0, 0)


def test_bytes_come_and_go_and_the_most_there_were_stays():
    count, told = Count(), []
    for change in (count.add, count.add, count.remove, count.add, count.remove):
        change({0: 3, 1: 5, 2: 4, 3: 2, 4: 6}[len(told)])
        told.append((count.now, count.peak))
    assert told == [(3, 3), (8, 8), (4, 8), (6, 8), (0, 8)]


def test_a_count_that_grows_again_beyond_its_peak_has_a_new_one():
    count = Count()
    count.add(5)
    count.remove(2)
    count.add(3)
    assert (count.now, count.peak) == (6, 6)


def test_a_tensor_is_counted_while_it_is_held():
    tally, one, two = Tally(), numbers(10), numbers(3, torch.float64)
    tally.hold(one)
    tally.hold(two)
    assert (tally.now, tally.peak) == (64, 64)
    tally.let_go(one)
    assert (tally.now, tally.peak) == (24, 64)
    tally.hold(one)
    tally.let_go(two)
    assert (tally.now, tally.peak) == (40, 64)
    tally.let_go(one)
    assert (tally.now, tally.peak) == (0, 64)


def test_tensors_of_one_storage_count_it_once_until_the_last_one_is_let_go():
    tally, whole = Tally(), numbers(10)
    views = [whole, whole[:3], whole.view(2, 5).T, whole]
    for view in views:
        tally.hold(view)
        assert (tally.now, tally.peak) == (40, 40)
    for view in views[:-1]:
        tally.let_go(view)
        assert tally.now == 40
    tally.let_go(views[-1])
    assert (tally.now, tally.peak) == (0, 40)


def test_a_part_of_a_storage_counts_as_all_of_it():
    tally, part = Tally(), numbers(10)[2:4]
    tally.hold(part)
    assert tally.now == 40
    tally.let_go(part)
    assert tally.now == 0


def test_what_was_let_go_by_all_is_new_when_it_is_held_again():
    tally, tensor = Tally(), numbers(2)
    for _ in range(2):
        tally.hold(tensor)
        tally.hold(tensor[:1])
        assert tally.now == 8
        tally.let_go(tensor)
        tally.let_go(tensor)
        assert tally.now == 0


def test_tensors_without_numbers_have_bytes_too():
    tally, tensor = Tally(), torch.empty(2, 3, dtype=torch.float16, device="meta")
    tally.hold(tensor)
    assert tally.now == 12
    tally.let_go(tensor)
    assert tally.now == 0


def test_the_bytes_of_several_tensors_are_those_of_their_storages():
    one, two = numbers(10), numbers(6, torch.uint8)
    assert storage_nbytes([]) == 0
    assert storage_nbytes([one, two]) == 46
    assert storage_nbytes(iter([one[:1], two, one, one.view(5, 2)])) == 46
    assert storage_nbytes([one.clone(), one]) == 80
