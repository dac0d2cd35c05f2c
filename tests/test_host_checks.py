"""diffusers' own test classes, ported (tests/host_checks.py), pass with a `full`-schedule engine attached,
and every result is to the bit what it is without one.

Of every fourth class, in turn: dictionary and tuple; a batch of prompts with a generator each against a
single one; several results of a prompt; what callbacks get and change; guidance off, on and changed on the
way; one step; latents handed in; embeddings in place of prompts and text encoders; the progress bar;
interruption; kinds of output, sliced and tiled decoding; saving and loading, also as a variant.

Of one class for each kind of UNet: half precision, layerwise casting; attention slices, processors, fused
projections; FreeU; LoRA; IP-Adapters, masks; offloading; shared parts; schedulers; timesteps; FreeInit.
"""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch

from tests import host_checks as checks

CLASSES = (
    "animatediff", "controlnet", "video to video", "video to video with controlnet", "sparse controlnet",
    "pag", "animatediff sdxl", "svd", "sd", "sd controlnet", "sdxl", "sdxl controlnet",
)  # fmt: skip
OF_ALL = (
    checks.tuples, checks.batches, checks.several_of_a_prompt, checks.callbacks, checks.guidance,
    checks.one_step_and_given_latents, checks.embeddings, checks.progress, checks.interruption,
    checks.pixels, checks.saving,
)  # fmt: skip
OF_SOME = {
    "animatediff": (checks.longer_embeddings,),
    "controlnet": (
        checks.half_precision, checks.attention, checks.freeu, checks.loras, checks.ip_adapters,
        checks.shared_parts, checks.free_init, checks.motion,
    ),
    "video to video": (checks.own_timesteps,),
    "svd": (checks.half_precision, checks.attention, checks.offloading),
    "sd": (
        checks.longer_embeddings, checks.half_precision, checks.attention, checks.freeu, checks.loras,
        checks.ip_adapters, checks.shared_parts, checks.schedulers, checks.own_timesteps,
    ),
    "sd controlnet": (checks.offloading,),
    "sdxl": (checks.longer_embeddings, checks.attention, checks.own_timesteps),
    "sdxl controlnet": (checks.layerwise_casting,),
}  # fmt: skip


def of_all(at):
    """Those checks of every class that the class at this place gets: every fourth one, in turn."""
    return [check for number, check in enumerate(OF_ALL) if (number + at) % 4 == 0]


PAIRS = [
    (name, check)
    for at, name in enumerate(CLASSES)
    for check in (*of_all(at), *OF_SOME.get(name, ()))
    if not (name == "svd" and check is checks.embeddings)  # it has no prompt
]


@lru_cache(maxsize=1)
def hosts(name):
    """A pipeline of a class without, and one with an engine, for all its checks."""
    return checks.Host(name), checks.Host(name, "full")


@pytest.mark.parametrize(("name", "check"), PAIRS, ids=[f"{n}-{c.__name__}" for n, c in PAIRS])
def test_passes_with_an_engine_as_without_one(name, check):
    plain, engaged = hosts(name)
    expected, given = check(plain), check(engaged)
    assert len(given) == len(expected)
    for ours, theirs in zip(given, expected, strict=True):
        assert torch.equal(ours, theirs)
