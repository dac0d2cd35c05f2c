"""A stock pipeline's loop is followed from its progress bar and its scheduler, and both are put back."""

from __future__ import annotations

import gc
import math
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler
from tqdm.auto import tqdm

from hgc_video.cache.finite import FiniteLatents
from hgc_video.cache.stock_loop import LoopListener, SchedulerListener
from hgc_video.errors import CacheStateError, NumericalError

LATENTS = torch.linspace(-1, 1, 12).reshape(1, 1, 3, 4)


# The scheduler


class Heard:
    """A listener on a scheduler and what it told, as it came."""

    def __init__(self, scheduler=None, steps=3):
        self.scheduler, self.told, self.latents = scheduler or DDIMScheduler(), [], []
        self.scheduler.set_timesteps(steps)
        finite = FiniteLatents(steps, lambda step: "full")
        self.listener = SchedulerListener(self.scheduler, self.begins, self.ends, finite)

    def begins(self, index, latents):
        self.told.append(index)
        self.latents.append(latents)

    def ends(self):
        self.told.append("end")

    def step(self, sample, scalings=1, **options):
        """One step of a loop, whose models give what they get."""
        t = self.scheduler.timesteps[self.listener.index]
        for _ in range(scalings):
            scaled = self.scheduler.scale_model_input(sample, timestep=t)
        self.told.append("models")
        return scaled, self.scheduler.step(scaled, t, sample, **options)


def test_a_new_listener_has_done_nothing_to_the_scheduler():
    heard = Heard()
    before = dict(vars(heard.scheduler))
    made = SchedulerListener(heard.scheduler, heard.begins, heard.ends, heard.listener.finite)
    assert vars(heard.scheduler) == before and made.index == 0
    assert made.scheduler is heard.scheduler and made.finite is heard.listener.finite
    made.stop()
    assert vars(heard.scheduler) == before and heard.told == []


def test_every_step_begins_before_its_models_and_ends_behind_them():
    heard, stock = Heard(EulerDiscreteScheduler()), EulerDiscreteScheduler()
    stock.set_timesteps(3)
    heard.listener.start()
    ours = theirs = LATENTS
    for index, t in enumerate(stock.timesteps):
        assert heard.listener.index == index
        scaled, done = heard.step(ours)
        expected = stock.scale_model_input(theirs, t)
        assert torch.equal(scaled, expected) and not torch.equal(scaled, ours)
        assert heard.latents[index] is scaled, "as the models get them"
        ours, theirs = done.prev_sample, stock.step(expected, t, theirs).prev_sample
        assert torch.equal(ours, theirs)
    assert heard.told == [0, "models", "end", 1, "models", "end", 2, "models", "end"]
    assert heard.listener.index == 3


@pytest.mark.parametrize("return_dict", [True, False])
def test_what_the_scheduler_gives_is_handed_on_as_it_is(return_dict):
    heard = Heard()
    heard.listener.start()
    _, done = heard.step(LATENTS, return_dict=return_dict)
    assert isinstance(done, tuple) != return_dict
    assert done[0].shape == LATENTS.shape


def test_latents_that_are_scaled_a_second_time_within_a_step_begin_no_other():
    heard = Heard()
    heard.listener.start()
    heard.step(LATENTS, scalings=3)
    heard.step(LATENTS, scalings=2)
    assert heard.told == [0, "models", "end", 1, "models", "end"]


def test_a_step_without_scaling_is_counted_and_neither_begins_nor_ends():
    heard = Heard()
    heard.listener.start()
    heard.step(LATENTS, scalings=1)
    heard.scheduler.step(LATENTS, heard.scheduler.timesteps[1], LATENTS)
    assert heard.told == [0, "models", "end"] and heard.listener.index == 2
    heard.step(LATENTS)
    assert heard.told[3:] == [2, "models", "end"]


def test_a_step_ends_before_the_scheduler_makes_it():
    heard = Heard()
    heard.listener.start()
    t = heard.scheduler.timesteps[0]
    heard.scheduler.scale_model_input(LATENTS, t)
    heard.scheduler.num_inference_steps = None  # which the scheduler refuses
    with pytest.raises(ValueError, match="Number of inference steps"):
        heard.scheduler.step(LATENTS, t, LATENTS)
    assert heard.told == [0, "end"] and heard.listener.index == 0


def test_the_scheduler_is_put_back_and_the_count_goes_on_where_it_stopped():
    heard = Heard()
    before = dict(vars(heard.scheduler))
    heard.listener.start()
    assert {"step", "scale_model_input"} <= vars(heard.scheduler).keys()
    heard.step(LATENTS)
    heard.listener.stop()
    assert vars(heard.scheduler) == before
    heard.scheduler.scale_model_input(LATENTS, 1)
    heard.scheduler.step(LATENTS, heard.scheduler.timesteps[0], LATENTS)
    assert heard.told == [0, "models", "end"] and heard.listener.index == 1
    heard.listener.stop()
    heard.listener.start()
    heard.step(LATENTS)
    heard.listener.stop()
    assert heard.told[3:] == [1, "models", "end"] and vars(heard.scheduler) == before


@pytest.mark.parametrize("return_dict", [True, False])
def test_latents_that_are_not_finite_are_told_with_their_step(return_dict):
    heard = Heard()
    heard.listener.start()
    heard.step(LATENTS)
    broken, t = torch.full_like(LATENTS, math.nan), heard.scheduler.timesteps[1]
    with pytest.raises(NumericalError, match=r"NaN after step 2 of 3 \(full, float32\)"):
        heard.scheduler.step(broken, t, LATENTS, return_dict=return_dict)
    assert heard.listener.index == 1
    noise = {"eta": 1.0, "variance_noise": broken}  # which is in the latents alone
    with pytest.raises(NumericalError, match="NaN after step 2 of 3"):
        heard.scheduler.step(LATENTS, t, LATENTS, return_dict=return_dict, **noise)


# The pipeline


class Pipe(DiffusionPipeline):
    """A loop as those of diffusers are, with numbers in place of models."""

    def __init__(self, scheduler):
        super().__init__()
        self.register_modules(scheduler=scheduler)
        self.set_progress_bar_config(disable=True)

    def check_inputs(self, prompt):
        if prompt is None:
            raise ValueError("no prompt")

    def encode_prompt(self, prompt, negative="ab"):
        return torch.zeros(1, len(prompt), 2), torch.zeros(1, len(negative), 2)

    def prepare_latents(self, shape=(2,), *, fill=1.0):
        return torch.full(shape, fill)

    @torch.no_grad()
    def __call__(self, prompt="abc", steps=2, callback=None, bars=1, before=lambda: None):
        self.check_inputs(prompt)
        self.encode_prompt(prompt)
        latents = self.prepare_latents()
        before()
        self.scheduler.set_timesteps(steps)
        for _ in range(bars):
            with self.progress_bar(total=steps) as bar:
                for i, _ in enumerate(self.scheduler.timesteps):
                    latents = latents + 1
                    if callback is not None:
                        callback(i)
                    bar.update()
        return latents


class Image(DiffusionPipeline):
    """A pipeline without a prompt, as Stable Video Diffusion is."""

    def __init__(self, scheduler):
        super().__init__()
        self.register_modules(scheduler=scheduler)
        self.set_progress_bar_config(disable=True)

    def _encode_image(self, image):
        return image

    def __call__(self):
        self._encode_image(1)
        with self.progress_bar(total=self.scheduler.config.num_train_timesteps) as bar:
            bar.update()


def another_call(self, prompt="abc"):
    """A loop that was put on the class."""
    self.encode_prompt(prompt)
    with self.progress_bar(total=1):
        return self.scheduler


another_call.__code__ = another_call.__code__.replace(co_name="__call__")


class Loop:
    """A listener on a pipeline and what it told, as it came."""

    def __init__(self, pipe=None, calls=None, fails=""):
        self.pipe = Pipe(DDIMScheduler()) if pipe is None else pipe
        self.told, self.fails = [], fails
        self.before = dict(vars(self.pipe))
        calls = [type(self.pipe).__call__] if calls is None else calls
        self.listener = LoopListener(self.pipe, iter(calls), self.begins, self.ends)
        self.listener.start()

    def begins(self):
        self.told.append("begin")
        if self.fails == "begin":
            raise CacheStateError("what begins fails")

    def ends(self, whole):
        self.told.append(whole)
        if self.fails == "end":
            raise CacheStateError("what ends fails")


def elsewhere(call, *args, **kwargs):
    """What a call gives in another thread, or the error that it ends with."""
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(call, *args, **kwargs)
        return done.exception() or done.result()


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


# Threads


def test_a_pipeline_that_is_called_in_a_thread_is_refused_to_others_until_it_is_done():
    loop, refused = Loop(), []

    def meanwhile(step):
        if step == 0:
            refused.append(elsewhere(loop.pipe))
            refused.append(elsewhere(loop.listener.check_thread))
            refused.append(elsewhere(loop.pipe.prepare_latents).tolist())
            loop.listener.check_thread()  # of its own

    loop.pipe(callback=meanwhile)
    for error in refused[:2]:
        assert isinstance(error, CacheStateError)
        assert str(error) == (
            "this Pipe is at work in another thread; give each thread a pipeline of its own, or wait until "
            "that call is done"
        )
    assert refused[2] == [1, 1], "outside of a call nothing of ours is at stake"
    assert loop.told == ["begin", True]
    elsewhere(loop.pipe)
    elsewhere(loop.listener.check_thread)
    loop.pipe()
    assert loop.told == ["begin", True] * 3


def test_a_call_is_the_threads_before_its_loop_begins():
    loop, refused = Loop(), []
    loop.pipe(before=lambda: refused.append(elsewhere(loop.pipe)))
    assert isinstance(refused[0], CacheStateError) and loop.told == ["begin", True]


def test_a_thread_that_waits_in_a_call_is_found_and_one_that_is_done_is_not():
    loop, inside, over = Loop(), threading.Event(), threading.Event()

    def wait(step):
        inside.set()
        assert over.wait(10)

    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(loop.pipe, callback=wait)
        assert inside.wait(10)
        with pytest.raises(CacheStateError, match="at work in another thread"):
            loop.pipe()
        with pytest.raises(CacheStateError, match="at work in another thread"):
            loop.listener.check_thread()
        over.set()
        call.result()
        loop.listener.check_thread()
        loop.pipe()  # the thread is there still, and in no call
    assert loop.told == ["begin", True] * 2


def test_another_pipeline_at_work_in_a_thread_is_in_nobodys_way():
    loop, other = Loop(), Pipe(DDIMScheduler())
    inside, over = threading.Event(), threading.Event()

    def wait(step):
        inside.set()
        assert over.wait(10)

    def both():
        loop.pipe()
        other(callback=wait)

    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(both)
        assert inside.wait(10)
        loop.listener.check_thread()
        loop.pipe()
        over.set()
        call.result()
    assert loop.told == ["begin", True] * 2


@pytest.mark.parametrize("collects", [True, False])
def test_no_garbage_is_collected_while_the_stack_of_another_thread_is_walked(monkeypatch, collects):
    """On Python 3.11 that thread could free its frames meanwhile, and the process crashed."""
    loop, inside, over = Loop(), threading.Event(), threading.Event()
    frames, collected = sys._current_frames, []

    def current_frames():
        collected.append(gc.isenabled())
        return frames()

    def wait(step):
        inside.set()
        assert over.wait(10)

    before = gc.isenabled()
    monkeypatch.setattr(sys, "_current_frames", current_frames)
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(loop.pipe, callback=wait)
        assert inside.wait(10)
        (gc.enable if collects else gc.disable)()
        try:
            with pytest.raises(CacheStateError, match="at work in another thread"):
                loop.listener.check_thread()
            after = gc.isenabled()
        finally:
            (gc.enable if before else gc.disable)()
            over.set()
        call.result()
    assert collected and not any(collected) and after is collects


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
