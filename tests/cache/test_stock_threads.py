"""A stock pipeline that is at work in a thread is found by the others."""

from __future__ import annotations

import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from diffusers import DDIMScheduler

from hgc_video.errors import CacheStateError
from tests.cache.loop_parts import Loop, Pipe, elsewhere


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
        assert over.wait(60)

    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(loop.pipe, callback=wait)
        assert inside.wait(60)
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
        assert over.wait(60)

    def both():
        loop.pipe()
        other(callback=wait)

    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(both)
        assert inside.wait(60)
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
        assert over.wait(60)

    before = gc.isenabled()
    monkeypatch.setattr(sys, "_current_frames", current_frames)
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(loop.pipe, callback=wait)
        assert inside.wait(60)
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
