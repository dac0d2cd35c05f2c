"""Bytes that are alive, and the results of operators on meta tensors that are not computed again."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from hgc_video.measure.live_bytes import LiveBytes
from hgc_video.measure.macs import MacCounter
from hgc_video.measure.meta_results import MetaResults


def test_live_bytes_by_hand():
    with LiveBytes() as live:
        a = torch.zeros(1000)
        b = a + 1
        c = b.view(10, 100)[2:]
        del a, b
        assert live.now == 4000
        del c
    assert (live.peak, live.now) == (8000, 0)


def described(out):
    tensors = out if isinstance(out, (tuple, list)) else (out,)
    return [(t.shape, t.stride(), t.dtype, t.device.type) for t in tensors]


def same(call, *shapes, dtype=torch.float16):
    """What a call gives on meta tensors of these shapes, found once more and with nothing remembered."""
    results = MetaResults()
    inputs = [torch.empty(shape, dtype=dtype, device="meta") for shape in shapes]
    plain = described(call(*inputs))
    with results:
        assert described(call(*inputs)) == described(call(*inputs)) == plain


@pytest.mark.parametrize(
    ("call", "shapes"),
    [
        (lambda x: functional.group_norm(x, 2), [(3, 4, 5, 5)]),
        (functional.conv2d, [(2, 3, 8, 8), (4, 3, 3, 3)]),
        (lambda x: x.to(memory_format=torch.channels_last) * 2, [(2, 3, 8, 8)]),
        (lambda x: torch.var_mean(x, 1), [(3, 4)]),
        (lambda x: x.chunk(2, 1), [(3, 4)]),
        (lambda x, y: torch.cat([x, y], 1), [(3, 4), (3, 2)]),
        (lambda x: x.float() * 2, [(3, 4)]),
        (lambda x: x.transpose(0, 1) + 1, [(3, 4)]),
        (lambda x: x.add_(1), [(3, 4)]),
        (lambda x: torch.empty_like(x, dtype=torch.int64), [(3, 4)]),
        (lambda x, y: functional.linear(x, y), [(2, 3, 4), (5, 4)]),
    ],
)  # fmt: skip
def test_a_remembered_result_is_like_a_computed_one(call, shapes):
    same(call, *shapes)


def test_results_of_other_values_are_others():
    x = torch.empty(4, 6, device="meta")
    with MetaResults():
        assert [x.sum(axis).shape for axis in (0, 1)] == [(6,), (4,)]
        assert [(x * factor).dtype for factor in (2, 2.0, 2j)] == [
            x.dtype,
            x.dtype,
            torch.complex64,
        ]
        assert (x.half() * 2).dtype == torch.float16
        assert [torch.full_like(x, 1, dtype=kind).dtype for kind in (torch.int8, torch.half)] == [
            torch.int8, torch.half,
        ]  # fmt: skip


def test_views_stay_views_and_other_results_are_tensors_of_their_own():
    x = torch.empty(4, 6, device="meta")
    with MetaResults():
        views, made = [x.view(24) for _ in range(2)], [x * 2 for _ in range(2)]
    storages = {t.untyped_storage()._cdata for t in (x, *views)}
    assert len(storages) == 1
    assert len({t.untyped_storage()._cdata for t in (x, *made)}) == 3


def test_numbers_on_a_device_are_computed():
    with MetaResults():
        x = torch.ones(3)
        assert (x + 1).tolist() == (x + 1).tolist() == [2, 2, 2]
        assert (x + 2).tolist() == [3, 3, 3]


def test_every_call_is_counted():
    x, w = torch.empty(2, 3, device="meta"), torch.empty(5, 3, device="meta")
    with MetaResults(), MacCounter() as counter:
        for _ in range(3):
            functional.linear(x, w)
    assert counter.macs == 3 * 2 * 3 * 5
