"""Windows of a step that act together: as its first window finds what each of them said last."""

from __future__ import annotations

import json

from hgc_video.cache.agreement import Agreement
from hgc_video.cache.drift import Observer, Observers
from hgc_video.plan.liveness import live
from hgc_video.plan.policies.net import Net
from hgc_video.plan.presets import resolve
from tests.plan.policies.test_guard import Series, circle, noise
from tests.plan.policies.test_policies import tower

STEPS = 25


def test_what_a_later_window_says_counts_from_the_next_step_on():
    agreement = Agreement()
    assert [agreement.of(window, 0, False) for window in (4, 7)] == [False, False]
    assert [agreement.of(window, 1, window == 7) for window in (4, 7)] == [False, False]
    assert [agreement.of(window, 2, window == 4) for window in (4, 7)] == [True, True]
    assert [agreement.of(window, 3, False) for window in (4, 7)] == [False, False]


def test_windows_that_are_no_more_have_no_say():
    agreement = Agreement()
    agreement.of(4, 0, False)
    agreement.of(7, 0, True)
    agreement.only_windows({4})
    assert not agreement.of(4, 1, False)


def test_a_run_goes_on_with_what_was_agreed_within_a_step():
    first = Agreement()
    first.of(0, 3, True)
    again = Agreement.restored(json.loads(json.dumps(first.state())))
    assert again == first and again.of(1, 3, False)
    seen = Observers("unet.up")
    seen.at(0).step = seen.at(1).step = 5
    assert seen.at(0).agreed(True)
    gone_on = Observers("unet.up")
    gone_on.restore(seen.state())
    gone_on.at(1).step = 5
    assert gone_on.at(1).agreed(False), "within the step"
    gone_on.forget()
    gone_on.at(1).step = 5
    assert not gone_on.at(1).agreed(False)


def test_the_only_window_agrees_with_itself():
    assert Observer().agreed(True) and not Observer().agreed(False)


class Seen(Series):
    """The signals of a window that acts together with others."""

    def __init__(self, values, agreement, window):
        super().__init__(values)
        self.agreement, self.window = agreement, window

    def agreed(self, flag):
        return self.agreement.of(self.window, self.step, flag)


def test_under_a_net_all_windows_are_computed_where_forecasts_fail_in_one():
    """The first window is smooth, in the second one steps do not resemble one another."""
    plan = Net().under(resolve("fast").schedule(tower(), STEPS), tower())
    agreement = Agreement()
    windows = [Seen(circle(STEPS), agreement, 0), Seen(noise(STEPS), agreement, 1)]
    deciders = [plan.start() for _ in windows]
    caught = []
    for step, choices in enumerate(plan.choices):
        decisions = []
        for decide, signals in zip(deciders, windows, strict=True):
            signals.step = step
            decisions.append(decide(len(choices), signals))
            if tower().output in live(tower(), decisions[-1].of(choices)).computed:
                signals.computed.append(step)
        assert decisions[0].choice == decisions[1].choice
        if len(choices) > 1 and not decisions[0].choice:
            caught.append(decisions[0].reason)
    assert caught and set(caught) == {"net: computed, as forecasts fail in another window"}
    assert not plan.decides_apart and resolve("guard").schedule(tower(), STEPS).decides_apart
