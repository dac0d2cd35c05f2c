"""Step codes and their coefficients at another length, by hand."""

from __future__ import annotations

import pytest

from hgc_video.plan.resample import nearest_steps, resampled_actions, resampled_coefficients
from hgc_video.plan.step_codes import depth, is_key, label, meaning


@pytest.mark.parametrize(
    ("count", "steps", "nearest"),
    [
        (5, 3, [0, 2, 4]),
        (3, 5, [0, 0, 1, 2, 2]),
        (7, 2, [0, 6]),
        (4, 1, [0]),
        (1, 3, [0, 0, 0]),
    ],
)
def test_steps_at_the_same_share_of_the_run(count, steps, nearest):
    assert nearest_steps(count, steps) == nearest


@pytest.mark.parametrize(
    ("actions", "steps", "made"),
    [
        # Twice as many key steps, between those that there were; where one was and is no more, what is done
        # most often.
        ("F11F1HF1H", 18, "F11F1F11F1FH1F11HH"),
        ("FHHHFHHHF", 17, "FHHFHHFHHHFHHFHHF"),  # five of 17, as far apart as can be
        ("FHHFHHFHH", 3, "FFF"),  # no fewer key steps than before, while there is room
        ("FHHFHHTHH", 2, "FT"),  # the first and the last one
        ("FFF", 5, "FFFFF"),
        ("FH1", 3, "FH1"),
        ("FH1", 1, "F"),
    ],
)
def test_key_steps_keep_their_share_and_their_places(actions, steps, made):
    assert resampled_actions(actions, steps) == made


def test_a_step_takes_the_coefficients_of_the_nearest_of_its_code():
    one = [(), *((round(0.1 * i, 1),) for i in range(1, 9))]
    assert resampled_coefficients(one, "F" + 8 * "H", "FHHHH") == (
        (), (0.2,), (0.4,), (0.6,), (0.8,)
    )  # fmt: skip
    assert resampled_coefficients(one, "F" + 8 * "H", "FH") == ((), (0.8,))
    two = [(), (0.9,), (), (1.5, -0.5)]
    assert resampled_coefficients(two, "FHFH", "FHFH") == tuple(two)
    # Of two kept values the newest comes first, and its distance counts.
    apart = [(), (), (), (1.5, -0.5)]
    assert resampled_coefficients(apart, "FHFH", "FHFH")[3] == (1.5, -0.5)
    assert resampled_coefficients([(), (), (2.0, -1.0)], "FFH", "FHFHHH")[5] == (2.5, -1.5)
    assert resampled_coefficients([(), (), (1.0,)], "F1H", "F1H") == ((), (), (1.0,))
    assert resampled_coefficients([], "FH", "FHH") == ()


@pytest.mark.parametrize(
    ("code", "word", "says"),
    [
        ("F", "key", "computes everything"),
        ("T", "no controlnet", "reuses the ControlNet's residuals"),
        ("H", "skip", "reuses the whole prediction"),
        ("1", "depth 1", "computes the last up layer"),
        ("3", "depth 3", "computes the last 3 up layers"),
    ],
)
def test_codes_in_words(code, word, says):
    assert (label(code), meaning(code)) == (word, says)


def test_how_much_of_the_up_path_a_code_computes():
    assert [depth(code) for code in "H13F"] == [0, 1, 3, depth("T")] and depth("T") > 9
    assert [code for code in "FTH13" if is_key(code)] == ["F", "T"]
