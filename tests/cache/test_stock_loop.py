"""A stock pipeline's loop is followed from its progress bar, which is put back, as is all else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler
from tqdm.auto import tqdm

from hgc_video.cache.stock_loop import LoopListener
from hgc_video.errors import CacheStateError
from tests.cache.loop_parts import Image, Loop, Pipe, another_call


def test_a_new_listener_has_done_nothing_to_the_pipeline():
    pipe = Pipe(DDIMScheduler())
    before = dict(vars(pipe))
    made = LoopListener(pipe, [Pipe.__call__], print, print)
    assert vars(pipe) == before and made.pipe is pipe
    assert made.begins is made.ends is print and made.num_tokens == 1
    made.stop()
    assert vars(pipe) == before
    made.check_thread()


def test_a_loop_begins_and_ends_and_gives_what_it_gives_without_us():
    loop = Loop()
    inside = []
    out = loop.pipe(callback=lambda i: inside.append((i, list(loop.told))))
    assert torch.equal(out, torch.tensor([3.0, 3.0]))
    assert loop.told == ["begin", True] and inside == [(0, ["begin"]), (1, ["begin"])]
    loop.pipe()
    assert loop.told == ["begin", True] * 2


def test_methods_are_wrapped_and_put_back():
    loop = Loop()
    ours = {"check_inputs", "encode_prompt", "prepare_latents", "progress_bar"}
    assert vars(loop.pipe).keys() - loop.before.keys() == ours
    latents = loop.pipe.prepare_latents((3,), fill=2.0)
    assert latents.tolist() == [2, 2, 2] and loop.told == []
    loop.listener.stop()
    assert vars(loop.pipe) == loop.before
    loop.pipe()
    assert loop.told == []
    loop.listener.start()
    loop.pipe()
    loop.listener.stop()
    assert loop.told == ["begin", True] and vars(loop.pipe) == loop.before


def test_a_pipeline_without_a_prompt_has_one_token():
    loop = Loop(Image(DDIMScheduler()))
    assert vars(loop.pipe).keys() - loop.before.keys() == {"_encode_image", "progress_bar"}
    loop.pipe()
    assert loop.told == ["begin", True] and loop.listener.num_tokens == 1


def test_the_tokens_are_those_of_the_last_prompt_and_not_of_the_negative_one():
    loop = Loop()
    loop.pipe(prompt="abcde")
    assert loop.listener.num_tokens == 5 and type(loop.listener.num_tokens) is int
    prompt, negative = loop.pipe.encode_prompt("abcdefg", negative="x")
    assert loop.listener.num_tokens == 7 and (prompt.shape[1], negative.shape[1]) == (7, 1)
    assert loop.told == ["begin", True]


def test_a_loop_that_an_error_leaves_ends_and_is_not_whole():
    loop = Loop()

    def broken(step):
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            loop.pipe(callback=broken)
    loop.pipe()
    assert loop.told == ["begin", False] * 2 + ["begin", True]


def test_an_error_before_the_loop_begins_none():
    loop = Loop()
    with pytest.raises(ValueError, match="no prompt"):
        loop.pipe(prompt=None)
    assert loop.told == []
    loop.pipe()
    assert loop.told == ["begin", True]


def test_bars_one_after_the_other_are_a_loop_each():
    """As FreeInit has them."""
    loop = Loop()
    loop.pipe(bars=3)
    assert loop.told == ["begin", True] * 3


def test_a_call_in_a_callback_has_a_loop_of_its_own():
    loop = Loop()

    def again(step):
        if step == 0:
            loop.pipe(steps=1)
        loop.told.append(step)

    loop.pipe(callback=again)
    assert loop.told == ["begin", "begin", True, 0, 1, True]


def test_a_bar_within_the_loop_is_no_loop():
    loop = Loop()

    def counted(step):
        bar = loop.pipe.progress_bar(total=2)
        assert isinstance(bar, tqdm)
        with bar as inner:
            inner.update()

    loop.pipe(callback=counted)
    assert loop.told == ["begin", True]


def test_of_bars_that_lie_within_each_other_the_outer_one_is_the_loop():
    """Both are made before either is entered."""
    told = []

    class Two(Pipe):
        def __call__(self):
            assert self.scheduler is not None
            outer, inner = self.progress_bar(total=1), self.progress_bar(total=1)
            with outer:
                with inner:
                    told.append(list(loop.told))
                told.append(list(loop.told))

    loop = Loop(Two(DDIMScheduler()))
    loop.pipe()
    assert told == [["begin"], ["begin"]] and loop.told == ["begin", True]


def test_a_bar_outside_of_a_call_is_a_plain_one():
    loop = Loop()
    bar = loop.pipe.progress_bar([1, 2])
    assert isinstance(bar, tqdm) and list(bar) == [1, 2] and loop.told == []


def test_the_bar_of_a_loop_does_all_that_a_bar_does():
    class Looking(Pipe):
        def __call__(self, steps=2):
            assert self.scheduler is not None
            bar = self.progress_bar(range(steps))
            with bar as entered:
                return list(bar), bar.total, entered

    loop = Loop(Looking(DDIMScheduler()))
    rows, total, entered = loop.pipe()
    assert (rows, total) == ([0, 1], 2) and isinstance(entered, tqdm)
    assert loop.told == ["begin", True]


class NotedBar:
    """A bar that notes how it is left."""

    def __init__(self, told):
        self.told = told

    def __enter__(self):
        self.told.append("entered")
        return self

    def __exit__(self, *error):
        self.told.append(error)

    def update(self):
        pass


def noted(loop):
    """Puts a progress bar on the pipeline that notes what is done with it."""
    loop.pipe.progress_bar = lambda total: NotedBar(loop.told)


def test_a_bar_that_was_put_on_the_pipeline_since_is_followed_too():
    loop = Loop()
    noted(loop)
    loop.pipe()
    assert loop.told == ["begin", "entered", True, (None, None, None)]
    noted(loop)
    loop.pipe()
    assert loop.told[4:] == loop.told[:4]
    loop.listener.stop()
    loop.told.clear()
    loop.pipe()
    assert loop.told == ["entered", (None, None, None)], "theirs stays"


def test_the_bar_is_wrapped_once_however_often_the_pipeline_is_called():
    loop = Loop()
    bar = loop.pipe.progress_bar
    for _ in range(3):
        loop.pipe()
    assert loop.pipe.progress_bar is bar and loop.told == ["begin", True] * 3


def test_the_bar_is_told_of_an_error_and_is_left_also_where_our_end_fails():
    loop = Loop(fails="end")
    noted(loop)

    def broken(step):
        raise ZeroDivisionError("theirs")

    with pytest.raises(CacheStateError, match="what ends fails"):
        loop.pipe(callback=broken)
    begin, entered, whole, (kind, error, trace) = loop.told
    assert (begin, entered, whole) == ("begin", "entered", False)
    assert kind is ZeroDivisionError and str(error) == "theirs" and trace is error.__traceback__
    loop.fails = ""
    loop.told.clear()
    loop.pipe()
    assert loop.told == ["begin", "entered", True, (None, None, None)], "no loop was left open"


def test_a_loop_whose_beginning_fails_is_not_open():
    loop = Loop(fails="begin")
    with pytest.raises(CacheStateError, match="what begins fails"):
        loop.pipe()
    assert loop.told == ["begin"]
    loop.fails = ""
    loop.pipe()
    assert loop.told == ["begin", "begin", True]


def test_an_end_is_told_once():
    loop, frame = Loop(), SimpleNamespace()
    assert loop.listener.enter(frame) is True and loop.listener.enter(frame) is False
    loop.listener.leave(frame, True)
    loop.listener.leave(frame, True)
    assert loop.told == ["begin", True]
    assert loop.listener.enter(frame) is True, "and can begin again"


def test_only_the_calls_that_are_named_have_a_loop():
    loop = Loop(calls=[])
    loop.pipe()
    assert loop.told == []


def test_another_pipeline_of_the_class_is_none_of_ours():
    loop, other = Loop(), Pipe(DDIMScheduler())
    loop.pipe(callback=lambda step: other(steps=1))
    assert loop.told == ["begin", True]
    other(callback=lambda step: loop.pipe.prepare_latents() if step == 0 else None)
    other(callback=lambda step: loop.pipe(steps=1) if step == 0 else None)
    assert loop.told == ["begin", True] * 2


def test_a_subclass_that_calls_the_loop_is_followed():
    class Own(Pipe):
        def __call__(self, *args, **kwargs):
            self.scheduler.set_timesteps(1)
            return super().__call__(*args, **kwargs)

    loop = Loop(Own(DDIMScheduler()), calls=[Pipe.__call__])
    loop.pipe(steps=1)
    assert loop.told == ["begin", True]
    loop.pipe.encode_prompt("abcd")


def test_a_call_of_the_pipelines_own_class_that_was_there_before_is_not_refused():
    class Own(Pipe):
        def __call__(self):
            self.encode_prompt("ab")
            with self.progress_bar(total=1):
                return self.scheduler

    loop = Loop(Own(DDIMScheduler()), calls=[Pipe.__call__])
    assert loop.pipe() is loop.pipe.scheduler
    assert loop.told == [] and loop.listener.num_tokens == 2


def test_a_call_with_a_loop_of_its_own_that_came_later_is_refused(monkeypatch):
    class Own(Pipe):
        pass

    loop = Loop(Own(DDIMScheduler()))
    monkeypatch.setattr(Own, "__call__", another_call)
    with pytest.raises(CacheStateError) as told:
        loop.pipe()
    assert str(told.value) == (
        "Own.__call__ was replaced after the cache was enabled, so that its loop cannot be followed; "
        "disable the cache, or put the __call__ back"
    )
    assert loop.told == []
    assert another_call(Own(DDIMScheduler())) is not None, "of another pipeline it is none of ours"
    monkeypatch.undo()
    loop.pipe()
    assert loop.told == ["begin", True]


def test_a_call_that_came_later_and_calls_the_loop_is_followed(monkeypatch):
    class Own(Pipe):
        pass

    loop, stock = Loop(Own(DDIMScheduler())), Pipe.__call__

    def __call__(self, *args, **kwargs):
        return stock(self, *args, **kwargs)

    monkeypatch.setattr(Own, "__call__", __call__)
    loop.pipe()
    assert loop.told == ["begin", True]


def test_what_is_no_call_may_read_the_scheduler():
    loop = Loop()

    def helper(self):
        self.prepare_latents()
        return self.scheduler

    assert helper(loop.pipe) is loop.pipe.scheduler and loop.told == []


def test_a_bar_that_cannot_be_opened_leaves_no_loop_open():
    class Broken:
        def __enter__(self):
            raise RuntimeError("no terminal")

        def __exit__(self, *_):
            raise AssertionError("it was not entered")

    class Quiet(Pipe):
        def progress_bar(self, *_, **__):
            return Broken()

    loop = Loop(Quiet(DDIMScheduler()))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no terminal"):
            loop.pipe()
    assert loop.told == ["begin", False] * 2
