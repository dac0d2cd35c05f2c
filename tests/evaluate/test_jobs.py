"""Jobs in worker processes: the order is the arguments', errors come back, and work is done once."""

from __future__ import annotations

import os

import pytest

from hgc_video.evaluate.jobs import workers


def test_one_worker_is_this_process():
    with workers(1) as each:
        assert each(lambda n: (n, os.getpid()), [2, 1]) == [(2, os.getpid()), (1, os.getpid())]


def test_two_workers_are_other_processes_of_one_thread_each_in_the_order_of_the_arguments():
    with workers(2) as each:
        assert each(divmod_of, [(7, 2), (9, 4), (1, 1)]) == [(3, 1), (2, 1), (1, 0)]
        told = each(process_and_threads, range(4))
        assert {threads for _, threads in told} == {1}
        assert os.getpid() not in {pid for pid, _ in told}
        with pytest.raises(ZeroDivisionError):
            each(divmod_of, [(1, 1), (1, 0)])


def divmod_of(pair):
    return divmod(*pair)


def process_and_threads(_):
    import torch

    return os.getpid(), torch.get_num_threads()
