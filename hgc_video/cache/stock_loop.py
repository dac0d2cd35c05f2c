"""Where a stock pipeline's own loop is, from the calls that it makes to its progress bar and its scheduler.

Every loop of diffusers runs within the pipeline's progress bar; at each step it scales the latents, runs
the models and steps its scheduler. Counting the steps of this scheduler instance is exact; models are
never counted, nor are timesteps searched.
"""

from __future__ import annotations

import gc
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

from torch import Tensor

from ..errors import CacheStateError
from .finite import FiniteLatents
from .patch import Patch, undo_all

Begin = Callable[[int, Tensor], None]


class SchedulerListener:
    """Wraps one scheduler for one loop. `begins(step_index, latents)` is called before the models of a
    step, with the scaled latents as the models get them, `ends()` after them; the latents
    that a step gives must be `finite`."""

    def __init__(
        self, scheduler: Any, begins: Begin, ends: Callable[[], None], finite: FiniteLatents
    ) -> None:
        self.scheduler, self._begins, self._ends, self.finite = scheduler, begins, ends, finite
        self.index, self._open = 0, False
        self._patches: list[Patch] = []

    def start(self) -> None:
        """Begins to listen, or goes on where it stopped."""
        for name, around in (("scale_model_input", self._scale), ("step", self._step)):
            self._patches.append(Patch(self.scheduler, around, name))

    def stop(self) -> None:
        """Puts the scheduler back as it was."""
        undo_all(self._patches)

    def _scale(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        scaled = original(*args, **kwargs)
        if not self._open:  # guess mode scales a second time within a step
            self._open = True
            self._begins(self.index, scaled)
        return scaled

    def _step(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        if self._open:
            self._open = False
            self._ends()
        done = original(*args, **kwargs)
        self.finite.see(self.index, done[0])
        self.index += 1
        return done


# What a pipeline calls on itself on the way to its loop; not each has all of them.
_BEFORE = ("check_inputs", "encode_prompt", "_encode_image", "prepare_latents")


class LoopListener:
    """Wraps methods of one pipeline. `begins()` is called when its loop is entered, `ends(whole)` when it
    is left: whole, or by an error; loops of a call within a callback of another one lie within each
    other. `calls` are the `__call__`s whose loop it is. `num_tokens` is the length of the last prompt
    that was encoded; 1 where the pipeline has none, but an image."""

    def __init__(
        self, pipe: Any, calls: Iterable[Any], begins: Callable[[], None], ends: Callable[[bool], None]
    ) -> None:  # fmt: skip
        self.pipe, self.begins, self.ends = pipe, begins, ends
        self.num_tokens = 1
        self._calls = {inspect.unwrap(call).__code__ for call in calls}
        self._own = inspect.unwrap(type(pipe).__call__).__code__
        self._open: list[FrameType] = []  # of the calls whose loops are open
        self._patches: list[Patch] = []
        self._bars: list[Patch] = []
        self._thread = 0  # that of the call that came last
        self._claiming = threading.Lock()

    def start(self) -> None:
        """Begins to listen."""
        for name in _BEFORE:
            if hasattr(self.pipe, name):
                around = self._encode if name == "encode_prompt" else self._prepare
                self._patches.append(Patch(self.pipe, around, name))
        self._listen()

    def stop(self) -> None:
        """Puts the pipeline's methods back as they were."""
        undo_all(self._bars)
        undo_all(self._patches)

    def _listen(self) -> None:
        """Wraps the progress bar, also one that was put on the pipeline since."""
        if not self._bars or not self._bars[-1].in_place:
            self._bars.append(Patch(self.pipe, self._bar, "progress_bar"))

    def _prepare(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        self._listen()
        if self._call() is not None:
            self._claim()
        return original(*args, **kwargs)

    def _encode(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        encoded = self._prepare(original, *args, **kwargs)
        self.num_tokens = int(
            encoded[0].shape[1]
        )  # (b n d), the prompt's before the negative one's
        return encoded

    def _bar(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        bar, call = original(*args, **kwargs), self._call()
        return bar if call is None or call in self._open else _Bar(bar, self, call)

    def _call(self) -> FrameType | None:
        """The innermost call of this pipeline that is under way. CacheStateError where it is not the
        `__call__` that was there when the cache was enabled."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if code in self._calls and frame.f_locals.get("self") is self.pipe:
                return frame
            if self._is_another(code) and frame.f_locals.get("self") is self.pipe:
                raise CacheStateError(
                    f"{type(self.pipe).__name__}.__call__ was replaced after the cache was enabled, so that "
                    "its loop cannot be followed; disable the cache, or put the __call__ back"
                )
            frame = frame.f_back
        return None

    def _claim(self) -> None:
        """Has the pipeline be called by this thread alone. CacheStateError while a call in another one is
        under way: pipeline, scheduler and cache hold the state of one loop."""
        with self._claiming:
            self.check_thread()
            self._thread = threading.get_ident()

    def check_thread(self) -> None:
        """CacheStateError while another thread is in a call of this pipeline."""
        if self._thread == threading.get_ident():
            return
        with _nothing_collected():
            frame = sys._current_frames().get(self._thread)
            while frame is not None:  # a call that has ended, by an error too, is on no stack
                if frame.f_code in self._calls and frame.f_locals.get("self") is self.pipe:
                    raise CacheStateError(
                        f"this {type(self.pipe).__name__} is at work in another thread; give each thread a "
                        "pipeline of its own, or wait until that call is done"
                    )
                frame = frame.f_back

    def _is_another(self, code: CodeType) -> bool:
        """Whether this is a `__call__` that was put on the class since, with a loop of its own."""
        later = code.co_name == "__call__" and code is not self._own
        return later and "scheduler" in code.co_names

    def enter(self, call: FrameType) -> bool:
        """A call's bar is entered; False where its loop is open already, by a bar around this one."""
        if call in self._open:
            return False
        self.begins()
        self._open.append(call)
        return True

    def leave(self, call: FrameType, whole: bool) -> None:
        """A call's bar is left."""
        if call in self._open:
            self._open.remove(call)
            self.ends(whole)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """For a walk up the stack of a running thread. Each step of it makes a frame object, which may begin a
    garbage collection; code that runs in that lets the other thread go on and free them (Python 3.11)."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Bar:
    """A progress bar that tells when the block that it is opened for begins and ends."""

    def __init__(self, bar: Any, loop: LoopListener, call: FrameType) -> None:
        self._bar, self._loop, self._call = bar, loop, call
        self._began = False

    def __enter__(self) -> Any:
        self._began = self._loop.enter(self._call)
        try:
            return self._bar.__enter__()
        except BaseException:
            if self._began:
                self._loop.leave(self._call, False)
            raise

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if self._began:
                self._loop.leave(self._call, kind is None)
        finally:
            self._bar.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._bar)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)
