"""The work folder of one run: what the run is, its checkpoints, its decoded frames, and whether it is done.

job.json            what is made, of what, with what: `description.py`
plan.json           the memory plan, and the checksum of the schedule that is carried out
checkpoint-000007/  a state: state.json, which lists the tensor files that it needs, and COMPLETE
tensors-000005-0.safetensors  tensors that checkpoint 5 was the first to need: `shards.py`
frames-000016-16/   frames that were decoded from the last state
done.json           the finished clip's path and checksum; report.json its report
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ...errors import InputError, StateError, warn
from ...files import sha256_of, unwritable, without_home
from .durable import durable_folder, fault_of, read_json, save_tensors, write_json
from .shards import GoingOn, Shards
from .snapshot import Restored, Snapshot

_STATE, _FRAMES = "state.json", "frames.safetensors"
_KEPT = 2  # checkpoints: the newest, and the one before it, should the disk spoil that


class WorkFolder:
    """Reads and writes a work folder; one process at a time may."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        self._was_there = path.is_dir()
        self._shards, self._spoilt = Shards(path), set[Path]()

    def open(self) -> None:
        """Makes the folder and takes it; StateError where another process has it, or it is something else."""
        try:
            self.path.mkdir(parents=False, exist_ok=True)
            ours = self.is_begun or all(_is_left(path) for path in self.path.iterdir())
            lock = (self.path / "lock").open("a+") if ours else None
        except OSError as error:
            raise StateError(f'work "{self.path}" cannot be made: {error.strerror}') from error
        if lock is None:
            raise StateError(f'work "{self.path}" holds something else; name another folder')
        self._lock = lock
        if not _take(self._lock):
            self._lock.close()
            raise StateError(f'another process works in "{self.path}"; wait for it, or end it')

    def close(self) -> None:
        """Gives the folder back."""
        if self._lock is not None:
            self._lock.close()

    @property
    def is_begun(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "job.json").is_file()

    def read(self, name: str) -> Any:
        """What `write` wrote under a name ("job", "plan", "done"); None where that is nothing."""
        return read_json(self.path / f"{name}.json")

    def write(self, name: str, data: Any) -> None:
        """Keeps plain data under a name."""
        write_json(self.path / f"{name}.json", data)

    def clear(self) -> None:
        """Removes checkpoints and frames: the run begins anew. StateError where that cannot be done."""
        try:
            for path in [*self._checkpoints(), *self.path.glob("frames-*")]:
                shutil.rmtree(path)
            self._shards.keep_only(())
            self._spoilt.clear()  # the names are given anew
        except OSError as error:
            raise unwritable(self.path, error, StateError) from error

    def remove(self) -> None:
        """Removes the folder."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def remove_where_nothing_is_kept(self) -> None:
        """Removes what a run that kept no state has written; an empty folder that was there before stays."""
        if self._checkpoints() or any(self.path.glob("frames-*")):
            return
        self.remove()
        if self._was_there:
            with suppress(OSError):  # the disk may be gone, which the error that ended the run says
                self.path.mkdir(exist_ok=True)

    def snapshot(self, state: Mapping[str, Any]) -> Snapshot:
        """A state as it is now, to be kept while the run goes on. Not while another one is kept."""
        return Snapshot(state, self._shards.kept)

    def keep(self, snapshot: Snapshot, going_on: GoingOn = lambda: None) -> int:
        """Keeps a state; the bytes that were written for it. Older ones are removed, but the one before.

        Args:
            going_on: raises where that is to be left, and what was kept before stays.
        """
        try:
            return self._keep(snapshot, going_on)
        except OSError as error:
            raise unwritable(self.path, error, InputError) from error

    def _keep(self, snapshot: Snapshot, going_on: GoingOn) -> int:
        before = [path for path in self._checkpoints() if path not in self._spoilt]
        number = 1 + max((_number(path) for path in self._checkpoints()), default=0)
        checksums, nbytes = self._shards.write(number, snapshot.storages, going_on)
        places = self._shards.places(checksums.values())
        with durable_folder(self.path / f"checkpoint-{number:06}") as part:
            told = {"state": snapshot.told, "storages": checksums, "places": places}
            (part / _STATE).write_text(json.dumps(told))
        self._remove([*self._spoilt, *before[: 1 - _KEPT]])
        return nbytes

    def newest(self, device: torch.device) -> Any:
        """The newest state that is whole; warns of those that are not. None where there is none."""
        for path in reversed(self._checkpoints()):
            index, fault = _index(path), fault_of(path)
            if fault is None and "state" not in index:
                fault = "it was written by another version"
            if fault is None and (fault := self._shards.fault_of(index["places"])) is None:
                return self._restored(index, device)
            warn(f"{path} is left out: {fault}", stacklevel=2)
            self._spoilt.add(path)
        return None

    def _restored(self, index: Mapping[str, Any], device: torch.device) -> Any:
        """The state of a checkpoint's index."""
        checksums, places = index["storages"], index["places"]

        def read(name: str) -> torch.Tensor:
            return self._shards.read(checksums[name], places[checksums[name]])

        return Restored(read, device).made(index["state"])

    def _remove(self, checkpoints: Collection[Path]) -> None:
        """Removes checkpoints, and the tensor files that no other one needs; what cannot be removed stays."""
        for path in checkpoints:
            shutil.rmtree(path, ignore_errors=True)
        self._spoilt -= set(checkpoints)
        left = self._checkpoints()
        with suppress(OSError):
            self._shards.keep_only({f for path in left for f in _index(path)["places"].values()})

    def keep_frames(self, start: int, frames: NDArray[np.uint8]) -> int:
        """Keeps decoded frames (n H W 3); their bytes."""
        with durable_folder(self._frames(start, len(frames))) as part:
            save_tensors({"frames": torch.from_numpy(np.ascontiguousarray(frames))}, part / _FRAMES)
        return frames.nbytes

    def frames(self, start: int, count: int) -> NDArray[np.uint8] | None:
        """Decoded frames (count H W 3) that were kept; None where they were not, or are spoilt."""
        path = self._frames(start, count)
        if not path.is_dir():
            return None
        if fault_of(path) is not None:
            shutil.rmtree(path, ignore_errors=True)
            return None
        frames: NDArray[np.uint8] = load_file(path / _FRAMES)["frames"]
        return frames

    def finish(self, out: Path | None, digest: str) -> None:
        """The clip is made; the last state stays, so that it can be written again. StateError where the clip
        is gone already."""
        self._remove([*self._checkpoints()[:-1], *self.path.glob("frames-*")])
        try:
            written = (
                {}
                if out is None
                else {"out": without_home(str(out.absolute())), "sha256": sha256_of(out)}
            )
        except OSError as error:
            raise StateError(
                f'the clip "{out}" was written and is gone: {error.strerror}; see whether its folder is there'
            ) from error
        self.write("done", {"job": digest, **written})

    def is_finished(self, out: Path | None, digest: str) -> bool:
        """Whether this very clip was made and lies there as it was written."""
        done = self.read("done")
        if out is None or not isinstance(done, dict) or done.get("job") != digest:
            return False
        return (
            done.get("out") in (str(out.absolute()), without_home(str(out.absolute())))
            and out.exists()
            and sha256_of(out) == done.get("sha256")
        )

    def _frames(self, start: int, count: int) -> Path:
        return self.path / f"frames-{start:06}-{count}"

    def _checkpoints(self) -> list[Path]:
        return sorted(self.path.glob("checkpoint-*"))


def _is_left(path: Path) -> bool:
    """Whether a process that was killed before it had noted what it begins leaves such a file."""
    name = path.name
    return name == "lock" or path.match("input-*.npy") or (name.startswith(".") and ".part" in name)


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _index(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint holds; one that cannot be read, or is of another version, holds nothing."""
    told = read_json(checkpoint / _STATE)
    return told if told and "places" in told else {"places": {}}


def _take(lock: IO[str]) -> bool:
    """Whether the lock is ours now; where a system has none, it always is."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
