"""The cut that is chosen for a budget, from a table of what each would take."""

from __future__ import annotations

import pytest

from hgc_video.errors import InputError
from hgc_video.plan.chunks import GIB, Chunks, choose_chunks, parse_nbytes


class Table:
    """Peaks in GiB that fall with every cut, as real ones do."""

    def denoise(self, context, chunks):
        whole = context * (0.5 if chunks.frames == 0 else 0.3 if chunks.frames == 8 else 0.2)
        return int((1 + whole + (0 if chunks.spill else 2)) * GIB), int(2 * GIB * chunks.spill)

    def decode(self, num_frames):
        return int((1 + 0.5 * num_frames) * GIB)


def chosen(budget, **options):
    options = {"num_frames": 64, "max_frames": 16, "num_positions": 8192, **options}
    return choose_chunks(Table(), budget=None if budget is None else int(budget * GIB), **options)


def test_the_coarsest_that_fits_is_taken():
    assert chosen(None).chunks == Chunks() and chosen(None).level == 1
    assert chosen(12).chunks == Chunks(decode=16)
    assert chosen(10).chunks == Chunks(decode=16, spill=True)
    assert chosen(7).chunks == Chunks(8, 4096, decode=8, spill=True) and chosen(7).level == 2
    assert chosen(4.5).chunks == Chunks(2, 1024, decode=4, spill=True)
    assert [chosen(b).context for b in (12, 10, 7, 4.5)] == [16] * 4


def test_shorter_windows_come_last_and_never_where_the_length_is_told():
    assert chosen(3.6).context == 12
    assert chosen(2.8).context == 8
    with pytest.raises(InputError, match=r"takes 4\.3.GiB"):
        chosen(3.6, context=16)
    assert chosen(3.6, num_frames=10).context == 10


def test_a_budget_that_nothing_fits_is_refused_with_the_smallest_that_would():
    with pytest.raises(InputError) as refused:
        chosen(2)
    needed = float(str(refused.value).split("takes ")[1].split("GiB")[0])
    assert chosen(needed + 0.01).context == 8


def test_the_plan_says_what_it_does():
    told = str(chosen(7))
    for word in (
        "level 2",
        "16 frames",
        "8 frames and 4096 positions",
        "of 7.00 GiB",
        "host memory",
    ):
        assert word in told


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("8GiB", 8 * GIB), ("512 MiB", 2**29), ("6GB", 6 * 10**9), ("1e3", 1000), (4096, 4096),
     ("0.5gib", GIB // 2)],
)  # fmt: skip
def test_amounts(text, nbytes):
    assert parse_nbytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "eight", "-1GiB", "0", "8Gi", "GiB", "nan", "inf"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(InputError, match="8GiB"):
        parse_nbytes(text)
