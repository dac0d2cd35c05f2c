"""Which calls bring another prompt, control or embedding than before; what is the same tensor is not read."""

from __future__ import annotations

import pytest
import torch

from hgc_video.cache.inputs import Inputs

UNREAD = torch.full((4, 2), torch.nan)  # equal to nothing that is compared number by number


def asked(*calls, model="unet"):
    """What is said of each of these calls, one after the other."""
    inputs = Inputs()
    return [inputs.changed(model, call) for call in calls]


def text(*numbers):
    return {"encoder_hidden_states": torch.tensor(numbers)}


def test_the_first_call_of_each_model_and_run_changes_nothing():
    inputs = Inputs()
    assert not inputs.changed("unet", text(1.0))
    assert not inputs.changed("controlnet", text(2.0))
    assert not inputs.changed("unet", text(1.0)) and not inputs.changed("controlnet", text(2.0))
    assert inputs.changed("controlnet", text(1.0))
    inputs.forget()
    assert not inputs.changed("unet", text(9.0))


def test_a_call_is_compared_with_the_one_before_it():
    assert asked(text(1.0), text(2.0), text(2.0), text(1.0), text(1.0)) == [
        False, True, False, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "sample", "timestep", "conditioning_scale", "return_dict",
        "down_block_additional_residuals", "mid_block_additional_residual",
    ],
)  # fmt: skip
def test_what_is_another_one_at_every_step_is_not_looked_at(name):
    assert asked({name: torch.zeros(2)}, {name: torch.ones(3)}, {}) == [False] * 3


def test_an_input_more_or_less_is_a_change():
    embedded = {**text(1.0), "added_cond_kwargs": {"time_ids": 5}}
    assert asked(text(1.0), embedded, embedded, text(1.0)) == [False, True, False, True]


def test_what_lies_in_groups_is_compared_one_by_one():
    def added(ids, pooled, one, two):
        cond = {"time_ids": ids, "text_embeds": pooled, "image_embeds": [one, (two,)]}
        return {"added_cond_kwargs": cond}

    a, b = torch.tensor([1.0]), torch.tensor([2.0])
    same = added(a.clone(), a.clone(), a.clone(), b.clone())
    assert asked(added(a, a, a, b), same) == [False, False]
    for other in (added(b, a, a, b), added(a, b, a, b), added(a, a, b, b), added(a, a, a, a)):
        assert asked(added(a, a, a, b), other) == [False, True]


def test_any_of_several_inputs_may_change():
    def call(prompt, control):
        return {**text(prompt), "controlnet_cond": torch.tensor(control)}

    for other in (call(1.0, 3.0), call(3.0, 2.0)):
        assert asked(call(1.0, 2.0), other, other) == [False, True, False]


def test_the_same_tensor_is_not_read_and_a_view_of_the_same_memory_neither():
    call = {"controlnet_cond": UNREAD}
    assert asked(call, call, {"controlnet_cond": UNREAD.view(4, 2)}) == [False] * 3
    views = [{"controlnet_cond": UNREAD[1:3]} for _ in range(2)]
    assert asked(*views) == [False] * 2
    assert asked(call, {"controlnet_cond": UNREAD.clone()}) == [False, True], "that one is read"


@pytest.mark.parametrize(
    "other",
    [
        UNREAD[2:4],  # from another place
        UNREAD[:, 0],
        UNREAD[0:4:2],  # as many numbers, farther apart
        UNREAD[:2].view(torch.int32),
        UNREAD[:1].expand(2, 2),
    ],
)
def test_another_view_of_the_same_memory_is_another_tensor(other):
    assert asked({"text": UNREAD[:2]}, {"text": other}) == [False, True]


def test_a_tensor_that_was_written_to_is_another_one():
    given = torch.zeros(2)
    inputs = Inputs()
    assert not inputs.changed("unet", {"text": given})
    given.add_(0)
    assert inputs.changed("unet", {"text": given}), "what is in it now is not asked"
    assert not inputs.changed("unet", {"text": given})


def test_an_equal_one_in_its_place_is_the_one_to_compare_with():
    first, second = torch.zeros(2), torch.zeros(2)
    inputs = Inputs()
    inputs.changed("unet", {"text": first})
    assert not inputs.changed("unet", {"text": second})
    first.add_(1)
    assert not inputs.changed("unet", {"text": second})
    second.add_(1)
    assert inputs.changed("unet", {"text": second})


def test_one_that_was_written_to_since_cannot_be_compared_with():
    first = torch.zeros(2)
    inputs = Inputs()
    inputs.changed("unet", {"text": first})
    first.add_(1)
    assert inputs.changed("unet", {"text": first.clone()}), "it was zeros that the run began with"


def test_what_is_written_to_without_a_trace_is_compared_with_a_copy():
    inputs = Inputs()
    with torch.inference_mode():
        given = torch.zeros(2)
        assert not inputs.changed("unet", {"text": given})
        assert not inputs.changed("unet", {"text": given})
        given.add_(1)
        assert inputs.changed("unet", {"text": given})
        assert not inputs.changed("unet", {"text": given.clone()})
        given.add_(1)
        assert not inputs.changed("unet", {"text": torch.ones(2)})
        assert inputs.changed("unet", {"text": given})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.ones(2), torch.ones(3)),
        (torch.ones(2), torch.ones(2, 1)),
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
        (torch.ones(2), torch.ones(2, device="meta")),
        (torch.ones(2, device="meta"), torch.ones(3, device="meta")),
    ],
)
def test_another_shape_dtype_or_device_is_a_change(one, other):
    assert asked({"text": one}, {"text": other}) == [False, True]


def test_on_the_meta_device_all_of_one_shape_are_the_same():
    assert asked(*({"text": torch.ones(2, device="meta")} for _ in range(2))) == [False] * 2


@pytest.mark.parametrize(
    ("one", "other", "changes"),
    [
        (0.5, float("0.5"), False), (0.5, 0.25, True), (1, True, True), (1, 1.0, True),
        ("word", "".join(["wo", "rd"]), False), ("word", "other", True),
        (None, None, False), (None, torch.ones(1), True), (torch.ones(1), None, True),
        (1.0, torch.ones(1), True), (torch.ones(1), 1.0, True), (float("nan"), float("nan"), True),
    ],
)  # fmt: skip
def test_what_is_no_tensor_is_compared_by_kind_and_value(one, other, changes):
    assert asked({"class_labels": one}, {"class_labels": other}) == [False, changes]


def test_what_is_equal_to_nothing_is_still_itself():
    nothing = float("nan")
    assert asked({"class_labels": nothing}, {"class_labels": nothing}) == [False] * 2
