"""Windows that are not at work send their values away and get them back in time, where there are many."""

from __future__ import annotations

import pytest
import torch

from hgc_video.cache.idle_windows import IdleWindows
from hgc_video.cache.prepared import PreparedSchedule
from hgc_video.cache.store import Key, Store, Value
from hgc_video.plan.presets import resolve
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.plan.test_graph import ladder

CPU = torch.device("cpu")
DEEP, ZERO = "unet.deep", "controlnet.zero"
BOTH = 24  # bytes of a window's two values, of which DEEP has 16 and ZERO 8
NAMES = {DEEP: 4, ZERO: 2}


def works(*steps):
    """A schedule of the ladder: what a step reads is what it reuses."""
    return PreparedSchedule(Schedule("test", steps), ladder())


READS_DEEP, READS_BOTH = StepPlan(frozenset({DEEP})), StepPlan(frozenset({DEEP, ZERO}))
PLAN = (StepPlan(), READS_DEEP, READS_BOTH)


def stored(*windows):
    """A store that has both values of every window, on the device."""
    store = Store()
    for window in windows:
        for name, count in NAMES.items():
            store.put(Key(1, window, name), Value(torch.zeros(count), 1, count))
    return store


def idle(*windows, spill=True, there=2, following=0):
    """Idle windows over a store in which all of them wait in the offload tier."""
    store = stored(*windows)
    for window in windows:
        store.park(window, CPU)
    made = IdleWindows(store, spill=spill, there=there)
    made.come(windows, following)
    return made, store


def back(store):
    """The names that are on the device, by window."""
    return sorted(
        (key.window, key.name)
        for key, kept in store._values.items()
        for one in kept
        if one.here is not None
    )


def test_at_first_there_is_one_window():
    store = stored(0, 1)
    made = IdleWindows(store, spill=True, there=0)
    assert made.first == 0
    made.park(0, CPU)
    assert store.device.now == BOTH and store.host.now == BOTH
    made.fetch(works(StepPlan(), READS_DEEP), 0, 0)
    assert back(store) == [(0, DEEP), (1, ZERO), (1, DEEP)], (
        "the step after it begins with window 0"
    )


def test_the_windows_of_a_step_come_in_their_order():
    made = IdleWindows(Store(), spill=True, there=2)
    for windows in ([8, 4, 6], {6, 4, 8}, (4,)):
        made.come(windows, 9)
        assert made.first == 4


def test_a_window_brings_what_it_reads_itself_and_what_the_next_one_does():
    made, store = idle(4, 8, 0)
    made.fetch(works(*PLAN), 1, 4)
    assert back(store) == [(4, DEEP), (8, DEEP)]
    assert store.to_device == 2 * 16


def test_the_order_is_that_of_the_windows_and_not_that_in_which_they_were_told():
    made, store = idle(8, 0, 4)
    made.fetch(works(*PLAN), 2, 0)
    assert back(store) == [(0, ZERO), (0, DEEP), (4, ZERO), (4, DEEP)]


def test_the_last_window_brings_what_the_next_step_reads_first():
    made, store = idle(0, 4, 8, following=4)
    made.fetch(works(*PLAN), 1, 8)
    assert back(store) == [(4, ZERO), (4, DEEP), (8, DEEP)]


def test_after_the_last_step_nothing_follows():
    made, store = idle(0, 4, 8, following=4)
    made.fetch(works(*PLAN), 2, 8)
    assert back(store) == [(8, ZERO), (8, DEEP)]


def test_a_step_that_reads_nothing_brings_nothing():
    made, store = idle(0, 4, 8)
    made.fetch(works(*PLAN), 0, 0)
    assert back(store) == [] and store.to_device == 0


def test_where_what_is_read_is_decided_at_run_time_all_of_a_window_comes():
    plan = resolve("easycache:threshold=9,warm_up=1").schedule(ladder(), 3)
    made, store = idle(0, 4, 8, following=0)
    prepared = PreparedSchedule(plan, ladder())
    made.fetch(prepared, 1, 4)
    assert back(store) == [(4, ZERO), (4, DEEP), (8, ZERO), (8, DEEP)]
    made.fetch(prepared, 1, 8)
    assert (0, DEEP) in back(store) and (0, ZERO) in back(store)


@pytest.mark.parametrize(
    ("spill", "windows", "there", "waits"),
    [(True, 3, 2, True), (True, 2, 2, False), (True, 1, 2, False), (True, 2, 1, True), (False, 3, 2, False)],
)  # fmt: skip
def test_values_are_sent_away_where_there_are_more_windows_than_may_be_there(
    spill, windows, there, waits
):
    order = range(windows)
    store = stored(*order)
    made = IdleWindows(store, spill=spill, there=there)
    made.come(order, 0)
    made.park(0, CPU)
    assert store.host.now == (BOTH if waits else 0)
    assert store.device.now == BOTH * (windows - 1 if waits else windows)
    store.park(0, CPU)
    made.fetch(works(*PLAN), 1, 0)
    assert ((0, DEEP) in back(store)) == waits


def test_a_window_alone_is_parked_and_by_its_number():
    store = stored(3, 5, 7)
    made = IdleWindows(store, spill=True, there=2)
    made.come((3, 5, 7), 3)
    made.park(5, CPU)
    assert {window for window, _ in back(store)} == {3, 7}


def test_values_without_numbers_are_parked_as_shapes():
    store = Store()
    for window in range(2):
        meta = torch.empty(4, device="meta")
        store.put(Key(1, window, DEEP), Value(meta, 1, 4))
    made = IdleWindows(store, spill=True, there=1)
    made.come((0, 1), 0)
    made.park(0, torch.device("meta"))
    made.fetch(works(*PLAN), 1, 0)
    assert back(store) == [(0, DEEP), (1, DEEP)] and store.to_host == store.to_device == 16
