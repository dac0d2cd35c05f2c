"""What runs in a process of the local engine: takes tasks from a connection, and tells how they end."""

from __future__ import annotations

import os
import queue
import signal
import threading
from multiprocessing.connection import Connection

from ..task import Task
from ..worker import Worker


def serve(connection: Connection, device: str, of: int, log: str) -> None:
    """Makes clips until the connection is closed at its other end, which is so too when that process dies.

    Args:
        device: where to make them.
        of: how many processes share the cores.
        log: a file for what is printed here.
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the batch decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _print_to(log)
    import torch

    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // of)))
    tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    worker = Worker(device)
    threading.Thread(target=_listen, args=(connection, tasks, worker), daemon=True).start()
    _tell(connection, "ready")
    while (task := tasks.get()) is not None:
        _tell(connection, worker.make(task, lambda *step: _tell(connection, step)))


def _listen(connection: Connection, tasks: queue.SimpleQueue[Task | None], worker: Worker) -> None:
    """Takes what the batch sends, also while a clip is made; ends the process's work when it is gone."""
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            tasks.put(None)
            worker.stop(None)
            return
        if isinstance(message, Task):
            tasks.put(message)
        else:
            worker.stop(str(message))


def _tell(connection: Connection, message: object) -> None:
    try:
        connection.send(message)
    except OSError:  # the batch is gone; _listen knows it too
        return


def _print_to(log: str) -> None:
    """Has this process and its libraries print to a file."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
