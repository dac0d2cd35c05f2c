"""Schedulers and noises of trials."""

from __future__ import annotations

import shutil
from dataclasses import asdict

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler

from hgc_video.errors import InputError
from hgc_video.evaluate.measure import CompareConfig, Figures
from hgc_video.evaluate.methods import make_method
from hgc_video.evaluate.results_file import ResultsFile
from hgc_video.evaluate.run import _known, _setting
from hgc_video.evaluate.samples import SampleSet
from hgc_video.evaluate.trials import Trials, make_scheduler
from hgc_video.models.catalog import model_presets
from hgc_video.models.identity import _hash_of_networks, is_hash_of, model_hash
from hgc_video.models.load import model_folder
from hgc_video.plan.policies.searched import CodedSchedule
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


def test_a_folder_is_another_model_when_any_of_its_files_changes_and_the_older_hash_is_known(
    tmp_path,
):
    folder = tmp_path / "copy"
    shutil.copytree(model_folder("puppet"), folder)
    assert model_hash(str(folder)) == model_hash("puppet")
    older = "e54aeb34e7b98a62"  # of the UNet and ControlNets of the first weights
    assert is_hash_of(model_hash("puppet"), str(folder)) and not is_hash_of(None, str(folder))
    assert is_hash_of(_hash_of_networks("puppet"), str(folder))
    assert older == _hash_of_networks("puppet") or model_hash("puppet") != "15df848378e23dd1"
    settings = folder / "scheduler" / "scheduler_config.json"
    settings.write_text(settings.read_text().replace("}", " }"))
    assert model_hash(str(folder)) != model_hash("puppet")
    assert is_hash_of(_hash_of_networks("puppet"), str(folder)), "whose networks are the same"


def test_rows_of_another_schedule_under_the_same_name_are_measured_again(tmp_path):
    memory, file = tmp_path / "rows.jsonl", tmp_path / "own.yaml"
    CodedSchedule("FHFH", 4, (0.0,) * 4).save(file)
    word = f"searched:file={file}"
    task = CompareConfig(SampleSet("puppet", None, 3000, 1, 2), 4, 0)
    row = asdict(Figures(word, 0, 0, 0.5, 0.5, 8, 30.0, 0.9, 0.1, None, 0.8, 0.9, 1.0))
    files = {word: make_method(word).files_sha256()}
    results, name = ResultsFile(memory), _setting(task)
    results.add(name, [{"files": files[word], **row}])
    assert _known(results, name, task, files) == {(word, 0, 0): row}
    CodedSchedule("FFFH", 4, (0.0,) * 4).save(file)
    assert not _known(results, name, task, {word: make_method(word).files_sha256()})
    assert make_method("deepcache:interval=3").files_sha256() == ""
    assert model_hash("puppet") in _setting(task)
