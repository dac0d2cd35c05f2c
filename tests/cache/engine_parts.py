"""Engines on tiny models that the tests of a file share, and plans of a few steps."""

from __future__ import annotations

from functools import cache

from hgc_video.cache.engine import attach
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.tiny_models import Clip, controlnet, graph_of, motion_unet


@cache
def models():
    return motion_unet(), controlnet()


@cache
def graph():
    return graph_of(Clip(*models()))


def wrapped(model):
    return any("forward" in vars(module) for module in model.modules())


def cut():
    """The outermost tensor that a step can begin with."""
    return graph().depths[0]


def reuse(name=None, steps=2, **more):
    """A plan that computes everything at its first step and then takes one tensor from the store."""
    held = StepPlan(frozenset({name or cut()}), **more)
    return Schedule("test", (StepPlan(), *[held] * (steps - 1)))


def full(steps=2):
    return Schedule("test", (StepPlan(),) * steps)


def put(plan, **options):
    return attach(plan, graph=graph(), unet=models()[0], controlnet=models()[1], **options)


def handed(model, **inputs):
    """A hook that hands a model these inputs in place of those of its calls, until it is removed."""
    return model.register_forward_pre_hook(
        lambda m, args, kwargs: (args, {**kwargs, **inputs}), with_kwargs=True
    )
