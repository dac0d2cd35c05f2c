"""UCache's decisions against its released arithmetic, on numbers that stand for latents and outputs."""

from __future__ import annotations

from math import sqrt

import torch

from hgc_video.cache.drift import Observer
from hgc_video.plan.policies.ucache import UCache
from tests.plan.policies.test_policies import tower

STEPS = 20


def released(inputs, outputs, threshold):
    """The steps that stable-diffusion.cpp skips, with each step's latents and output as one number."""
    first, last, skipped = int(0.15 * STEPS), int(0.95 * STEPS), []
    before = mean = rate = None
    error, count, row = 0.0, 0, 0
    for i in range(first, last):
        change = abs(inputs[i] - before[0]) if before else None
        if rate and change:
            size = abs(before[1])
            scale = sqrt(size * max(1.6 * mean, 1e-6))
            error += rate * change / scale * (1 + 0.5 * row)
            share = count / STEPS
            if error < threshold * (0.5 if share < 0.2 else 1.5 if share > 0.8 else 1.0):
                skipped.append(i)
                row += 1
                continue
            error = 0.0
        if before:
            out = abs(outputs[i] - before[1])
            mean = out if mean is None else 0.8 * mean + 0.2 * out
            rate = out / change
        before, count, row = (inputs[i], outputs[i]), count + 1, 0
    return skipped


def test_it_skips_what_the_release_skips():
    inputs = [10 - 0.4 * i - 0.01 * i**2 for i in range(STEPS)]
    outputs = [1 + 0.05 * i + 0.004 * i**2 for i in range(STEPS)]
    found = {}
    for threshold in (0.3, 0.5, 1.0):
        plan = UCache(threshold=threshold)(tower(), STEPS)
        decide, seen, skipped = plan.start(), Observer(), []
        for i, choices in enumerate(plan.choices):
            seen.see_input(torch.tensor([inputs[i]], dtype=torch.float64), 900.0, i)
            decision = decide(len(choices), seen)
            computed = decision.choice == 0
            seen.see_output(torch.tensor([outputs[i]], dtype=torch.float64) if computed else None)
            if not computed:
                skipped.append(i)
                assert "error" in decision.reason
        found[threshold] = skipped
        assert skipped == released(inputs, outputs, threshold)
    assert 0 < len(found[0.3]) < len(found[0.5]) < len(found[1.0])
    assert min(found[1.0]) == 5 and max(found[1.0]) <= 18
