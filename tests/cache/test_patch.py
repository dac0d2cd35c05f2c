"""Replacing a forward and putting it back."""

from __future__ import annotations

import pytest
from torch import nn, ones

from hgc_video.cache.patch import Patch, undo_all
from hgc_video.errors import CacheStateError


def doubled(forward, *args, **kwargs):
    return 2 * forward(*args, **kwargs)


def test_patch_and_undo_leave_no_trace():
    module = nn.Identity()
    before = dict(module.__dict__)
    patch = Patch(module, doubled)
    assert float(module(ones(1))) == 2
    patch.undo()
    assert module.__dict__ == before
    assert float(module(ones(1))) == 1


def test_patches_nest_and_an_earlier_forward_on_the_instance_comes_back():
    module = nn.Identity()
    module.forward = lambda x: x + 1
    own = module.forward
    patches = [Patch(module, doubled), Patch(module, doubled)]
    assert float(module(ones(1))) == 8
    undo_all(patches)
    assert module.forward is own


def test_a_forward_replaced_after_ours_is_not_lost_silently():
    module = nn.Identity()
    patch = Patch(module, doubled)
    module.forward = lambda x: x
    with pytest.raises(CacheStateError, match="reverse order"):
        patch.undo()


def test_undo_all_undoes_the_others_when_one_fails():
    good, bad = nn.Identity(), nn.Identity()
    patches = [Patch(good, doubled), Patch(bad, doubled)]
    bad.forward = lambda x: x
    with pytest.raises(CacheStateError):
        undo_all(patches)
    assert "forward" not in good.__dict__


def test_the_signature_is_kept():
    import inspect

    linear = nn.Linear(1, 1)
    signature = inspect.signature(linear.forward)
    patch = Patch(linear, doubled)
    assert inspect.signature(linear.forward) == signature
    patch.undo()


def test_a_wrapper_goes_on_again_where_nothing_has_changed():
    module = nn.Identity()
    patch = Patch(module, doubled)
    ours = module.forward
    patch.undo()
    assert patch.redo() and module.forward is ours
    patch.undo()
    module.forward = lambda x: x + 1
    assert not patch.redo() and float(module(ones(1))) == 2
