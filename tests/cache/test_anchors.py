"""Which frames are computed and what the others are mixed from."""

from __future__ import annotations

import torch

from hgc_video.cache.anchors import anchor_rows
from hgc_video.plan.schedule import Anchors

CPU = torch.device("cpu")


def test_a_frame_is_mixed_from_the_anchors_beside_it_by_its_distance():
    rows, first, second, weight = anchor_rows(Anchors(4), 1, 7, CPU)
    assert rows.tolist() == [0, 4, 6]
    assert first.tolist() == [0, 0, 0, 0, 1, 1, 2]
    assert second.tolist() == [1, 1, 1, 1, 2, 2, 2]
    assert weight.shape == (7, 1, 1)
    assert weight.flatten().tolist() == [0, 0.25, 0.5, 0.75, 0, 0.5, 0]


def test_what_is_linear_over_the_frames_is_given_back_for_every_branch():
    frames, branches = 10, 2
    values = torch.stack([torch.arange(10.0), 100 - 3 * torch.arange(10.0)]).flatten()[
        :, None, None
    ]
    rows, first, second, weight = anchor_rows(Anchors(3), branches, frames, CPU)
    made = values[rows]
    assert len(made) == branches * 4  # 0, 3, 6 and 9
    torch.testing.assert_close(torch.lerp(made[first], made[second], weight), values)


def test_where_every_frame_is_an_anchor_none_is_mixed():
    for anchors, frames in ((Anchors(1), 5), (Anchors(3), 1)):
        rows, first, _, weight = anchor_rows(anchors, 2, frames, CPU)
        assert rows.tolist() == first.tolist() == list(range(2 * frames))
        assert not weight.any()


def test_the_rows_are_on_the_device_that_is_asked_for():
    for tensor in anchor_rows(Anchors(3), 2, 10, torch.device("meta")):
        assert tensor.device.type == "meta"
