"""Schedulers and noises of trials."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler

from hgc_video.errors import InputError
from hgc_video.evaluate.trials import SampleSet, Trials, make_scheduler, model_hash
from hgc_video.models.catalog import model_presets
from hgc_video.plan.presets import resolve


def test_a_scheduler_takes_over_the_models_own_settings():
    own = DDIMScheduler(beta_schedule="linear", prediction_type="v_prediction")
    made = make_scheduler("EulerAncestralDiscreteScheduler", own)
    assert isinstance(made, EulerAncestralDiscreteScheduler)
    assert made.config.prediction_type == "v_prediction"
    for name in ("Euler", "NoSuchScheduler", "AutoencoderKL"):
        with pytest.raises(InputError, match="no scheduler of diffusers"):
            make_scheduler(name, own)


@pytest.mark.slow
def test_another_noise_is_another_run_and_the_same_one_the_same():
    trials = Trials(SampleSet("puppet", None, 6600, 1, 1, "EulerAncestralDiscreteScheduler"))
    one, other = trials(0, 2), trials(0, 2, variant=1)
    assert isinstance(one.pipe.scheduler, EulerAncestralDiscreteScheduler)
    assert not torch.allclose(one.uncached, other.uncached)
    assert torch.equal(one.latents(), one.uncached)


def test_a_model_by_name_is_told_by_its_parts_and_a_folder_by_its_weights():
    hashes = [model_hash(name) for name in ("puppet", *model_presets())]
    assert len(set(hashes)) == len(hashes)
    assert all(len(h) == 16 for h in hashes)
    assert hashes[0] == resolve("fast").policies[0].plan.metadata["model_hash"]
