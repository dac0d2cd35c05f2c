"""Policies by their text: what it means, and what is said of one that means nothing."""

from __future__ import annotations

import pytest

from hgc_video.errors import PresetError
from hgc_video.plan.policies.base import MOST
from hgc_video.plan.policies.block_caching import BlockCaching
from hgc_video.plan.policies.deepcache import DeepCache
from hgc_video.plan.policies.pab import PAB
from hgc_video.plan.policies.registry import POLICIES, make_policy


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("pab", PAB()),
        (" pab:spatial = 3, cross=8 ", PAB(spatial=3, cross=8)),
        ("pab:", PAB()),
        ("block-caching:calibration=C:/mine.yaml", BlockCaching(calibration="C:/mine.yaml")),
    ],
)
def test_a_text_is_a_name_and_its_fields(text, policy):
    assert make_policy(text) == policy
    assert make_policy(policy.text) == policy


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("depcache", 'unknown policy "depcache": did you mean "deepcache"? (allowed: hgc, searched, '),
        ("pab:spatial", "pab: write spatial=VALUE"),
        ("pab:spacial=2", 'pab has no field "spacial": did you mean "spatial"? (allowed: spatial, temp'),
        ("pab:spatial=0", "pab: spatial=0 is not possible; give 1 or more"),
        ("pab:skip_last=1.5", "pab: skip_last=1.5 is not possible; give at most 1"),
        ("pab:spatial=two", "pab: spatial=two is not possible; give a whole number"),
        ("fewer-steps", "fewer-steps needs steps=VALUE"),
        ("full:interval=2", '"full" takes no fields, got "interval=2"'),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_with_what_can(text, says):
    with pytest.raises(PresetError) as caught:
        make_policy(text)
    assert str(caught.value).startswith(says)


def test_an_unknown_name_is_told_all_that_are_known():
    with pytest.raises(PresetError) as caught:
        make_policy("nothing like it")
    assert all(name in str(caught.value) for name in POLICIES)


def test_a_number_without_a_bound_of_its_own_has_one_all_the_same():
    """A row of as many steps would not fit into any memory."""
    assert DeepCache(interval=MOST).interval == MOST
    with pytest.raises(PresetError, match="interval=1000001 is not possible; give at most 1000000"):
        DeepCache(interval=MOST + 1)
