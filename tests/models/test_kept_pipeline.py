"""A pipeline that is kept: loaded once for many runs, anew where another one is asked for."""

from __future__ import annotations

import pytest

from hgc_video.errors import ModelError
from hgc_video.models.kept_pipeline import KeptPipeline, kept_or_loaded


def load(*names, **options):
    if names[0] == "gone":
        raise ModelError("no such model")
    return [names, options]


def test_without_one_in_use_everything_is_loaded():
    assert kept_or_loaded(load, "a", "pose") is not kept_or_loaded(load, "a", "pose")


def test_the_same_one_is_loaded_once_and_another_takes_its_place():
    kept = KeptPipeline()
    with kept.in_use():
        one = kept_or_loaded(load, "a", "pose", device="cpu")
        assert kept_or_loaded(load, "a", "pose", device="cpu") is one and kept.loads == 1
        for names, options in (
            (("a", "depth"), {"device": "cpu"}),
            (("a", "depth"), {"device": "cuda"}),
        ):
            assert kept_or_loaded(load, *names, **options) == [names, options]
        assert kept.loads == 3
        assert kept_or_loaded(load, "a", "pose", device="cpu") is not one, (
            "only the last one is kept"
        )
    assert kept_or_loaded(load, "a", "pose", device="cpu") is not one and kept.loads == 4


def test_one_that_cannot_be_loaded_leaves_none():
    kept = KeptPipeline()
    with kept.in_use():
        one = kept_or_loaded(load, "a")
        with pytest.raises(ModelError):
            kept_or_loaded(load, "gone")
        assert kept_or_loaded(load, "a") is not one
    other = KeptPipeline()
    with other.in_use(), kept.in_use():
        kept_or_loaded(load, "a")
    assert (kept.loads, other.loads) == (2, 0), "two of them do not see each other's"
