"""The cut that is chosen for a budget, from a table of what each would take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hgc_video.errors import InputError
from hgc_video.plan.memory.budget import (
    GIB,
    Chunks,
    MemoryPlan,
    Peak,
    choose_memory_plan,
    parse_nbytes,
)
from hgc_video.plan.memory.placement import DEVICE, HOST, RECOMPUTE, RunCost
from hgc_video.plan.memory.throughput import Throughput

FAST_BUS, SLOW_BUS = Throughput(1e12, 20e9, "fast"), Throughput(1e12, 1e9, "slow")


class Table:
    """Peaks in GiB that fall with every cut, as real ones do; copies of 40 GB, or 10 T MACs more."""

    def denoise(self, context, chunks):
        whole = context * (0.5 if chunks.frames == 0 else 0.3 if chunks.frames == 8 else 0.2)
        kept = 2 * GIB
        device = {DEVICE: kept, HOST: 0, RECOMPUTE: 0}[chunks.idle]
        return int((1 + whole) * GIB) + device, kept if chunks.idle == HOST else 0

    def decode(self, num_frames):
        return int((1 + 0.5 * num_frames) * GIB)

    def works(self, context):
        macs = 50 * 10**12
        return {
            DEVICE: RunCost(macs, 10**13),
            HOST: RunCost(macs, 10**13, 10 * 10**9, 30 * 10**9),
            RECOMPUTE: RunCost(macs + 10**13, 10**13),
        }


class OneWindow(Table):
    """A clip that no window of which ever idles."""

    def works(self, context):
        return {DEVICE: RunCost(10**12)}


def chosen(budget, table=None, **options):
    options = {
        "num_frames": 64, "max_frames": 16, "num_positions": 8192, "rates": FAST_BUS, **options,
    }  # fmt: skip
    budget = None if budget is None else int(budget * GIB)
    return choose_memory_plan(table or Table(), budget=budget, **options)


def test_the_coarsest_that_fits_is_taken():
    assert chosen(None).chunks == Chunks() and chosen(None).level == 1
    assert chosen(12).chunks == Chunks(decode=16)
    assert chosen(10).chunks == Chunks(decode=16, idle=HOST)
    assert chosen(7).chunks == Chunks(8, 4096, decode=8, idle=HOST) and chosen(7).level == 2
    assert chosen(4.5).chunks == Chunks(2, 1024, decode=4, idle=HOST)
    assert [chosen(b).context for b in (12, 10, 7, 4.5)] == [16] * 4
    # 96 % of 9.375 GiB are 9: as much as decoding 16 frames takes, and denoising them.
    assert chosen(9.375).chunks == Chunks(decode=16, idle=HOST)
    assert chosen(12, denoise_budget=int(9.375 * GIB)).chunks == Chunks(decode=16, idle=HOST)


def test_shorter_windows_come_last_and_never_where_the_length_is_told():
    assert chosen(3.6).context == 12
    assert chosen(2.8).context == 8
    with pytest.raises(InputError, match=r"takes 4\.3.GiB"):
        chosen(3.6, context=16)
    assert chosen(3.6, num_frames=10).context == 10


def test_a_budget_that_nothing_fits_is_refused_with_the_smallest_that_would():
    with pytest.raises(InputError, match=r"memory=2\.00GiB is too little") as refused:
        chosen(2)
    needed = float(str(refused.value).split("takes ")[1].split("GiB")[0])
    assert chosen(needed).context == 8
    with pytest.raises(InputError, match=r"takes 1\.88GiB"):
        chosen(1.75, ByLength(), max_frames=6)  # by 4 frames, 1.875; 3 would fit and are not tried
    assert chosen(1.88, ByLength(), max_frames=6).context == 4, (
        "the budget that the message names is enough"
    )


def test_the_plan_says_what_it_does():
    assert str(chosen(7)) == (
        "level 2: windows of 16 frames, layers in 8 frames and 4096 positions, 8 frames decoded at once, "
        "idle windows' caches in host memory; predicted peak 5.80 GiB of 7.00 GiB (denoise 5.80, "
        "decode 5.00); 2.00 GiB in host memory"
    )
    assert str(chosen(None)) == (
        "level 1: windows of 16 frames, whole layers, 16 frames decoded at once; predicted peak 11.00 GiB "
        "(denoise 11.00, decode 9.00)"
    )


def test_idle_caches_are_copied_or_computed_again_whichever_costs_less():
    fast, slow = chosen(6.2), chosen(6.2, rates=SLOW_BUS)
    assert fast.chunks == Chunks(8, 4096, decode=8, idle=HOST)
    assert slow.chunks == Chunks(8, 4096, decode=8, idle=RECOMPUTE)
    assert fast.work.copy_s(FAST_BUS) == 2 < 10 == slow.recomputed_macs / SLOW_BUS.macs_per_s
    assert fast.peak.spilled == 2 * GIB and slow.peak.spilled == slow.work.to_host == 0
    assert slow.work.macs - fast.work.macs == fast.recomputed_macs == 10**13
    assert chosen(10, rates=SLOW_BUS).chunks == Chunks(8, 4096, decode=16)


def test_without_room_in_host_memory_they_are_computed_again():
    assert chosen(6.2, host_budget=GIB).chunks.idle == RECOMPUTE
    assert chosen(6.2, host_budget=3 * GIB).chunks.idle == HOST
    assert chosen(6.2, host_budget=2 * GIB).chunks.idle == HOST, "as much as is needed"


def test_where_nothing_idles_there_is_nothing_to_choose():
    one = chosen(5.5, OneWindow(), num_frames=10)
    assert one.chunks.idle == DEVICE and one.chunks.split
    with pytest.raises(InputError, match=r"takes 5\.42"):
        chosen(4.5, OneWindow(), context=11)


def test_the_plan_prices_every_place():
    told = "\n".join(chosen(10).explain())
    for word in (
        "50 T MACs, 50 s; 10 T of them (20.0 %)", "9.31 GiB copied there and 27.94 GiB back, 2 s",
        "10 T MACs more, 10 s", "20 GB/s, fast", "chosen: host",
    ):  # fmt: skip
        assert word in told
    data = chosen(10).to_dict()
    assert data["idle_caches"] == "host" and data["works"]["host"]["to_device"] == 30 * 10**9
    assert data["predicted_host_nbytes"] == 2 * GIB
    assert data["rates"] == {
        "macs_per_s": 1e12, "bus_nbytes_per_s": 20e9, "source": "fast",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("8GiB", 8 * GIB), ("512 MiB", 2**29), ("6GB", 6 * 10**9), ("1e3", 1000), (4096, 4096),
     ("0.5gib", GIB // 2), ("1", 1)],
)  # fmt: skip
def test_amounts(text, nbytes):
    assert parse_nbytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "eight", "-1GiB", "0", "8Gi", "GiB", "nan", "inf"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(InputError, match="8GiB"):
        parse_nbytes(text)


def test_a_denoising_loop_that_must_take_less_is_cut_and_decoding_is_not():
    """A loop predicted at 11 GiB failed: the next cut takes less there, and decoding its 9 GiB still."""
    first = chosen(12)
    assert (first.peak.denoise, first.peak.decode) == (11 * GIB, 9 * GIB)
    second = chosen(12, denoise_budget=first.peak.denoise)
    assert second.chunks == Chunks(decode=16, idle=HOST) and second.peak.denoise == 9 * GIB
    third = chosen(12, denoise_budget=second.peak.denoise)
    assert (third.peak.denoise, third.peak.decode) == (int(7.8 * GIB), 9 * GIB)
    with pytest.raises(InputError, match="too little"):
        chosen(12, denoise_budget=2 * GIB, context=16)


def test_a_plan_without_rates_or_work_prices_nothing():
    whole = chosen(10)
    assert replace(whole, rates=None).explain() == () == replace(whole, works={}).explain()
    assert replace(whole, rates=None).to_dict() == {}
    assert MemoryPlan(1, 16, Chunks(), Peak(1, 1), None).explain() == ()


def test_there_is_always_a_position_in_a_split():
    positions = [(20, 10, 2), (3, 1, 1), (1, 1, 1)]
    for count, half, few in positions:
        assert chosen(7, num_positions=count).chunks.positions == half
        assert chosen(4.5, num_positions=count).chunks.positions == few


class ByLength(Table):
    """Windows that never idle, with work of their length."""

    def works(self, context):
        return {DEVICE: RunCost(context * 10**12)}

    def denoise(self, context, chunks):
        return super().denoise(context, replace(chunks, idle=RECOMPUTE))


@pytest.mark.parametrize(
    ("max_frames", "budget", "context"),
    [
        (11, 4, 11),  # of 3.2 GiB; 96 % of 3, 2.4 and 2.05 GiB hold these
        (11, 3, 8), (11, 2.4, 5), (8, 2.05, 4),
    ],
)  # fmt: skip
def test_shorter_windows_are_three_quarters_and_half_and_no_shorter_than_four(
    max_frames, budget, context
):
    plan = chosen(budget, ByLength(), max_frames=max_frames)
    assert (plan.context, plan.work.macs) == (context, context * 10**12)
