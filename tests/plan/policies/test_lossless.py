"""The lossless savings: what is made once is reused from then on, and the reasons say when it was made."""

from __future__ import annotations

from dataclasses import replace

from hgc_video.plan.graph import Attention
from hgc_video.plan.policies.lossless import Lossless, add_lossless_to_choices, once_per_run
from hgc_video.plan.schedule import StepPlan
from tests.plan.test_graph import ladder

HINT, IMAGE = "controlnet.hint", "unet.deep.attn2"
TEXT = "the text is projected once"


def with_image():
    """The ladder's cross-attention reads the one token of an image, as in Stable Video Diffusion."""
    graph = ladder()
    image = Attention(IMAGE, "cross", macs=30, nbytes=6, constant=True)
    layers = [
        replace(la, attentions=(la.attentions[0], image)) if la.name == "unet.deep" else la
        for la in graph.layers
    ]
    return replace(graph, layers=tuple(layers))


def without_controlnet():
    graph = ladder()
    layers = [replace(la, inputs=("unet.in",)) if la.kind == "join" else la for la in graph.layers]
    return replace(graph, layers=tuple(la for la in layers if la.part == "unet"))


def test_what_is_made_once_is_reused_from_the_second_step_on():
    for graph, made, first, later in (
        (ladder(), {HINT}, "the hint is encoded here", "the hint was encoded at step 0"),
        (
            with_image(),
            {HINT, IMAGE},
            "the hint is encoded here, attention to the image is computed once",
            "the hint was encoded at step 0, attention to the image is computed once",
        ),
        (without_controlnet(), set(), TEXT, TEXT),
    ):
        assert once_per_run(graph) == made
        schedule = Lossless()(graph, 3)
        assert [step.reuse for step in schedule.steps] == [set(), made, made]
        assert [step.reason for step in schedule.steps] == [
            f"lossless: {said}" for said in (first, later, later)
        ]
        assert schedule.lossless


def test_every_choice_of_a_plan_that_decides_at_run_time_has_the_savings():
    """Step 0 makes what is made once, whatever is chosen after it."""
    own, other = StepPlan(reason="own"), StepPlan(frozenset({"unet.deep"}), label="other")
    choices = ((own,), (own, other), (other,))
    first, *later = add_lossless_to_choices(choices, with_image())
    here = "lossless: the hint is encoded here, attention to the image is computed once"
    assert first == (own,) and first[0].reason == f"own; {here}"
    reused = own.with_reuse(frozenset({HINT, IMAGE})), other.with_reuse(frozenset({HINT, IMAGE}))
    assert later == [reused, reused[1:]]
    once = "lossless: the hint was encoded at step 0, attention to the image is computed once"
    assert [[step.reason for step in some] for some in later] == [[f"own; {once}", once], [once]]
