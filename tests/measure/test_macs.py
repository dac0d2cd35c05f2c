"""MACs of a module's call are those that are executed, of every size, and are counted once."""

from __future__ import annotations

import torch

from hgc_video.measure.macs import MacCounter, _counted, module_macs
from tests import tiny_pipelines as tiny


def test_a_call_is_counted_as_it_is_executed_for_every_size_and_method():
    vae = tiny.vae()
    for size in (8, 16):
        latents, pixels = torch.zeros(1, 4, size, size), torch.zeros(1, 3, 4 * size, 4 * size)
        for method, given in (("decode", latents), ("encode", pixels)):
            with torch.no_grad(), MacCounter() as executed:
                getattr(vae, method)(given)
            assert module_macs(vae, given.to("meta"), method=method) == executed.macs > 0


def test_configurations_are_told_apart_and_one_is_counted_once():
    vae, latents = tiny.vae(), torch.empty(1, 4, 24, 24, device="meta")
    first = module_macs(vae, latents, method="decode")
    known = _counted.cache_info().misses
    assert module_macs(tiny.vae(), latents, method="decode") == first
    assert _counted.cache_info().misses == known
    told = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    deeper = type(vae)(**{**told, "layers_per_block": 2})
    assert module_macs(deeper, latents, method="decode") > first
    words, _ = tiny.text()
    short, long = (torch.zeros(1, n, dtype=torch.long, device="meta") for n in (8, 16))
    assert 0 < module_macs(words, short) < module_macs(words, long)
