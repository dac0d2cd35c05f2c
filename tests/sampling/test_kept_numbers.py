"""Numbers of memory peaks that are kept: what tries give, under the right plan and size."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from hgc_video.models import kept_data
from hgc_video.models.config_file import read_config
from hgc_video.models.configurations import Configurations, known_model, known_models
from hgc_video.models.image_prompt import add_image_prompt
from hgc_video.models.load import load_pipeline, model_folder
from hgc_video.models.loaded_configurations import configurations_of
from hgc_video.plan.clip_shape import ClipShape
from hgc_video.plan.memory.budget import Chunks
from hgc_video.plan.memory.placement import RECOMPUTE, carried_out
from hgc_video.plan.presets import resolve
from hgc_video.sampling.fit_memory import Fit
from hgc_video.sampling.kept_numbers import KeptNumbers, first_step
from hgc_video.sampling.predict_peak import PeakModel, RunScale
from hgc_video.sampling.trial_step import TrialRuns
from tests.plan.policies.test_policies import tower

UNET = {
    "_class_name": "UNetMotionModel", "block_out_channels": [16, 32], "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlockMotion", "DownBlockMotion"], "norm_num_groups": 4,
    "up_block_types": ["UpBlockMotion", "CrossAttnUpBlockMotion"], "cross_attention_dim": 16,
    "num_attention_heads": 2, "motion_num_attention_heads": 2, "use_motion_mid_block": False,
}  # fmt: skip
NET = {
    "_class_name": "ControlNetModel", "block_out_channels": [16, 32], "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "norm_num_groups": 4,
    "cross_attention_dim": 16, "attention_head_dim": 2,
    "conditioning_embedding_out_channels": [8, 16, 16, 16],
}  # fmt: skip
VAE = {
    "_class_name": "AutoencoderKL", "block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
TINY = Configurations(UNET, (NET,), VAE)


def scale(num_frames=40, steps=25):
    return RunScale(ClipShape(num_frames, 8, 8, 7), steps, 8)


def tried(models, scale):
    return TrialRuns(*models.build(), models.build_vae(), scale, torch.float16)


@pytest.fixture
def tries(monkeypatch, tmp_path):
    """Counts the steps and decodings that are tried; the user's folder is empty."""
    monkeypatch.setenv("HGC_VIDEO_HOME", str(tmp_path))
    made = []
    for name in ("step_nbytes", "decode_nbytes"):
        plain = getattr(TrialRuns, name)

        def counted(self, *asked, plain=plain):
            made.append(asked)
            return plain(self, *asked)

        monkeypatch.setattr(TrialRuns, name, counted)
    return made


def peaks(trials, scale, preset="balanced"):
    """Peaks of a few memory plans."""
    predict = PeakModel(trials, 1000, scale, resolve(preset))
    chunks = (Chunks(), Chunks(2, 16), Chunks(2, 16, idle="recompute"))
    return [predict.denoise(8, some) for some in chunks] + [predict.decode(4)]


def test_kept_numbers_are_those_of_tries(tries):
    plain = peaks(tried(TINY, scale()), scale())
    count = len(tries)
    assert peaks(KeptNumbers(TINY, scale()), scale()) == plain and len(tries) == 2 * count
    assert peaks(KeptNumbers(TINY, scale()), scale()) == plain and len(tries) == 2 * count


def test_a_step_of_any_long_clip_is_tried_once(tries):
    peaks(KeptNumbers(TINY, scale()), scale())
    count, longer = len(tries), scale(100, steps=30)
    again = peaks(KeptNumbers(TINY, longer), longer)
    assert len(tries) == count
    assert again == peaks(tried(TINY, longer), longer), "their latents count all the same"


@pytest.fixture
def puppet():
    return load_pipeline("puppet", "pose")


CLIP = RunScale(ClipShape(24, 8, 8, 40), 2, 8)


def fitted(pipe, budget=2**30):
    return Fit(pipe, resolve("lossless"), CLIP, max_frames=16).plan(budget)


def test_what_one_run_tried_the_next_one_reads(tries, puppet):
    first = fitted(puppet)
    count = len(tries)
    assert count and fitted(load_pipeline("puppet", "pose")) == first and len(tries) == count
    tight = fitted(puppet, first.peak.nbytes - 1)
    assert tight.peak.nbytes < first.peak.nbytes and len(tries) > count, "another cut is tried"


def test_models_that_are_more_than_their_configuration_are_tried_each_time(tries, puppet):
    add_image_prompt(puppet.unet, 2, 8)
    first = fitted(puppet)
    count = len(tries)
    assert count and fitted(puppet) == first and len(tries) == 2 * count


def test_numbers_are_of_a_precision_and_a_device(tries, puppet):
    parts = puppet.unet, puppet.controlnet, puppet.vae
    models, whole = configurations_of(*parts), torch.float32

    def peak(dtype, device):
        numbers = KeptNumbers(
            models, CLIP, dtype=str(dtype).removeprefix("torch."), dtype_nbytes=dtype.itemsize, device=device,
            trials=partial(TrialRuns, *parts, CLIP, dtype, device),
        )  # fmt: skip
        return numbers.decode_nbytes(4)

    found = [peak(torch.float16, "cuda"), peak(whole, "cuda:1"), peak(whole, "cpu")]
    assert found[0] < found[1] < found[2], "a CPU takes memory of its own for convolutions"
    assert found == [peak(torch.float16, "cuda"), peak(whole, "cuda"), peak(whole, "cpu")]


def test_a_plan_without_the_model_reads_what_a_run_of_it_kept(tries, puppet):
    parts = puppet.unet, puppet.controlnet, puppet.vae
    folder = model_folder("puppet")
    told = [read_config(folder / name) for name in ("unet", "controlnet_pose", "vae")]
    read = Configurations(told[0], (told[1],), told[2])
    assert KeptNumbers(configurations_of(*parts), CLIP).request == KeptNumbers(read, CLIP).request


def test_plans_that_begin_alike_share_a_number_and_others_do_not():
    graph = tower()
    of = {
        name: first_step(resolve(name).schedule(graph, steps), graph)
        for name, steps in (
            ("off", 6), ("lossless", 6), ("lossless", 9), ("deepcache:interval=2", 6),
            ("deepcache:interval=2", 4), ("hgc:interval=2,depth=1,gate=1,dense=0", 6),
        )
    }  # fmt: skip
    assert len(set(of.values())) == len(of) == 4
    for name, steps in (("lossless", 20), ("deepcache:interval=2", 12)):
        assert first_step(resolve(name).schedule(graph, steps), graph) == of[name]
    again = carried_out(resolve("deepcache:interval=2").schedule(graph, 6), RECOMPUTE)
    assert first_step(again, graph) not in (of["deepcache:interval=2"], of["off"])


def shipped_models():
    """The known models whose numbers are shipped."""
    held = {kept_data._file_name(request) for request, _ in kept_data.shipped()}
    for name in known_models():
        known = known_model(name)
        models = known.configurations(1 if known.controlnet else 0)
        clip = ClipShape(1, known.height // 8, known.width // 8, known.num_tokens)
        if (
            not models.temporal
            and kept_data._file_name(KeptNumbers(models, RunScale(clip, 25, 8)).request) in held
        ):
            yield pytest.param(known, models, clip, "off", False, id=f"{name}-off")
            if known.width <= 512:  # a split step has many times the calls
                yield pytest.param(known, models, clip, "balanced", True, id=f"{name}-split")


@pytest.mark.slow
@pytest.mark.parametrize(("known", "models", "clip", "preset", "split"), list(shipped_models()))
def test_shipped_numbers_are_those_of_tries(
    known, models, clip, preset, split, tmp_path, monkeypatch
):
    monkeypatch.setenv("HGC_VIDEO_HOME", str(tmp_path))
    context, half = (
        known.num_frames,
        clip.height * clip.width,
    )  # half of the positions of both branches
    num_frames = context if models.temporal else 512
    asked = RunScale(replace(clip, num_frames=num_frames), 25, 8)
    kept, trials = KeptNumbers(models, asked), tried(models, asked)
    assert kept.weights_nbytes == trials.weights_nbytes
    chosen = resolve(preset)
    of_kept, of_trials = (PeakModel(some, 0, asked, chosen) for some in (kept, trials))
    chunks = Chunks(8, half) if split else Chunks()
    assert of_kept.denoise(context, chunks) == of_trials.denoise(context, chunks)
    assert split or of_kept.decode(1) == of_trials.decode(1)
