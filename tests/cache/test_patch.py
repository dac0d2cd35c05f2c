"""Replacing a forward and putting it back."""

from __future__ import annotations

from functools import wraps

import pytest
from torch import nn, ones

from hgc_video.cache.patch import Patch, is_wrapped, undo_all


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


def test_a_wrapper_put_over_ours_stays_and_ours_steps_aside():
    module = nn.Identity()
    patch = Patch(module, doubled)
    below = module.forward

    @wraps(below)
    def theirs(x):
        return below(x) + 10

    module.forward = theirs
    assert is_wrapped(module) and float(module(ones(1))) == 12
    patch.undo()
    assert module.forward is theirs and float(module(ones(1))) == 11
    assert not is_wrapped(module) and not patch.redo()
    module.forward = below  # as whoever put theirs on takes it off
    assert float(module(ones(1))) == 1 == float(module(input=ones(1)))
    del module.forward
    assert not patch.redo(), "ours has stepped aside and would do nothing"


def test_a_wrapper_between_two_of_ours_stays():
    module = nn.Identity()
    lower = Patch(module, doubled)
    below = module.forward

    @wraps(below)
    def theirs(x):
        return below(x) + 10

    module.forward = theirs
    upper = Patch(module, doubled)
    assert float(module(ones(1))) == 24
    lower.undo()
    assert float(module(ones(1))) == 22
    upper.undo()
    assert module.forward is theirs and float(module(ones(1))) == 11


def compile_in_place(module):
    """What `module.compile()` sets and a call asks for first; torch's compiler takes seconds to load."""
    module._compiled_call_impl = lambda x: module._call_impl(x) + 100


def test_of_a_module_that_was_compiled_in_place_the_compiled_call_is_replaced():
    module = nn.Identity()
    compile_in_place(module)
    before = dict(module.__dict__)
    patch = Patch(module, doubled)
    assert float(module(ones(1))) == 202 and "forward" not in module.__dict__
    assert is_wrapped(module) and patch.in_place
    patch.undo()
    assert module.__dict__ == before and not is_wrapped(module)
    assert patch.redo() and float(module(ones(1))) == 202


def test_a_wrapper_does_not_go_on_again_below_compiled_code():
    module = nn.Identity()
    patch = Patch(module, doubled)
    patch.undo()
    compile_in_place(module)
    assert not patch.redo() and "forward" not in module.__dict__


def test_a_method_of_what_is_no_module_is_replaced_too():
    class Scheduler:
        def step(self, sample, *, eta=0.0):
            return sample + eta

    scheduler = Scheduler()
    patch = Patch(scheduler, doubled, "step", alone=False)
    assert scheduler.step(1.0, eta=0.5) == 3.0
    patch.undo()
    assert not vars(scheduler) and scheduler.step(1.0, eta=0.5) == 1.5
    assert patch.redo() and scheduler.step(1.0) == 2.0


@pytest.mark.parametrize(
    "order", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (2, 1, 0), (1, 2, 0), (0, 2, 1)]
)
def test_patches_come_off_in_any_order_without_a_trace(order):
    module = nn.Identity()
    before = dict(module.__dict__)
    patches = [Patch(module, doubled) for _ in range(3)]
    for left, i in enumerate(order, start=1):
        patches[i].undo()
        assert float(module(ones(1))) == 2 ** (3 - left)
    assert module.__dict__ == before


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
    assert "forward" not in module.__dict__
    module.forward = lambda x: x + 1
    assert not patch.redo() and float(module(ones(1))) == 2
