"""Files: paths as users give them, files that appear complete or not at all, and data that the package ships.

What is written goes to a name beside the target and is moved there when it is complete, so an error, a
full disk or a cancelled run leaves nothing behind and an older file, or folder, of that name untouched.
Knows nothing about what files hold.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import os
import platform
import re
import secrets
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import HGCVideoError, InputError, text_of
from .plain_data import HALVES, is_whole

_PACKAGE = Path(__file__).parent
MOST_OF_A_NAME, MOST_OF_A_PATH = 255, 4095  # bytes that the systems take


def package_data(kind: str) -> Path:
    """The folder of data that the package ships: schedules, models; in configs/ of a checkout, in the package
    itself where it was installed from a wheel."""
    installed = _PACKAGE / "configs" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / "configs" / kind


def shipped_schedule(name: str, model: str = "") -> Path:
    """The file of a preset's schedule: the one for a model that is known by this name where there is such
    a file, else the one that was searched on the embedded model."""
    folder = package_data("schedules")
    own = folder / model / f"{name}.yaml"
    known = (
        model == Path(model).name and own.is_file()
    )  # a path of the user's names no file of ours
    return own if known else folder / f"{name}.yaml"


def limit_of(variable: str, usual: int) -> int:
    """A limit on what input may claim, which the environment variable raises; InputError where that is no
    whole number."""
    told = os.environ.get(variable, "")
    if not told:
        return usual
    if not (told.isascii() and is_whole(told)):
        raise InputError(f'{variable}="{told}" is not possible; give a whole number')
    return int(told)


def user_path(path: str | os.PathLike[str]) -> Path:
    """The path with `~` put in full; a name such as `~draft.mp4`, which is nobody's home, is kept as a
    shell keeps it. InputError for what no file is called: a null byte, a name too long, half a character."""
    told = os.fspath(path)
    if "\0" in told:
        raise InputError(f"a path has no null byte, got {told!r:.300}; give the path of a file")
    try:
        encoded = os.fsencode(told)
    except UnicodeEncodeError as error:
        raise InputError(f"{told!r:.300} is no path: {error.reason}; give that of a file") from None
    longest = max(len(name) for name in encoded.split(os.fsencode(os.sep)))
    if longest > MOST_OF_A_NAME or len(encoded) > MOST_OF_A_PATH:
        raise InputError(
            f'"{told[:40]}..." is too long for a path: names have at most {MOST_OF_A_NAME} bytes, all '
            f"together {MOST_OF_A_PATH}; give the path of a file"
        )
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path's own raises where there is no such user


def resolved(path: Path) -> Path:
    """The path with links followed; `Path.resolve` raises RuntimeError where they lead in a circle."""
    return Path(os.path.realpath(path))


def as_argument(path: str | os.PathLike[str]) -> str:
    """A path as a command line of a shell takes it.

    >>> as_argument("-my clip.mp4")
    "'./-my clip.mp4'"
    """
    told = os.fspath(path)
    return shlex.quote(f"./{told}" if told.startswith("-") else told)


def refuse_stream(path: Path, kind: type[HGCVideoError]) -> None:
    """Raises `kind` where a path is a pipe, a socket or a device: it may have no end, or nobody who writes,
    and nothing can be read of it twice."""
    if is_stream(path):
        raise kind(f'"{path}" is a device or a pipe; name a file')


def is_stream(path: Path) -> bool:
    """Whether a path is there and is neither a file nor a folder, or leads to such."""
    return path.exists() and not (path.is_file() or path.is_dir())


def is_open_already(path: Path) -> bool:
    """Whether a path names what this process has open, as the shell's `<(...)` and /dev/stdin do: reading it
    waits for nobody to open the other end."""
    return path == Path("/dev/stdin") or str(path.parent) in ("/dev/fd", "/proc/self/fd")


def without_home(told: Any) -> Any:
    """Plain data in which paths within the user's home begin with `~`, which `user_path` puts in full: files
    that are handed on do not tell who made them."""
    if isinstance(told, Mapping):
        return {without_home(name): without_home(value) for name, value in told.items()}
    if isinstance(told, list | tuple):
        return [without_home(value) for value in told]
    home = str(user_path("~"))
    if isinstance(told, str) and len(home) > 1:
        return re.sub(rf"(?<![\w./~-]){re.escape(home)}(?=/)", "~", told)
    return told


def ffmpeg_name(path: Path) -> str:
    """The name of a local file for ffmpeg's libraries, which take what precedes a colon in a relative
    name ("12:30.mp4") for a protocol."""
    return str(path.absolute())


def numbered(path: str | os.PathLike[str], number: int | None) -> Path:
    """A path for one of several files: `clip.mp4` is `clip-2.mp4` for number 2; as it is for None."""
    whole = Path(path)
    if number is None:
        return whole
    return whole.with_name(f"{whole.stem}-{number}{whole.suffix}")


def sha256_of(path: Path) -> str:
    """The checksum of a file's bytes, or of the names and files of a folder and of folders in it."""
    return _sha256_of(path, _read_sha256)


def kept_sha256_of(path: Path) -> str:
    """As `sha256_of`; a file that keeps its size and its time of change is read once in a process."""
    return _sha256_of(path, _kept_sha256)


def _sha256_of(path: Path, of_file: Callable[[Path], str]) -> str:
    if not path.is_dir():
        return of_file(path)
    found = hashlib.sha256()
    for inner in sorted(p for p in path.rglob("*") if p.is_file()):
        found.update(f"{inner.relative_to(path)}\0{of_file(inner)}\n".encode(errors=HALVES))
    return found.hexdigest()


def _read_sha256(path: Path) -> str:
    if not path.is_file() and path.exists():  # a device has no end
        raise InputError(f'"{path}" is no file; name one')
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kept_sha256(path: Path) -> str:
    facts = path.stat()
    return _sha256_once(resolved(path), facts.st_size, facts.st_mtime_ns)


@lru_cache(4096)
def _sha256_once(path: Path, nbytes: int, changed_ns: int) -> str:
    return _read_sha256(path)


def state_of(files: Iterable[Path]) -> tuple[tuple[str, int, int], ...]:
    """What changes when one of the files is written to: paths, times of change and sizes."""
    stats = [(str(file), file.stat()) for file in files]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def check_distinct(outputs: Mapping[str, Any], inputs: Iterable[tuple[str, Any]]) -> None:
    """InputError where an output is the file of an input or of another output, which it would overwrite.

    `outputs` are paths by option (None: not asked for), `inputs` what they may not be, each with its name
    in the message; an input that is no path (an array, a list of images) is no file.
    """
    taken = [(name, given) for name, given in inputs if isinstance(given, str | os.PathLike)]
    for option, given in outputs.items():
        if given is None:
            continue
        for name, other in taken:
            if _same_file(user_path(given), user_path(other)):
                raise InputError(f'{option} "{given}" is the {name} itself; name another file')
        taken.append((f"file of {option}", given))


def _same_file(one: Path, other: Path) -> bool:
    if resolved(one) == resolved(other):
        return True
    try:  # hard links, and names that differ in case alone where that makes no difference
        return one.samefile(other)
    except OSError:
        return False


def own_folder(given_folder: str | os.PathLike[str] | None = None) -> Path:
    """Where the package keeps what it measures: the folder given, or $HGC_VIDEO_HOME, or `hgc_video` in
    $XDG_CACHE_HOME, which is ~/.cache unless it is set. InputError where the user has no home."""
    if given_folder is not None:
        return user_path(given_folder)
    if own := os.environ.get("HGC_VIDEO_HOME"):
        return user_path(own)
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The standard has relative paths ignored.
    caches = caches if caches.is_absolute() else user_path("~/.cache")
    if not caches.is_absolute():
        raise InputError(
            "this user has no home folder to keep data in; name one in the variable HGC_VIDEO_HOME"
        )
    return caches / "hgc_video"


_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_RACES = 20  # times that a folder may be made or removed by others while it is put in its place
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def complete_or_gone(target: Path, kind: type[HGCVideoError] = InputError) -> Iterator[Path]:
    """A path to write a file or folder to, which takes the target's place at the end of the block; that of
    what it leads to, where it is a link. What killed processes of this machine had begun to write for the
    same target is removed.

    Raises:
        `kind`: the place cannot be written, the disk is full; a device or a pipe has the name, which would be
            no more.
    """
    _refuse_device(target, kind)
    target = _behind_link(target)
    part = _part_of(target)
    try:
        _sweep(_parts_of(target))
        yield part
        _replace(part, target)
    except OSError as error:
        raise unwritable(target, error, kind) from error
    finally:
        remove(part)


def require_writable(target: Path, kind: type[HGCVideoError] = InputError) -> None:
    """Raises `kind` when nothing could be written beside the target, or it is a device or a pipe."""
    _refuse_device(target, kind)
    target = _behind_link(target)
    part = _part_of(target)
    try:
        part.touch(exist_ok=False)
    except OSError as error:
        raise unwritable(target, error, kind) from error
    finally:
        remove(part)


def _behind_link(target: Path) -> Path:
    """What a link leads to, which may not be there yet; anything else as it is."""
    return resolved(target) if target.is_symlink() else target


def _refuse_device(target: Path, kind: type[HGCVideoError]) -> None:
    with suppress(OSError):
        if is_stream(target):
            raise kind(f'"{target}" is a device or a pipe, and would be replaced; name a file')


def unwritable(target: Path, error: OSError, kind: type[HGCVideoError]) -> HGCVideoError:
    """What to tell the user of a system's error."""
    if error.errno in _FULL:
        return kind(f'the disk is full: cannot write "{target}"; free space or go elsewhere')
    if error.errno == errno.EFBIG:
        return kind(
            f'cannot write "{target}": it is larger than a limit of the system (ulimit -f) or the file '
            "system allows; raise the limit or go elsewhere"
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return kind(f'cannot write "{target}": {reason.lower()}; choose a folder you may write')


def make_folder(folder: Path) -> None:
    """Makes a folder and those that it lies in, where they are missing.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error, InputError) from error


_NEVER_OURS = (*_FULL, errno.EFBIG, errno.EROFS)
_NOT_TO_BE_USED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)


def fault_of_machine(error: Exception) -> InputError | None:
    """What to tell the user of an error that the machine is to blame for: a disk that is full or fails,
    memory that ran out, a file that may not be used. None: it may as well be a fault of ours."""
    text = text_of(error)[:300]
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return InputError(
            f"memory ran out ({text or 'the host'}); make fewer or smaller frames, give less --memory, or "
            "free memory"
        )
    if isinstance(error, OSError) and error.errno in _NEVER_OURS:
        told = unwritable(
            Path(str(error.filename or "a file, or what is printed")), error, InputError
        )
        return InputError(str(told))
    if isinstance(error, OSError) and error.errno == errno.EIO:  # of reading or of writing
        name = str(error.filename or "a file")[:300]
        return InputError(
            f'"{name}" is on a disk or a mount that fails ({os.strerror(errno.EIO).lower()})'
        )
    if isinstance(error, OSError) and error.errno in _NOT_TO_BE_USED and error.filename:
        reason = os.strerror(error.errno).lower()
        return InputError(f'"{error.filename!s:.300}" cannot be used: {reason}; name another')
    return None


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Writes a text file and returns its path; an older file stays whole until the new one is.

    Raises:
        InputError: a folder that is missing or cannot be written, a full disk.
    """
    target = user_path(path)
    with complete_or_gone(target) as part:
        part.write_text(text, encoding="utf-8", errors=HALVES)
    return target


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises InputError when no file could be written to `path`: ask before a long run."""
    target = user_path(path)
    try:
        if not target.parent.is_dir():
            raise InputError(f'no folder "{target.parent}" for "{target.name}"; create it first')
        if target.is_dir():
            raise InputError(f'"{target}" is a folder; name a file')
    except OSError as error:
        raise unwritable(target, error, InputError) from error
    require_writable(target)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Has one process at a time in the block for a folder; the others wait. All go on at once where folders
    cannot be locked: on Windows, on some network disks. A kill unlocks."""
    with ExitStack() as stack:
        with suppress(OSError, ImportError):
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def remove_folder(folder: Path) -> None:
    """Removes a folder as a whole: it is gone under its name before the first file of it is. One that
    cannot be removed stays, and so does what is no folder."""
    if not folder.is_dir():
        return
    part = _part_of(folder)
    with suppress(OSError):
        _sweep(_parts_of(folder))
        folder.rename(part)
        shutil.rmtree(part)


def _part_of(target: Path) -> Path:
    """A name beside the target, hidden, which says what process writes there."""
    return target.with_name(f".{target.stem}.{_owner()}.{secrets.token_hex(4)}.part{target.suffix}")


def sweep(folder: Path) -> None:
    """Removes what processes of this machine that are gone had begun to write in a folder, whatever for."""
    _sweep(folder.glob(".*-*.????????.part*"))


def _parts_of(target: Path) -> Iterator[Path]:
    stem, suffix = glob.escape(target.stem), glob.escape(target.suffix)
    return target.parent.glob(f".{stem}.*-*.????????.part{suffix}")


def _sweep(parts: Iterable[Path]) -> None:
    for part in parts:
        owner = part.name[: part.name.rindex(".part")].split(".")[-2]
        space, _, pid = owner.rpartition("-")
        if owner != _owner() and space == _pid_space() and is_whole(pid) and not _runs(int(pid)):
            remove(part)


def _owner() -> str:
    """This process, in a name."""
    return f"{_pid_space()}-{os.getpid()}"


@lru_cache(1)
def _pid_space() -> str:
    """Where the numbers of processes are those of this machine, or of this container of it, in a name."""
    try:
        own = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116  Path's own follows no such link
    except OSError:  # no Linux
        own = 0
    return hashlib.sha256(f"{platform.node()} {own}".encode()).hexdigest()[:8]


def _runs(pid: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(pid))


def _replace(part: Path, target: Path) -> None:
    """Gives a part its final name; again where another process made or removed a folder of that name since
    it was looked for."""
    for left in reversed(range(_RACES)):
        try:
            if part.is_dir() and target.is_dir():
                _replace_folder(part, target)
            else:
                part.replace(target)
            return
        except OSError as error:
            raced = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT) and part.is_dir()
            if not raced or left == 0:
                raise


def _replace_folder(part: Path, target: Path) -> None:
    if _exchange(part, target):  # then what was there before has the name of the part
        return
    old = _part_of(target)
    target.rename(old)
    try:
        part.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Gives two folders each other's name, at once; False, and nothing is done, where the system cannot.

    Between two renames a kill would leave neither under its name.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    swap = getattr(libc, "renameat2", None)  # of Linux
    if swap is None:
        return False
    names = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    return bool(swap(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


def remove(path: Path) -> None:
    """Removes a file or folder that nobody reads; one that cannot be removed stays."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
