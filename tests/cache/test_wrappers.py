"""Layers and attentions do what a plan tells them: run, give or add what is held, and hold what they made."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hgc_video.cache.anchors import anchor_rows
from hgc_video.cache.wrappers import ADD, GIVE, RUN, AttentionSite, LayerSite, Site
from hgc_video.plan.graph import Attention, Layer
from hgc_video.plan.schedule import Anchors

NUMBERS = torch.arange(12.0).reshape(4, 3)
OTHER = NUMBERS + 100


def layer(kind="resnet"):
    return LayerSite(Layer("unet.deep", kind, ()))


def attention(kind="cross", constant=False):
    return AttentionSite(Attention("unet.deep.attn2", kind, constant=constant))


class Doubling(nn.Module):
    """Gives twice what it gets, as a tensor, in a tuple with something beside it, or in a list."""

    def __init__(self, kind=None):
        super().__init__()
        self.kind, self.calls = kind, []

    def forward(self, hidden_states, *beside, **named):
        self.calls.append((hidden_states, beside, named))
        out = 2 * hidden_states
        return out if self.kind is None else self.kind([out, torch.zeros(1)])


def never(*args, **kwargs):
    raise AssertionError("the module runs")


# Sites

KINDS = [lambda: Site("unet.deep"), layer, attention]


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_site_runs_its_module_and_holds_nothing(kind):
    site = kind()
    assert site.name in ("unet.deep", "unet.deep.attn2")
    assert site.mode == RUN and site.made is None and site.value.numel() == 0
    assert (site.keep, site.ran) == (False, False)


def test_sites_know_their_part_of_the_graph():
    one, two = layer("motion"), attention("temporal")
    assert one.name == one.layer.name == "unet.deep" and one.layer.kind == "motion"
    assert two.name == two.attention.name == "unet.deep.attn2" and two.attention.kind == "temporal"
    assert (one.shape, one.delta, one.keep_contribution, one.copies) == (None, None, False, False)
    assert two.average_branches is False and two.anchors is None


def test_modes_are_words_that_differ():
    assert (RUN, GIVE, ADD) == ("run", "give", "add")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_given_takes_the_place_of_the_module_until_it_runs_again(kind):
    site = kind()
    site.give(NUMBERS)
    assert site.mode == GIVE and site.value is NUMBERS
    site.keep = site.ran = True
    site.run()
    assert (site.mode, site.keep, site.ran) == (RUN, False, False)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_forgotten_holds_no_tensor(kind):
    site = kind()
    site.give(NUMBERS)
    site.made = OTHER
    site.forget()
    assert site.made is None and site.value.numel() == 0 and site.mode == GIVE
    other = Site("b")
    other.forget()
    assert other.value is site.value, "nothing new was made"


def test_a_layer_that_runs_keeps_nothing_of_what_it_adds():
    site = layer()
    site.keep_contribution = site.keep = True
    site.run()
    assert (site.keep_contribution, site.keep, site.mode) == (False, False, RUN)
    site.delta = NUMBERS
    site.forget()
    assert site.delta is None


def test_an_attention_that_runs_has_all_its_frames():
    site = attention()
    site.anchors, site.keep = anchor_rows(Anchors(2), 1, 3, torch.device("cpu")), True
    site.run()
    assert site.anchors is None and not site.keep


# Layers


@pytest.mark.parametrize("named", [False, True])
def test_a_layer_runs_with_all_it_is_called_with(named):
    site, module, temb = layer(), Doubling(), torch.ones(1)
    given = ((), {"hidden_states": NUMBERS, "temb": temb}) if named else ((NUMBERS, temb), {"x": 5})
    out = site(module.forward, *given[0], **given[1])
    assert torch.equal(out, 2 * NUMBERS)
    ((states, beside, more),) = module.calls
    assert states is NUMBERS
    assert (beside, more) == (((), {"temb": temb}) if named else ((temb,), {"x": 5}))
    assert site.ran and site.shape == (4, 3) and site.in_tuple is False
    assert (site.made, site.delta) == (None, None)


def test_a_layer_holds_its_output_where_it_is_to():
    site = layer()
    site.keep = True
    out = site(Doubling().forward, NUMBERS)
    assert site.made is out and site.delta is None


@pytest.mark.parametrize("given", [((NUMBERS,), {}), ((), {"hidden_states": NUMBERS})])
@pytest.mark.parametrize("kind", [None, tuple])
def test_a_layer_holds_what_it_adds_to_its_input(given, kind):
    site = layer("motion")
    site.keep_contribution = True
    site(Doubling(kind).forward, *given[0], **given[1])
    assert torch.equal(site.delta, NUMBERS) and site.made is None


def test_of_a_tuple_the_first_is_held_and_all_of_it_handed_on():
    site = layer()
    site.keep = True
    out = site(Doubling(tuple).forward, NUMBERS)
    assert isinstance(out, tuple) and len(out) == 2 and out[1].shape == (1,)
    assert site.made is out[0] and site.in_tuple and site.shape == (4, 3) and site.ran


def test_a_list_is_handed_on_and_never_held():
    site = layer("attention")
    site.keep = site.keep_contribution = True
    out = site(Doubling(list).forward, NUMBERS)
    assert isinstance(out, list) and torch.equal(out[0], 2 * NUMBERS) and len(out) == 2
    assert site.ran and (site.made, site.delta, site.shape) == (None, None, None)
    assert site.in_tuple is True, "as before it ran"


@pytest.mark.parametrize("mode", [GIVE, ADD])
@pytest.mark.parametrize(
    ("kind", "in_tuple"),
    [("attention", True), ("motion", False), ("resnet", False), ("sampler", False)],
)
def test_before_a_layer_ran_a_transformer_alone_gives_a_tuple(kind, in_tuple, mode):
    site = layer(kind)
    site.mode, site.value = mode, OTHER
    out = site(never, NUMBERS)
    assert isinstance(out, tuple) == in_tuple
    if in_tuple:
        assert len(out) == 1


@pytest.mark.parametrize("kind", ["attention", "resnet"])
@pytest.mark.parametrize("form", [None, tuple])
def test_a_layer_gives_its_output_as_it_was_seen_to(kind, form):
    site = layer(kind)
    site(Doubling(form).forward, NUMBERS)
    for mode in (GIVE, ADD):
        site.mode, site.value = mode, OTHER
        assert isinstance(site(never, NUMBERS), tuple) == (form is tuple)


@pytest.mark.parametrize("kind", ["attention", "resnet"])
def test_a_layer_gives_what_is_held_and_is_not_run(kind):
    site = layer(kind)
    site.give(OTHER)
    out = site(never, NUMBERS)
    assert (out[0] if kind == "attention" else out) is OTHER
    assert not site.ran and site.shape is None


@pytest.mark.parametrize("kind", ["attention", "resnet"])
@pytest.mark.parametrize("given", [((NUMBERS,), {}), ((), {"hidden_states": NUMBERS})])
def test_a_layer_adds_what_is_held_to_its_input_and_is_not_run(kind, given):
    site = layer(kind)
    site.mode, site.value = ADD, OTHER
    out = site(never, *given[0], **given[1])
    assert torch.equal(out[0] if kind == "attention" else out, 2 * NUMBERS + 100)
    assert not site.ran and torch.equal(OTHER, NUMBERS + 100)


def test_what_is_changed_in_place_is_handed_on_as_a_copy():
    site = layer()
    site.copies = True
    held = torch.zeros(()).expand(4, 3)
    site.give(held)
    out = site(never, NUMBERS)
    out += 1  # which a tensor that was expanded from one number refuses
    assert out.shape == (4, 3) and out.is_contiguous() and float(held.max()) == 0
    site.give(NUMBERS.T)
    out = site(never, NUMBERS)
    assert torch.equal(out, NUMBERS.T) and out.is_contiguous()
    site.run()
    site.keep = True
    out = site(Doubling().forward, NUMBERS)
    assert torch.equal(site.made, 2 * NUMBERS)
    out.zero_()
    assert torch.equal(site.made, 2 * NUMBERS), "what is kept is one of its own"


def test_what_a_layer_saw_can_be_told_to_another_one():
    site, other = layer(), layer()
    assert site.seen() == (False, None) and layer("attention").seen() == (True, None)
    other.have_seen(*site.seen())
    assert other.seen() == (False, None) and other.shape is None
    site(Doubling(tuple).forward, NUMBERS)
    assert site.seen() == (True, [4, 3]) and type(site.seen()[1]) is list
    other.have_seen(*site.seen())
    assert other.seen() == (True, [4, 3]) and type(other.shape) is torch.Size
    other.have_seen(False, (2, 1))
    assert (other.in_tuple, other.shape) == (False, torch.Size([2, 1]))


@pytest.mark.parametrize("rows", [0, 6])
def test_a_stand_in_has_the_shape_of_the_last_run_but_for_its_rows(rows):
    site, zero = layer(), torch.zeros((), dtype=torch.float16)
    unknown = site.stand_in(zero, rows)
    assert unknown.shape == (0, 1, 1, 1) and unknown.dtype == torch.float16
    site.shape = torch.Size((9, 5, 2, 3))
    made = site.stand_in(zero, rows)
    assert made.shape == (rows, 5, 2, 3) and made.dtype == torch.float16
    assert made.untyped_storage().nbytes() == 2, "no memory is taken"


# Attentions

STATES = torch.arange(2 * 3 * 2.0).reshape(2, 3, 2)  # branches, positions, channels


def test_an_attention_runs_with_all_it_is_called_with():
    site, module = attention(), Doubling()
    out = site(module.forward, STATES, encoder_hidden_states=OTHER, scale=2)
    assert torch.equal(out, 2 * STATES) and site.ran and site.made is None
    ((states, beside, named),) = module.calls
    assert states is STATES and beside == ()
    assert named["encoder_hidden_states"] is OTHER and named["scale"] == 2 and len(named) == 2
    site(module.forward, STATES, OTHER)
    assert module.calls[1][1] == (OTHER,)


def test_an_attention_holds_its_output_where_it_is_to():
    site = attention()
    site.keep = True
    out = site(Doubling().forward, STATES)
    assert site.made is out


def test_an_attention_may_hold_the_mean_of_both_branches():
    site, states = attention(), torch.arange(4 * 3.0).reshape(4, 1, 3)  # two frames of each branch
    site.average_branches = True
    site(Doubling().forward, states)
    assert site.made is None
    site.keep = True
    out = site(Doubling().forward, states)
    assert torch.equal(out, 2 * states), "what is handed on is of both"
    assert torch.equal(site.made, states[:2] + states[2:])


@pytest.mark.parametrize("average", [False, True])
def test_an_attention_that_is_the_same_everywhere_is_held_for_one_position(average):
    site, rows = attention(constant=True), torch.tensor([1.0, 2.0, 5.0, 8.0])  # two of each branch
    site.keep, site.average_branches = True, average
    out = site(Doubling().forward, rows[:, None, None].expand(4, 3, 6))
    assert out.shape == (4, 3, 6)
    assert site.made.shape == (2 if average else 4, 1, 6)
    assert site.made[:, 0, 5].tolist() == ([6.0, 10.0] if average else [2.0, 4.0, 10.0, 16.0])
    assert site.made.untyped_storage().nbytes() == 4 * site.made.numel(), "no memory but its own"


@pytest.mark.parametrize("given", [((STATES,), {}), ((), {"hidden_states": STATES})])
def test_an_attention_gives_what_is_held_and_is_not_run(given):
    site = attention()
    site.give(OTHER)
    assert site(never, *given[0], **given[1]) is OTHER and not site.ran


@pytest.mark.parametrize("given", [((STATES,), {}), ((), {"hidden_states": STATES})])
def test_what_is_held_for_one_position_is_given_for_all(given):
    site, held = attention(constant=True), torch.arange(8.0).reshape(2, 1, 4)
    site.give(held)
    out = site(never, *given[0], **given[1])
    assert out.shape == (2, 3, 4) and torch.equal(out, held.repeat(1, 3, 1))


FRAMES = 5


def states_of(branches):
    """A row of every frame of every branch, with squares of the frames, which no line goes through."""
    squares = torch.arange(float(FRAMES)) ** 2
    return torch.cat([squares + 100 * branch for branch in range(branches)])[:, None, None]


@pytest.mark.parametrize("branches", [1, 2])
def test_at_anchors_some_frames_run_and_the_others_are_mixed_from_the_two_beside_them(branches):
    site, module, states = attention(), Doubling(), states_of(branches)
    site.anchors = anchor_rows(Anchors(2), branches, FRAMES, torch.device("cpu"))
    site.keep = True
    out = site(module.forward, states)
    assert module.calls[0][0].flatten().tolist() == [
        number + 100 * branch for branch in range(branches) for number in (0, 4, 16)
    ]
    assert out.flatten().tolist() == [
        2 * (number + 100 * branch) for branch in range(branches) for number in (0, 2, 4, 10, 16)
    ]
    assert out.shape == states.shape and site.ran and site.made is out


def test_anchors_mix_in_the_dtype_of_the_attention():
    site = attention()
    site.anchors = anchor_rows(Anchors(2), 1, FRAMES, torch.device("cpu"))
    for dtype in (torch.bfloat16, torch.float64):
        out = site(Doubling().forward, states_of(1).to(dtype))
        assert out.dtype == dtype and out.flatten().tolist() == [0, 4, 8, 20, 32]


def test_what_has_a_row_for_each_frame_is_read_at_the_anchors_too():
    site, module = attention(), Doubling()
    site.anchors = anchor_rows(Anchors(2), 1, FRAMES, torch.device("cpu"))
    rows, one, scalar = torch.arange(float(FRAMES)), torch.ones(1), torch.tensor(float(FRAMES))
    flat = torch.zeros(3, FRAMES)
    site(
        module.forward,
        hidden_states=states_of(1),
        encoder_hidden_states=rows[:, None].expand(FRAMES, 4),
        pair=(rows, one),
        several=[rows, (rows, None)],
        one=one,
        scalar=scalar,
        flat=flat,
        word="word",
        none=None,
    )
    ((states, beside, named),) = module.calls
    at = [0.0, 2.0, 4.0]
    assert states.flatten().tolist() == [0, 4, 16] and beside == ()
    text = named.pop("encoder_hidden_states")
    assert text.shape == (3, 4) and text[:, 3].tolist() == at
    pair, several = named.pop("pair"), named.pop("several")
    assert type(pair) is tuple and pair[0].tolist() == at and pair[1] is one
    assert type(several) is list and several[0].tolist() == at
    assert type(several[1]) is tuple and several[1][0].tolist() == at and several[1][1] is None
    for name, value in (("one", one), ("scalar", scalar), ("flat", flat)):
        assert named.pop(name) is value
    assert named == {"word": "word", "none": None}


def test_what_is_handed_on_by_place_beside_the_states_reaches_the_anchors():
    site, module = attention(), Doubling()
    site.anchors = anchor_rows(Anchors(2), 1, FRAMES, torch.device("cpu"))
    site(module.forward, states_of(1), None, "mask")
    assert module.calls[0][1] == (None, "mask")


def test_of_one_row_too_no_memory_is_held_but_one_positions():
    site = attention(constant=True)
    site.keep = True
    site(Doubling().forward, torch.ones(1, 3, 6))
    assert site.made.shape == (1, 1, 6) and site.made.untyped_storage().nbytes() == 24
