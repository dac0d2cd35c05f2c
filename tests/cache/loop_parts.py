"""Pipelines whose loops are as those of diffusers, with numbers in place of models, and a listener on one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from diffusers import DDIMScheduler, DiffusionPipeline

from hgc_video.cache.stock_loop import LoopListener
from hgc_video.errors import CacheStateError


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
