"""What is written beside the run: one thing at a time, its errors told once, left when it is abandoned."""

from __future__ import annotations

import threading
import time

import pytest

from hgc_video.errors import InputError
from hgc_video.jobs.checkpoint.writer import Abandoned, Writer


class Slow:
    """Writes until it is let go; `began` when it is under way."""

    def __init__(self, nbytes=5):
        self.nbytes, self.began, self.go = nbytes, threading.Event(), threading.Event()
        self.thread = None

    def __call__(self, going_on):
        self.thread = threading.current_thread()
        self.began.set()
        assert self.go.wait(30)
        going_on()
        return self.nbytes


def fails(error):
    def write(going_on):
        raise error

    return write


def test_nothing_is_written_at_first():
    writer = Writer()
    assert writer.writes == [] and writer.busy is False
    writer.check()
    writer.wait()
    writer.abandon()
    assert writer.busy is False


def test_what_is_written_is_counted_with_its_seconds():
    writer = Writer()

    def write(going_on):
        time.sleep(0.02)
        return 7

    began = time.monotonic()
    writer.begin(write)
    writer.wait()
    ((seconds, nbytes),) = writer.writes
    assert nbytes == 7 and 0.02 <= seconds <= time.monotonic() - began


def test_it_is_written_beside_the_run_in_a_thread_that_ends_with_the_process():
    writer, slow = Writer(), Slow()
    writer.begin(slow)
    assert slow.began.wait(30) and writer.busy is True and writer.writes == []
    assert slow.thread is not threading.current_thread()
    assert slow.thread.daemon and slow.thread.name == "checkpoint"
    slow.go.set()
    slow.thread.join()
    assert writer.busy is False, "though nobody has waited for it"
    assert [nbytes for _, nbytes in writer.writes] == [5]
    writer.wait()
    assert writer.busy is False


def test_the_next_begins_when_the_one_before_is_written():
    writer, slow, seen = Writer(), Slow(), []
    writer.begin(slow)
    threading.Timer(0.02, slow.go.set).start()
    writer.begin(lambda _: seen.append(len(writer.writes)) or 3)
    writer.wait()
    assert seen == [1] and [nbytes for _, nbytes in writer.writes] == [5, 3]


def test_an_error_is_told_once_by_whatever_asks_next():
    writer, error = Writer(), InputError("full")
    for ask in (writer.wait, lambda: writer.begin(lambda _: 1)):
        writer.begin(fails(error))
        with pytest.raises(InputError) as told:
            ask()
        assert told.value is error and not writer.busy
        writer.check()
        writer.wait()
    assert writer.writes == [], "what was asked for after the error was not begun"


def test_an_error_is_told_by_a_check_as_soon_as_it_is_there():
    writer, slow = Writer(), Slow()
    writer.begin(slow)
    writer.check()
    slow.go.set()
    writer.wait()
    writer.begin(fails(InputError("full")))
    writer._thread.join()
    with pytest.raises(InputError, match="full"):
        writer.check()
    writer.check()
    writer.wait()


def test_what_is_abandoned_is_left_and_no_error():
    writer, slow = Writer(), Slow()
    writer.begin(lambda _: 2)
    writer.begin(slow)
    assert slow.began.wait(30)
    threading.Timer(0.02, slow.go.set).start()
    writer.abandon()
    assert not writer.busy and not slow.thread.is_alive()
    assert [nbytes for _, nbytes in writer.writes] == [2]
    writer.check()
    writer.wait()
    again = Slow(9)
    again.go.set()
    writer.begin(again)
    writer.wait()  # what is begun after that is not abandoned
    assert [nbytes for _, nbytes in writer.writes] == [2, 9]


def test_an_error_of_what_is_abandoned_is_not_told():
    writer = Writer()
    writer.begin(fails(InputError("full")))
    writer.abandon()
    writer.check()
    writer.begin(lambda _: 4)
    writer.wait()
    assert [nbytes for _, nbytes in writer.writes] == [4]


def test_what_asks_is_told_to_stop_when_it_is_abandoned():
    writer, seen = Writer(), []

    def write(going_on):
        seen.append(going_on())
        writer._abandoned.set()
        try:
            going_on()
        except Abandoned as told:
            seen.append(type(told))
            raise

    writer.begin(write)
    writer.wait()
    assert seen == [None, Abandoned] and writer.writes == []
