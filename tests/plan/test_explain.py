"""What a plan says of its steps: rows of numbers, names folded by their blocks, and the words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hgc_video.plan.explain import StepExplanation, StepSummary, block_of, explain, summaries, tera
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.plan.test_graph import ladder

DEEP = frozenset({"unet.deep"})
SUMMARY = StepSummary(7, "depth 1", 2, 3, 13, 25 * 10**8, 10**10, 3 * 2**19, "deep part reused")


def test_a_step_in_one_line():
    assert str(SUMMARY) == (
        "  7  depth 1        both branches  controlnet  3/13       2.5 GMACs   25.0 %      1.5 MiB stored"
    )
    gated = replace(SUMMARY, step=12, label="key gated", branches=1, macs=10**10, stored_nbytes=0)
    assert str(gated) == (
        " 12  key gated      one branch     controlnet  3/13      10.0 GMACs  100.0 %      0.0 MiB stored"
    )


def test_a_step_in_full_with_its_names_by_block():
    """Counted by kind in each block, attentions by the kind of layer that they are in, in the order given."""
    told = StepExplanation(
        SUMMARY,
        computed=(
            "controlnet.nets.0.controlnet_cond_embedding", "controlnet.nets.1.controlnet_down_blocks.11",
            "controlnet.nets.1.mid_block.resnets.0", "unet.time_embedding.linear_1", "unet.conv_in",
            "unet.up_blocks.3.resnets.0", "unet.up_blocks.3.resnets.1", "unet.up_blocks.3.attentions.0",
            "unet.up_blocks.3.resnets.2", "unet.conv_out",
        ),
        reused=(
            "unet", "unet+", "unet.clean@3", "unet.clean@4", "unet.guidance_difference", "unet.latents@3",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2",
            "unet.down_blocks.1.attentions.1.transformer_blocks.0.attn2",
            "unet.mid_block", "unet.mid_block.attentions.0", "unet.mid_block.motion_modules.0+",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1",
        ),
        skipped=(), stored=("unet.up_blocks.2.upsamplers.0",),
    )  # fmt: skip
    assert str(told).splitlines() == [
        "step 7: depth 1, both branches",
        "  why       deep part reused",
        "  MACs      2.5 G of 10.0 G (25.0 %)",
        "  computed  controlnet: controlnet_cond_embedding, controlnet_down_blocks",
        "            controlnet.nets.1.mid_block: resnets",
        "            unet: time_embedding.linear_1, conv_in, conv_out",
        "            unet.up_blocks.3: 3 resnets, attentions",
        "  reused    unet: whole prediction, whole prediction (out - in), 2 clean latents, guidance "
        "difference, latents",
        "            unet.down_blocks.1: 2 attn2 of attentions",
        "            unet.mid_block: mid_block, attentions, motion_modules (out - in), attn1 of attentions",
        "  skipped   nothing",
        "  stored    unet.up_blocks.2: upsamplers",
        "  store     1.5 MiB when it ends",
    ]
    gated = replace(told, summary=replace(SUMMARY, branches=1, reason=""))
    first, why, *_ = str(gated).splitlines()
    assert first == "step 7: depth 1, one branch" and why == "  why       nothing is reused here"


def test_a_layer_is_in_its_block_or_its_part():
    told = {
        "unet.conv_in": "unet", "unet": "unet", "unet.guidance_difference": "unet",
        "unet.down_blocks.10.resnets.1": "unet.down_blocks.10",
        "unet.mid_block.attentions.0": "unet.mid_block",
        "controlnet.nets.1.down_blocks.0.resnets.1": "controlnet.nets.1.down_blocks.0",
        "controlnet.controlnet_mid_block": "controlnet", "unet.skip.mid": "unet",
    }  # fmt: skip
    assert {name: block_of(name) for name in told} == told


@pytest.mark.parametrize(
    ("macs", "text"),
    [
        (12_345 * 10**6, "0.0123"), (999 * 10**12, "999"), (999_600 * 10**9, "1000"), (10**15, "1000"),
        (1_234_560 * 10**9, "1235"), (123_456 * 10**12, "123456"),
    ],
)  # fmt: skip
def test_macs_have_three_digits_or_all_before_the_point(macs, text):
    assert tera(macs) == text


def test_a_row_of_numbers_by_hand():
    """The hint is computed for one branch, and the text for one of four frames, where savings are made that
    lose nothing; without them the ControlNet runs at the last step too, whose prediction is reused."""
    steps = (
        StepPlan(), StepPlan(DEEP, branches=1, label="depth 1", reason="deep", forecast_error=0.25),
        StepPlan(frozenset({"unet.up"}), label="skip"),
    )  # fmt: skip
    graph, stock = ladder(), 2 * (111 + 12)
    free, plain = Schedule("x", steps), Schedule("x", steps, lossless=False)
    first = StepSummary(0, "full", 2, 1, 1, stock - 5 - 2 * 9, stock, 32, "")
    second = StepSummary(1, "depth 1", 1, 1, 1, 11 + 12, stock, 8, "deep", 0.25)
    third = StepSummary(2, "skip", 2, 0, 1, 0, stock, 0, "")
    assert summaries(graph, free) == (first, second, third)
    assert explain(graph, free, 2).computed == ()
    third = replace(third, controlnet_residuals=1, macs=24)
    assert summaries(graph, plain) == (replace(first, macs=stock), second, third)
    assert explain(graph, plain, 2).computed == ("controlnet.hint", "controlnet.zero")


def test_latents_that_a_later_step_reads_are_among_what_is_stored():
    reused = StepPlan(DEEP, extrapolate=DEEP, coefficients=(1.5, -0.5), latent_progress=(0, 1))
    plan = Schedule("x", (StepPlan(), StepPlan(), reused))
    stored = [explain(ladder(), plan, i).stored for i in range(3)]
    assert stored == [("unet.deep", "unet.latents@0"), ("unet.deep", "unet.latents@1"), ()]
