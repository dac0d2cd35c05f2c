"""The engine of one machine: what its processes are told and tell, how one that is gone is replaced, and what
such a process does with its connection, called here."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import platform
import queue
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from hgc_video.errors import InputError
from hgc_video.jobs.engines import local_process
from hgc_video.jobs.engines.base import MOST_DEATHS_IN_A_ROW
from hgc_video.jobs.engines.local import LocalEngine, _Process, local_devices
from hgc_video.jobs.engines.local_process import _listen, _print_to, _tell, serve
from hgc_video.jobs.queue import Result
from hgc_video.jobs.task import Died, Ended, Outcome, Ready, Step, Task

TASK = Task("a.mp4", {"prompt": "a"}, "/tmp/a.part", "/tmp/work")
OTHER = Task("b.mp4", {"prompt": "b"}, "/tmp/b.part", "/tmp/work")


class Ending:
    """A process by hand: ends by itself with a code, or hangs until it is killed, or for good."""

    def __init__(self, pid=7, code=0, hangs=False, stuck=False):
        self.pid, self.code, self.hangs, self.stuck = pid, code, hangs, stuck
        self.exitcode, self.waits, self.killed = None, [], 0

    def join(self, timeout):
        self.waits.append(timeout)
        if not self.hangs:
            self.exitcode = self.code

    def is_alive(self):
        return self.exitcode is None

    def kill(self):
        self.killed += 1
        if not self.stuck:
            self.hangs, self.code = False, -9


@pytest.fixture
def engine(tmp_path):
    """An engine of three slots whose processes are begun by hand; `engine.there` has their ends."""
    made = LocalEngine(("cpu", "cuda:1", "cpu"), tmp_path / "logs" / "deep")
    made.there, made.begun = {}, []

    class Begun:
        def __init__(self, target, args, name, daemon):
            self.told = (target, args, name, daemon)
            made.begun.append(self)
            self.process = Ending(pid=100 + len(made.begun))

        def start(self):
            """The process has its end of the connection, as one of its own has after it is begun."""
            connection, *_ = self.told[1]
            made.there[self.told[2]] = multiprocessing.connection.Connection(
                os.dup(connection.fileno())
            )

        def __getattr__(self, name):
            return getattr(self.process, name)

    made._context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Begun)
    yield made
    made.close()
    for connection in made.there.values():
        connection.close()


def told(engine):
    """What there is to tell, in the order of the slots."""
    return sorted(engine.events(0.0), key=lambda event: event.slot)


def test_a_process_is_begun_in_every_slot(engine, tmp_path):
    assert engine.is_empty() and engine.events(60.0) == [], "none is there to wait for"
    engine.start()
    engine.start()  # again, and where the folder is there already
    logs = tmp_path / "logs" / "deep"
    assert logs.is_dir() and not engine.is_empty()
    given = [process.told for process in engine.begun[3:]]
    assert [(target, name, daemon) for target, _, name, daemon in given] == [
        (serve, slot, True) for slot in ("0-cpu", "1-cuda:1", "2-cpu")
    ]
    assert [args[1:] for _, args, _, _ in given] == [
        ("cpu", 3, str(logs / "0-cpu.log")),
        ("cuda:1", 3, str(logs / "1-cuda-1.log")),
        ("cpu", 3, str(logs / "2-cpu.log")),
    ]
    assert all(args[0].closed for _, args, _, _ in given), "so that its end is seen here"


def test_an_engine_begins_processes_anew_as_a_fork_of_torch_may_hang(tmp_path):
    assert LocalEngine(("cpu",), tmp_path)._context.get_start_method() == "spawn"


def test_what_processes_tell_is_told_of_their_slots_in_order(engine):
    engine.start()
    outcome = Outcome("done", Result("d", 1.0, 0.5), loaded=True)
    engine.there["0-cpu"].send("ready")
    for message in ("ready", (1, 4), (2, 4), outcome):
        engine.there["1-cuda:1"].send(message)
    assert told(engine) == [
        Ready("0-cpu", f"{platform.node()}:101"),
        Ready("1-cuda:1", f"{platform.node()}:102"),
        Step("1-cuda:1", 1, 4),
        Step("1-cuda:1", 2, 4),
        Ended("1-cuda:1", outcome),
    ]
    assert engine.events(0.0) == []


def test_events_are_waited_for_no_longer_than_is_said(engine):
    engine.start()
    began = time.monotonic()
    assert engine.events(0.05) == []
    assert 0.04 < time.monotonic() - began < 5
    threading.Timer(0.02, engine.there["2-cpu"].send, ["ready"]).start()
    assert engine.events(30.0) == [Ready("2-cpu", f"{platform.node()}:103")]


def test_a_task_goes_to_its_process_and_its_file_says_which_is_to_stop(engine):
    engine.start()
    engine.stop("0-cpu")
    engine.stop("9-cpu")
    engine.give("0-cpu", TASK)
    engine.stop("0-cpu")
    engine.give("0-cpu", OTHER)
    engine.stop("0-cpu")
    there = engine.there["0-cpu"]
    assert [there.recv() for _ in range(4)] == [TASK, TASK.part, OTHER, OTHER.part]
    assert not there.poll() and not engine.there["2-cpu"].poll()


def test_a_process_that_is_gone_is_replaced_until_three_in_a_row_made_nothing(engine):
    engine.start()
    assert MOST_DEATHS_IN_A_ROW == 3
    seen = []
    for code in (0, -11, 3):
        engine.begun[-1 if seen else 0].process.code = code
        engine.there["0-cpu"].close()
        seen += engine.events(0.0)
    assert seen == [
        Died("0-cpu", "its worker ended with code 0"),
        Died("0-cpu", "its worker was ended by SIGSEGV"),
        Died("0-cpu", "its worker ended with code 3", for_good=True),
    ]
    assert [process.told[2] for process in engine.begun[3:]] == ["0-cpu"] * 2
    engine.stop("0-cpu")  # no process of it is there
    assert not engine.is_empty() and engine.events(0.0) == []


def test_a_task_that_ended_forgives_the_deaths_before_it(engine):
    engine.start()
    for _ in range(2):
        engine.there["0-cpu"].close()
        assert [event.for_good for event in engine.events(0.0)] == [False]
    engine.there["0-cpu"].send("ready")
    engine.there["0-cpu"].send((1, 2))
    engine.there["0-cpu"].send(Outcome("failed", why="x"))
    assert [type(event) for event in engine.events(0.0)] == [Ready, Step, Ended]
    for for_good in (False, False, True):
        engine.there["0-cpu"].close()
        assert [event.for_good for event in engine.events(0.0)] == [for_good]


def test_what_a_process_told_last_is_heard_before_its_end(engine):
    engine.start()
    there = engine.there["2-cpu"]
    there.send((3, 4))
    there.close()
    step, died = engine.events(0.0)
    assert (step, died) == (Step("2-cpu", 3, 4), Died("2-cpu", "its worker ended with code 0"))


def test_one_slot_left_empty_leaves_the_others(engine):
    engine.start()
    for slot in ("0-cpu", "1-cuda:1", "2-cpu"):
        for _ in range(3):
            assert not engine.is_empty()
            engine.there[slot].close()
            assert [event.slot for event in engine.events(0.0)] == [slot]
    assert engine.is_empty()


def test_a_task_for_a_process_that_is_gone_is_no_error(engine):
    engine.start()
    engine.there["0-cpu"].close()
    engine.give("0-cpu", TASK)
    engine.stop("0-cpu")
    assert told(engine) == [Died("0-cpu", "its worker ended with code 0")]


def test_closed_all_are_told_at_once_and_ended(engine):
    engine.start()
    processes = [begun.process for begun in engine.begun]
    processes[1].hangs = True
    connections = [worker.connection for worker in engine._workers.values()]
    engine.close()
    assert all(connection.closed for connection in connections) and engine.is_empty()
    assert [process.waits for process in processes] == [[2.0], [2.0, 5.0], [2.0]]
    assert [process.killed for process in processes] == [0, 1, 0]
    engine.close()


def ended(process):
    here, there = multiprocessing.Pipe()
    there.close()
    worker = _Process(process, here)
    why = worker.kill()
    assert here.closed
    return why


def test_how_a_process_ended_is_said():
    assert _Process(Ending(pid=12), None).pid == 12
    assert ended(Ending(code=0)) == "its worker ended with code 0"
    assert ended(Ending(code=1)) == "its worker ended with code 1"
    assert ended(Ending(code=-1)) == "its worker was ended by SIGHUP"
    assert ended(Ending(code=-9)) == "its worker was ended by SIGKILL; perhaps memory ran out"
    hanging, stuck = Ending(hangs=True), Ending(hangs=True, stuck=True)
    assert ended(hanging) == "its worker was ended by SIGKILL; perhaps memory ran out"
    assert (hanging.killed, hanging.waits) == (1, [2.0, 5.0])
    assert ended(stuck) == "its worker does not answer"
    asked = Ending(code=0)
    assert ended(asked) and (asked.killed, asked.waits) == (0, [2.0])


def test_devices_are_as_told_each_as_often_as_it_has_workers(monkeypatch):
    assert local_devices(None, ("cuda:1", "cpu")) == ("cuda:1", "cpu")
    assert local_devices(2, ("cuda:1", "cpu")) == ("cuda:1", "cpu") * 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert local_devices() == ("cuda:0", "cuda:1")
    assert local_devices(3) == ("cuda:0", "cuda:1") * 3
    for wrong in (0, -1, True):
        for devices in ((), ("cpu",)):
            with pytest.raises(
                InputError, match=f"workers={wrong!r} is not possible; give 1 or more"
            ):
                local_devices(wrong, devices)


def test_without_a_gpu_there_is_one_process_unless_more_are_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("hgc_video.models.device.choose_device", lambda asked: f"chosen {asked}")
    assert local_devices() == ("chosen None",)
    assert local_devices(2) == ("chosen None",) * 2


class Hand:
    """A worker that notes what it is asked."""

    made: ClassVar = []
    beside: ClassVar = set()  # the threads that there are while it makes a clip

    def __init__(self, device=None):
        self.device, self.stopped = device, []
        Hand.made.append(self)

    def stop(self, part):
        self.stopped.append(part)

    def make(self, task, on_step):
        Hand.beside = set(threading.enumerate())
        on_step(1, 2)
        on_step(2, 2)
        return Outcome("done", Result(task.name, 1.0, 0.5))


def test_a_process_hears_tasks_and_what_is_to_stop_until_the_batch_is_gone():
    here, there = multiprocessing.Pipe()
    tasks, worker = queue.SimpleQueue(), Hand()
    for message in (TASK, TASK.part, OTHER):
        here.send(message)
    here.close()
    _listen(there, tasks, worker)
    assert [tasks.get_nowait() for _ in range(3)] == [TASK, OTHER, None] and tasks.empty()
    assert worker.stopped == [TASK.part, None]
    there.close()
    _listen(there, tasks, worker)  # a connection that is closed at this end
    assert tasks.get_nowait() is None and worker.stopped[-1] is None


def test_what_is_told_to_a_batch_that_is_gone_is_no_error():
    here, there = multiprocessing.Pipe()
    _tell(there, ("a", 1))
    assert here.recv() == ("a", 1)
    here.close()
    _tell(there, "ready")
    there.close()
    _tell(there, "ready")


@pytest.fixture
def served(monkeypatch, stock_signals):
    """Serves with workers by hand, and gives what was told, the number of threads and of where it prints."""
    monkeypatch.setattr(local_process, "Worker", Hand)
    logs, threads = [], []
    monkeypatch.setattr(local_process, "_print_to", logs.append)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    Hand.made = []

    def run(*messages, of=1):
        here, there = multiprocessing.Pipe()
        for message in messages:
            here.send(message)
        heard = []
        count = 1 + 3 * sum(isinstance(message, Task) for message in messages)

        def hear():
            heard.extend(here.recv() for _ in range(count))
            here.close()

        listening = threading.Thread(target=hear, daemon=True)
        listening.start()
        serve(there, "cuda:3", of, "a.log")
        listening.join()
        return heard

    run.logs, run.threads = logs, threads
    return run


def test_a_process_makes_one_task_after_another_and_ends_with_its_batch(served):
    outcomes = [Outcome("done", Result(name, 1.0, 0.5)) for name in ("a.mp4", "b.mp4")]
    before = set(threading.enumerate())
    assert served(TASK, OTHER) == [
        "ready", (1, 2), (2, 2), outcomes[0], (1, 2), (2, 2), outcomes[1],
    ]  # fmt: skip
    assert [worker.device for worker in Hand.made] == ["cuda:3"] and served.logs == ["a.log"]
    assert Hand.made[0].stopped == [None]
    own = Hand.beside - before
    assert own and all(thread.daemon for thread in own), "none keeps the process from ending"
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN, "the batch decides on Ctrl-C"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("own", "cores", "of", "threads"),
    [(8, 8, 2, 4), (3, 8, 2, 3), (8, 7, 2, 3), (8, 2, 3, 1), (8, None, 1, 1), (8, 8, 1, 8)],
)
def test_processes_share_the_cores(served, monkeypatch, own, cores, of, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: own)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert served(of=of) == ["ready"] and served.threads == [threads]


def test_what_is_printed_goes_to_the_end_of_a_file(tmp_path):
    """What libraries print too, which write to the streams that a process is begun with."""
    log, new = tmp_path / "a.log", tmp_path / "new.log"
    log.write_text("before\n")
    for path in (log, new):
        own = os.dup(1), os.dup(2)
        before = len(list(Path("/dev/fd").iterdir()))
        try:
            _print_to(str(path))
            assert len(list(Path("/dev/fd").iterdir())) == before, "nothing else is left open"
            os.write(1, b"out\n")
            os.write(2, b"err\n")
        finally:
            for stream, kept in enumerate(own, 1):
                os.dup2(kept, stream)
                os.close(kept)
    assert log.read_text() == "before\nout\nerr\n" and new.read_text() == "out\nerr\n"
    assert new.stat().st_mode & 0o777 == 0o644 & ~umask()


def umask():
    """Of this process, which can be read only by setting it."""
    now = os.umask(0)
    os.umask(now)
    return now
