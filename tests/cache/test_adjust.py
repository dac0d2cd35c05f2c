"""Fitted scales and shifts, and the recorder that they come from."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from hgc_video.cache.adjust import Fit, adjustment_name, load_adjustments
from hgc_video.cache.engine import attach
from hgc_video.errors import CacheStateError
from hgc_video.measure.similarity import Changes, Recorder
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.tiny_models import Clip, controlnet, graph_of, motion_unet

MOTION = "unet.down_blocks.0.motion_modules.1"


@pytest.fixture
def clip():
    return Clip(motion_unet(), controlnet())


def recorded(clip, see):
    graph = graph_of(clip)
    with Recorder(graph, {"unet": clip.unet, "controlnet": clip.controlnet}, see) as recorder:
        clip.run(recorder)


def test_a_fit_finds_scale_and_shift_of_every_channel():
    scale, shift = torch.rand(2, 5, 1, 1) + 0.5
    fit = Fit()
    for _ in range(2):
        kept = torch.randn(3, 5, 4, 4)
        fit.add(kept, scale * kept + shift)
    found = fit.solve()
    torch.testing.assert_close(found, torch.stack([scale, shift]).flatten(1), rtol=1e-4, atol=1e-4)
    still = Fit()
    still.add(torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 3.0))
    assert still.solve().flatten().tolist() == [1.0, 2.0]


def test_the_recorder_sees_contributions_and_changes_by_hand(clip):
    seen = {}

    def see(layer, step, features):
        seen.setdefault(layer, []).append(features)

    changes = Changes(len(clip.timesteps))

    def both(*args):
        see(*args)
        changes(*args)

    recorded(clip, both)
    similarity = changes.similarity("tiny")
    first, second = seen[MOTION][:2]
    expected = float((second - first).abs().mean() / second.abs().mean())
    assert similarity.changes[MOTION][1] == pytest.approx(expected)
    assert similarity.changes[MOTION][0] == 0
    assert set(similarity.changes) == {la.name for la in graph_of(clip).layers if la.kind != "join"}
    assert similarity.changes["controlnet.controlnet_cond_embedding"] == (0.0,) * 5
    assert not any(m._forward_hooks for m in clip.unet.modules())


def test_the_engine_adjusts_what_was_kept(clip, tmp_path):
    """With the fit of the very run, the adjusted contribution lies closer to the fresh one."""
    kept, fit = {}, Fit()

    def see(layer, step, features):
        if layer == MOTION:
            if step == 0:
                kept["value"] = features
            elif step == 1:
                fit.add(kept["value"], features)

    recorded(clip, see)
    save_file({adjustment_name(MOTION, 1): fit.solve()}, tmp_path / "fit.safetensors")
    graph, errors = graph_of(clip), []
    steps = (StepPlan(), StepPlan(contributions=frozenset({MOTION})))
    stock = clip.step(clip.timesteps[1])
    for adjust in ("", str(tmp_path / "fit.safetensors")):
        schedule = Schedule("test", steps, adjust=adjust)
        with attach(schedule, graph=graph, unet=clip.unet, controlnet=clip.controlnet) as engine:
            for i in range(2):
                engine.at(i)
                output = clip.step(clip.timesteps[i])
        errors.append(float((output - stock).square().mean()))
    assert 0 < errors[1] < errors[0]


def test_adjustments_of_another_model_or_a_spoilt_file_are_refused(tmp_path):
    save_file({adjustment_name("unet.x", 1): torch.ones(2, 3)}, tmp_path / "fit.safetensors")
    adjust = load_adjustments(str(tmp_path / "fit.safetensors"))
    assert torch.equal(adjust("unet.x", 2, torch.ones(1, 4, 2, 2)), torch.ones(1, 4, 2, 2))
    with pytest.raises(CacheStateError, match="3 channels, the model has 4"):
        adjust("unet.x", 1, torch.ones(1, 4, 2, 2))
    (tmp_path / "spoilt").write_bytes(b"x")
    for name in ("spoilt", "missing"):
        with pytest.raises(CacheStateError, match="cannot be used"):
            load_adjustments(str(tmp_path / name))
