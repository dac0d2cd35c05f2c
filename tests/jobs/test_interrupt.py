"""Ctrl-C once finishes the step where it can be kept; twice, or where it cannot, it stops at once."""

from __future__ import annotations

import signal
import threading

import pytest

from hgc_video.jobs.checkpoint.interrupt import finishing_the_step
from hgc_video.jobs.checkpoint.keeper import FolderKeeper
from hgc_video.jobs.checkpoint.work_folder import WorkFolder

BOTH = (signal.SIGINT, signal.SIGTERM)
pytestmark = pytest.mark.usefixtures("stock_signals")


@pytest.fixture
def keeper(tmp_path):
    return FolderKeeper(lambda: WorkFolder(tmp_path), 60.0, at_once=True)


def handlers():
    return [signal.getsignal(number) for number in BOTH]


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_is_noted_and_the_second_stops_at_once(keeper, capsys, number):
    with pytest.raises(KeyboardInterrupt), finishing_the_step(keeper):
        assert not keeper.interrupted
        signal.raise_signal(number)
        assert keeper.interrupted is True
        told = "\nfinishing the step to keep it; once more to stop at once\n"
        assert capsys.readouterr() == ("", told)
        signal.raise_signal(number)
        raise AssertionError("it went on")
    assert keeper.interrupted and capsys.readouterr() == ("", "")


def test_a_signal_after_another_one_stops_at_once(keeper):
    with pytest.raises(KeyboardInterrupt), finishing_the_step(keeper):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", BOTH)
def test_without_a_folder_the_first_signal_stops_at_once(tmp_path, capsys, number):
    keeper = FolderKeeper(lambda: WorkFolder(tmp_path), 60.0, at_once=False)
    with pytest.raises(KeyboardInterrupt), finishing_the_step(keeper):
        signal.raise_signal(number)
    assert keeper.interrupted is False and capsys.readouterr().err == ""


def test_handlers_are_put_back_however_the_block_ends(keeper):
    before = handlers()
    with finishing_the_step(keeper):
        assert all(now is not was for now, was in zip(handlers(), before, strict=True))
        assert handlers()[0] is handlers()[1]
    assert handlers() == before
    with pytest.raises(ZeroDivisionError), finishing_the_step(keeper):
        raise ZeroDivisionError
    assert handlers() == before == [signal.default_int_handler, signal.SIG_DFL]


@pytest.mark.parametrize("own", [lambda number, frame: None, signal.SIG_IGN])
@pytest.mark.parametrize("number", BOTH)
def test_a_programs_own_handler_is_left_alone(keeper, number, own):
    signal.signal(number, own)
    (other,) = set(BOTH) - {number}
    with finishing_the_step(keeper):
        assert signal.getsignal(number) is own
        signal.raise_signal(number)
        assert not keeper.interrupted
        signal.raise_signal(other)
        assert keeper.interrupted
    assert signal.getsignal(number) is own


def test_other_threads_change_no_handler(keeper):
    seen, before = [], handlers()

    def inside():
        with finishing_the_step(keeper):
            seen.append(handlers())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before] and handlers() == before
