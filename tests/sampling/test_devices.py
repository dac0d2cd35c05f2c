"""One clip over two processes: that of one process, and an end for both where one of them fails."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch

import hgc_video
from hgc_video.errors import HGCVideoError, InputError, PromptError
from hgc_video.jobs.job_list import JobList
from hgc_video.jobs.shot import Shot
from hgc_video.options import GenerateOptions
from hgc_video.puppet.evaluation import held_out
from hgc_video.sampling.exchange import process_group
from hgc_video.sampling.processes import several
from tests.puppet_latents import CHANNELS

SHORT = {
    "num_inference_steps": 3, "height": 64, "width": 64, "context_length": 4, "context_overlap": 2,
    "preset": "deepcache:interval=2", "device": "cpu", "progress": False,
}  # fmt: skip


def make(callback=None, **options):
    pose = held_out(5, 8).truth.pose
    return hgc_video.generate(
        pose, "a dancer in a red shirt", callback=callback, **{**SHORT, **options}
    )


@pytest.mark.slow
def test_two_processes_make_the_clip_of_one():
    """Its own windows are cached in each; predictions are exchanged as planned."""
    one, two = make(), make(devices=2)
    assert np.abs(one.frames.astype(int) - two.frames).max() <= 1
    assert one.frames.std() > 10
    again = two.report.macs_by_part["controlnet"] - one.report.macs_by_part["controlnet"]
    assert again > 0 and two.report.macs_by_part["unet"] == pytest.approx(
        one.report.macs_by_part["unet"]
    )
    # Windows begin at 0 | 2, 4 and moved at 0, 1 | 3, 4. So process 0 has frames 0 to 4 and process 1 2 to 7:
    # 5 frames in both ways together at each of the 3 steps. At the end process 1 gives 6 frames.
    frame = CHANNELS * 8 * 8 * 4  # latents in single precision
    assert two.report.exchanged_nbytes == frame * (3 * 5 + 6)
    assert "devices   2" in two.report.summary() and two.report.seconds["exchange"] > 0
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_process_that_is_killed_ends_all():
    """The callback sees the latents of all frames meanwhile."""
    seen = []

    def callback(step, steps, latents):
        seen.append(latents.abs().mean((0, 1, 3, 4)))
        (other,) = multiprocessing.active_children()
        os.kill(other.pid, signal.SIGKILL)

    threads = torch.get_num_threads()
    with pytest.raises(HGCVideoError, match=r"process 2 of 2 \(cpu\) was ended by SIGKILL"):
        make(callback, devices=2)
    assert len(seen) == 1 and seen[0].min() > 0.3 * seen[0].max()
    assert not multiprocessing.active_children() and not torch.distributed.is_initialized()
    assert torch.get_num_threads() == threads


def options_of(seed):
    return GenerateOptions(control_video="a.mp4", prompt="a", devices=2, device="cpu", seed=seed)


def _swaps_late(options, part):
    """Joins the other process, and has it wait for what never comes."""
    _, _, store = part.agree(lambda: None, False)
    with process_group(part.rank, part.size, store, torch.device("cpu"), part.look):
        time.sleep(60)


@pytest.mark.usefixtures("stock_signals")
def test_ctrl_c_ends_all_while_one_waits_for_the_other():
    with pytest.raises(KeyboardInterrupt), several(options_of(0), _swaps_late) as part:
        _, _, store = part.agree(lambda: None, False)
        with process_group(0, 2, store, torch.device("cpu"), part.look) as group:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            group.swap([], [(1, torch.zeros(3))])
    assert not multiprocessing.active_children()


def _failing(options, part):
    if options.seed:
        raise PromptError("a reason\nand more")
    raise ZeroDivisionError("a fault")


@pytest.mark.parametrize(
    ("seed", "error", "says"),
    [
        (1, PromptError, "process 2 of 2: a reason and more"),
        (0, HGCVideoError, "process 2 of 2: ZeroDivisionError: a fault"),
    ],
)
def test_an_error_of_another_process_is_told_in_one_line(seed, error, says):
    with pytest.raises(error) as told, several(options_of(seed), _failing) as part:
        part.agree(lambda: None, False)
    assert str(told.value) == says and "_failing" in told.value.__notes__[0]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"work": "folder"}, "keeps no work folder"), ({"device": "cuda:1"}, "give cpu or cuda"),
        ({"devices": 4}, "3 windows; give 1 to 3"), ({"devices": 0}, "1 or more"),
        ({"context_length": 8}, "one window"),
    ],
)  # fmt: skip
def test_what_is_not_possible_is_refused_before_anything_begins(options, says):
    with pytest.raises(InputError, match=says):
        make(**{"devices": 2, **options})


def test_a_batch_takes_no_job_of_several_devices():
    shot = Shot("a", {"control_video": "a.mp4", "prompt": "a", "devices": 2})
    with pytest.raises(InputError, match="leave it out"):
        list(JobList((shot,)).jobs())
