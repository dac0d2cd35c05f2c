"""Models that are compiled are known, and have room for as many graphs as a plan has kinds of steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hgc_video.cache.compiled import enough_graphs, is_compiled

CONFIG = torch._dynamo.config


def model():
    return nn.Sequential(nn.Sequential(nn.Linear(1, 1), nn.Identity()), nn.Identity())


def test_a_stock_model_is_not_compiled():
    assert is_compiled(model()) is False


def test_a_model_in_a_compiled_one_is():
    assert is_compiled(torch.compile(model())) is True


@pytest.mark.parametrize("path", ["", "0", "0.1", "1"])
def test_a_model_that_was_compiled_in_place_is_in_any_part(path):
    made = model()
    made.get_submodule(path).compile()
    assert is_compiled(made)


def test_a_model_that_is_compiled_no_more_is_not():
    made = model()
    made.compile()
    made._compiled_call_impl = None
    assert not is_compiled(made)


def test_a_compiled_model_may_have_as_many_graphs_as_a_plan_needs_during_a_call():
    before = CONFIG.recompile_limit
    assert before < 128
    with enough_graphs(True):
        assert CONFIG.recompile_limit == 128
    assert CONFIG.recompile_limit == before


def test_the_limit_is_back_after_an_error():
    before = CONFIG.recompile_limit
    with pytest.raises(ZeroDivisionError), enough_graphs(True):
        raise ZeroDivisionError
    assert CONFIG.recompile_limit == before


@pytest.mark.parametrize(("theirs", "limit"), [(127, 128), (128, 128), (129, 129), (500, 500)])
def test_a_larger_limit_of_the_users_stays(theirs, limit):
    with CONFIG.patch(recompile_limit=theirs):
        with enough_graphs(True):
            assert CONFIG.recompile_limit == limit
        assert CONFIG.recompile_limit == theirs


def test_for_a_model_that_is_not_compiled_nothing_is_set():
    with CONFIG.patch(recompile_limit=3), enough_graphs(False):
        assert CONFIG.recompile_limit == 3
