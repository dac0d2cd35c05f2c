"""Rows that are the same are computed once: which they are, how often, and what comes of it."""

from __future__ import annotations

import pytest
import torch

from hgc_video.cache.shared_rows import HintSite, Prompt, Prompts, TextProjectionCache, hint_rows
from hgc_video.cache.wrappers import GIVE, RUN

NEGATIVE, POSITIVE, OTHER = (torch.full((1, 3, 4), float(value)) for value in range(3))


def text(*prompts, frames=2):
    """encoder_hidden_states (branches·f n d): each prompt for so many frames."""
    return torch.cat([prompt.repeat(frames, 1, 1) for prompt in prompts])


class Counted:
    """A projection that doubles rows and notes how many it gets."""

    def __init__(self):
        self.rows = []

    def __call__(self, states):
        self.rows.append(len(states))
        return 2 * states


def test_the_text_of_all_frames_is_one_row_for_each_branch():
    known = Prompts().at(0, text(NEGATIVE, POSITIVE), 2)
    assert known.same and known.number == 0 and known.branches == 2
    assert torch.equal(known.rows, torch.cat([NEGATIVE, POSITIVE]))
    travelling = torch.cat([NEGATIVE, NEGATIVE, POSITIVE, OTHER])
    known = Prompts().at(0, travelling, 2)
    assert not known.same and torch.equal(known.rows, travelling)
    first_differs = torch.cat([OTHER, NEGATIVE, POSITIVE, POSITIVE])
    assert not Prompts().at(0, first_differs, 2).same


def test_windows_of_the_same_text_share_its_number():
    prompts = Prompts()
    one = prompts.at(0, text(NEGATIVE, POSITIVE), 2)
    assert prompts.at(1, text(NEGATIVE, POSITIVE, frames=3), 2) is one
    two = prompts.at(2, text(NEGATIVE, OTHER), 2)
    assert (one.number, two.number) == (0, 1)
    assert prompts.at(3, text(NEGATIVE, OTHER), 2) is two
    # Two rows for each branch are not one row of each, though the rows are the same four.
    travelling = prompts.at(4, torch.cat([NEGATIVE, POSITIVE]), 1)
    assert travelling.number == 2 and not travelling.same
    assert prompts.at(5, text(NEGATIVE, frames=1), 1).number == 3


def test_a_text_is_looked_at_once_for_as_many_branches():
    """After a gate the prompt's branch alone is left, which is the last of what is known."""
    prompts = Prompts()
    both = prompts.at(0, text(NEGATIVE, POSITIVE), 2)
    assert prompts.at(0, text(POSITIVE), 1) is both
    assert prompts.at(0, text(OTHER, OTHER), 2) is both, "not looked at again"
    alone = prompts.at(1, text(POSITIVE), 1)
    assert alone.branches == 1
    whole = prompts.at(1, text(OTHER, POSITIVE), 2)
    assert whole.branches == 2 and whole.number == 2
    prompts.forget()
    assert prompts.at(0, text(OTHER, OTHER), 2).number == 0


@pytest.mark.parametrize("states", [None, text(NEGATIVE, frames=3)])
def test_what_is_no_text_of_the_branches_is_not_known(states):
    assert Prompts().at(0, states, 2) is None


def test_rows_on_the_meta_device_are_taken_to_be_the_same_where_their_shape_is():
    prompts = Prompts()
    one = prompts.at(0, torch.empty(4, 3, 4, device="meta"), 2)
    assert one.same and one.rows.shape == (2, 3, 4)
    assert prompts.at(1, torch.empty(6, 3, 4, device="meta"), 2) is one
    assert prompts.at(2, torch.empty(4, 5, 4, device="meta"), 2) is not one


def test_a_texts_state_is_known_again():
    prompts, again = Prompts(), Prompts()
    one = prompts.at(3, text(NEGATIVE, POSITIVE), 2)
    again.restore(prompts.state())
    assert again.at(3, text(NEGATIVE, POSITIVE), 2).number == one.number
    assert again.state()[0][0] == 3


@pytest.mark.parametrize(("same", "projected"), [(True, 2), (False, 4)])
def test_a_text_is_projected_once_and_given_to_every_frame(same, projected):
    states = text(NEGATIVE, POSITIVE) if same else torch.cat([NEGATIVE, OTHER, POSITIVE, OTHER])
    prompt = Prompts().at(0, states, 2)
    site, forward = TextProjectionCache("to_k", 10), Counted()
    assert (site.name, site.macs) == ("to_k", 10)
    site.read(prompt, 2)
    assert (site.mode, site.keep, site.ran) == (RUN, True, False)
    assert torch.equal(site(forward, states), 2 * states)
    assert site.ran and forward.rows == [projected] and site.collect() == projected
    assert site.made is None and site.nbytes == projected * 12 * 4
    site.read(prompt, 2)
    assert site.mode == GIVE and torch.equal(site(forward, states), 2 * states)
    site.read(
        prompt, 1
    )  # after a gate, or of a window with fewer frames: the prompt's rows are the last ones
    left = states[2:]
    assert site.mode == GIVE and torch.equal(site(forward, left), 2 * left)
    assert forward.rows == [projected] and site.collect() == 0
    site.forget()
    assert site.nbytes == 0
    site.read(prompt, 2)
    assert site.mode == RUN


def test_what_was_projected_for_one_branch_does_not_do_for_two():
    site, forward = TextProjectionCache("to_k", 10), Counted()
    site.read(Prompt(0, POSITIVE, 1, True), 1)
    site(forward, text(POSITIVE))
    site.collect()
    site.read(Prompt(0, torch.cat([NEGATIVE, POSITIVE]), 2, True), 2)
    assert site.mode == RUN
    site.read(Prompt(1, POSITIVE, 1, True), 1)
    assert site.mode == RUN, "of another text"
    site.read(Prompt(0, POSITIVE, 1, True), 1)
    assert site.mode == GIVE


def test_a_text_that_is_not_known_is_projected_as_it_is():
    site, forward = TextProjectionCache("to_k", 10), Counted()
    states = text(NEGATIVE, POSITIVE)
    for _ in range(2):
        site.read(None, 2)
        assert torch.equal(site(forward, states), 2 * states)
        assert not site.ran and site.collect() == 4, "rows that ran are counted"
    assert forward.rows == [4, 4] and site.nbytes == 0


def test_a_projections_state_is_kept_again():
    states = text(NEGATIVE, POSITIVE)
    prompt = Prompts().at(0, states, 2)
    site, again, forward = TextProjectionCache("k", 1), TextProjectionCache("k", 1), Counted()
    site.read(prompt, 2)
    site(forward, states)
    site.collect()
    again.restore(site.state())
    again.read(prompt, 2)
    assert torch.equal(again(forward, states), 2 * states) and forward.rows == [2]


CLIP = torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)  # two frames


@pytest.mark.parametrize(
    ("share", "second", "encoded"), [(True, CLIP, 2), (False, CLIP, 4), (True, 1 - CLIP, 4)]
)
def test_a_clip_that_both_branches_see_is_encoded_for_one(share, second, encoded):
    both = torch.cat([CLIP, second])
    site, forward = HintSite("hint", 10), Counted()
    assert site.name == "hint" and not site.shared and not site.dead and site.branches == 1
    site.encode(both, 2, share=share, keep=True)
    assert torch.equal(site(forward, both), 2 * both)
    assert site.ran and forward.rows == [encoded] and site.executed == 10 * encoded // 2
    assert torch.equal(site.made, 2 * both[:encoded])
    site.encode(both, 2, share=share, keep=False)
    assert not site.ran
    site.forget()
    site(forward, both)
    assert site.ran and site.made is None
    site.run()
    assert not site.shared


def test_a_window_whose_branches_cannot_be_told_is_encoded_whole():
    three = torch.cat([CLIP, CLIP[:1]])
    site, forward = HintSite("hint", 10), Counted()
    site.encode(three, 2, share=True, keep=False)
    assert not site.shared and torch.equal(site(forward, three), 2 * three)
    site.encode(None, 2, share=True, keep=False)
    assert not site.shared


def test_a_hint_that_is_handed_on_has_the_rows_of_the_call_unless_nobody_reads_it():
    site, forward = HintSite("hint", 10), Counted()
    both, value = torch.cat([CLIP, CLIP]), 5 * CLIP
    site.hand_on(value, dead=False)
    assert (site.keep, site.ran) == (False, False)
    assert torch.equal(site(forward, both), torch.cat([value, value]))
    assert torch.equal(site(forward, CLIP[:1]), value[-1:])
    site.hand_on(value, dead=True)
    assert site(forward, both) is value
    assert forward.rows == []
    site.encode(both, 2, share=True, keep=False)
    assert not site.dead


def test_rows_of_a_hint():
    value = torch.arange(3.0)[:, None]
    assert hint_rows(value, 6).flatten().tolist() == [0, 1, 2, 0, 1, 2]
    assert torch.equal(hint_rows(value, 3), value)
    assert hint_rows(value, 2).flatten().tolist() == [1, 2]


@pytest.mark.parametrize("known", [True, False])
def test_a_text_that_a_call_reads_in_parts_is_counted_for_each(known):
    """As split inference hands rows on, a few at a time."""
    site, states = TextProjectionCache("to_k", 10), text(NEGATIVE, POSITIVE)
    site.read(Prompts().at(0, states, 2) if known else None, 2)
    for _ in range(2):
        site(Counted(), states)
    assert site.collect() == (4 if known else 8)
    site.read(None, 2)
    assert site.collect() == 0, "the next call begins anew"
