"""Whatever raises: models are as they were to the attribute, nothing is kept, and the next run is right."""

from __future__ import annotations

import random

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import hgc_video
from hgc_video.cache.engine import Engine
from hgc_video.plan.presets import resolve
from tests import tiny_pipelines as tiny
from tests.tiny_models import Clip, controlnet, graph_of, motion_unet

POLICY = "hgc:interval=2,cut=1,gate=0.6,slope=0.5"


class Injected(Exception):
    """What the tests raise: nobody else's."""


class FailsAt(TorchDispatchMode):
    """Runs out of memory at the operation of this number; -1 only counts them."""

    def __init__(self, number=-1):
        super().__init__()
        self.number, self.count = number, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += 1
        if self.count == self.number:
            raise torch.OutOfMemoryError(f"at {operation}")
        return operation(*args, **(kwargs or {}))


def attributes(*models):
    """Every attribute of every module, by identity."""
    return [{k: id(v) for k, v in vars(m).items()} for model in models for m in model.modules()]


@pytest.fixture(scope="module")
def made():
    """A tiny clip of three steps, its engine, and what it gives."""
    clip = Clip(motion_unet(), controlnet())
    clip.timesteps = clip.timesteps[:3]
    engine = Engine(resolve(POLICY).schedule(graph_of(clip), 3), graph_of(clip))
    return clip, engine, run(clip, engine)


def run(clip, engine):
    engine.enable(clip.unet, clip.controlnet)
    try:
        return clip.run(engine)
    finally:
        engine.disable()


def is_right(made):
    clip, engine, whole = made
    return all(torch.equal(a, b) for a, b in zip(run(clip, engine), whole, strict=True))


def wrapped_modules(clip, engine):
    engine.enable(clip.unet, clip.controlnet)
    names = [
        (model, name)
        for model in (clip.unet, clip.controlnet)
        for name, module in model.named_modules()
        if "forward" in vars(module)
    ]
    engine.disable()
    return names


def test_an_exception_in_every_wrapped_module_is_undone_to_the_attribute(made):
    clip, engine, _ = made
    names = wrapped_modules(clip, engine)
    assert len(names) > 70
    before = attributes(clip.unet, clip.controlnet)
    reached = 0
    for at, (model, name) in enumerate(names):
        module = model.get_submodule(name)
        kind = (Injected, KeyboardInterrupt, MemoryError)[at % 3]

        def fail(*args, kind=kind, **kwargs):
            raise kind

        module.forward = fail
        mine = attributes(clip.unet, clip.controlnet)
        try:
            run(clip, engine)
        except (Injected, KeyboardInterrupt, MemoryError) as error:
            assert type(error) is kind
            reached += 1
        assert attributes(clip.unet, clip.controlnet) == mine, name
        assert engine.nbytes == 0 and engine.kept(name) == (), name
        del module.forward
    assert reached > 0.9 * len(names)  # the rest is never run by this policy
    assert attributes(clip.unet, clip.controlnet) == before
    assert is_right(made)


def test_memory_that_runs_out_at_any_operation_leaves_nothing(made):
    """Of the store, the wrappers and the models alike: every allocation is an operation."""
    clip, engine, _ = made
    before = attributes(clip.unet, clip.controlnet)
    with FailsAt() as all_of_them:
        run(clip, engine)
    for number in random.Random(0).sample(range(1, all_of_them.count + 1), 12):
        with pytest.raises(torch.OutOfMemoryError), FailsAt(number):
            run(clip, engine)
        assert attributes(clip.unet, clip.controlnet) == before and engine.nbytes == 0, number
    assert is_right(made)


def stages(pipe):
    """What a call of a pipeline does, by name: the object and its method."""
    return {
        "scheduler step": (pipe.scheduler, "step"),
        "scheduler scale": (pipe.scheduler, "scale_model_input"),
        "unet": (pipe.unet, "forward"),
        "controlnet": (pipe.controlnet, "forward"),
        "prompt": (pipe, "encode_prompt"),
        "latents": (pipe, "prepare_latents"),
        "decode": (pipe, "decode_latents"),
    }


def failing(pipe, stage, call, kind):
    """Has a stage of the pipeline raise at its call of this number; what undoes that."""
    owner, method = stages(pipe)[stage]
    original, calls = getattr(owner, method), [0]

    def fail(*args, **kwargs):
        calls[0] += 1
        if calls[0] == call:
            raise kind
        return original(*args, **kwargs)

    vars(owner)[method] = fail
    return lambda: vars(owner).pop(method)


def test_an_exception_at_every_stage_of_a_stock_pipeline():
    """Under the cache's own wrappers, at the first and the last step; and in callbacks; Ctrl-C as well."""
    pipe, steps = tiny.make("controlnet"), 3
    given = {"output_type": "pt", "num_inference_steps": steps}
    tiny.call(pipe, "controlnet", **given)  # which notes this and that on the pipeline
    plain = attributes(pipe.unet, pipe.controlnet), set(vars(pipe.scheduler)), set(vars(pipe))
    with hgc_video.enable_cache(pipe, POLICY) as cache:
        whole = tiny.call(pipe, "controlnet", **given)
        every_step = ("scheduler step", "scheduler scale", "unet", "controlnet")
        places = [(stage, call) for stage in every_step for call in (1, steps)]
        for at, (stage, call) in enumerate([*places, ("prompt", 1), ("latents", 1), ("decode", 1)]):
            kind = (Injected, KeyboardInterrupt)[at % 2]
            undo = failing(pipe, stage, call, kind)
            with pytest.raises(kind):
                tiny.call(pipe, "controlnet", **given)
            undo()
            assert attributes(pipe.unet, pipe.controlnet) == plain[0], (stage, call)
            assert set(vars(pipe.scheduler)) == plain[1], (stage, call)
        for at in range(steps):

            def fail(pipe, index, t, tensors, at=at):
                if index == at:
                    raise KeyboardInterrupt
                return tensors

            with pytest.raises(KeyboardInterrupt):
                tiny.call(pipe, "controlnet", callback_on_step_end=fail, **given)
            assert attributes(pipe.unet, pipe.controlnet) == plain[0], at
        assert torch.equal(tiny.call(pipe, "controlnet", **given), whole)
        assert cache.report.num_inference_steps == steps
    assert (
        attributes(pipe.unet, pipe.controlnet),
        set(vars(pipe.scheduler)),
        set(vars(pipe)),
    ) == plain


def test_latents_that_are_no_numbers_stop_a_stock_pipeline():
    pipe = tiny.make("animatediff")
    before = attributes(pipe.unet)

    def spoil(pipe, index, t, tensors):
        if index == 1:
            tensors["latents"][..., 0] = torch.inf
        return tensors

    with hgc_video.enable_cache(pipe, POLICY):
        says = r"(NaN|infinite) after step 3 of \d+ \(hgc:"
        with pytest.raises(hgc_video.errors.NumericalError, match=says):
            tiny.call(pipe, "animatediff", callback_on_step_end=spoil)
        assert attributes(pipe.unet) == before
        assert torch.isfinite(tiny.call(pipe, "animatediff")).all()
