"""Mutations of bytes, of texts, and of plain data; the same for the same seed."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from typing import Any

_HEAD = 600  # bytes in which containers say most of what they hold
_EDGES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**62,
    2**64 - 1,
)
ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, 10**400, -(10**18), 0.0, -0.5, 1e308, float("inf"), float("nan"), "",
    " ", "off", "12:30", "../../../etc/passwd", "/dev/zero", "~root/x", "\x00", "\u202e", "x" * 5000, "{0}",
    "%s%n", [], {}, [[]], {"": ""}, [None], {"a": {"b": []}}, {0: 1}, ["off", "off"],
)  # fmt: skip
_WORDS = (
    "0", "-1", "1e999", "nan", ".inf", "99999999999999999999", "null", "~", "[]", "{}", "[", "}", ":", "+",
    ",", "=", "&a", "*a", "!!python/object:os.system x", "|", ">", "'", '"', "#", "2001-99-99", "0x", "1_0",
    "<<", "- - -", "? ", "%YAML 9", "---", "\t", "\ud7ff", "é", "٣",
)  # fmt: skip


def mutated(data: bytes, random_: random.Random) -> tuple[str, bytes]:
    """The data with one to three mutations, and what they are."""
    done = []
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        kind = random_.choice(list(_BYTES))
        data = _BYTES[kind](bytearray(data), random_)
        done.append(kind)
    return "+".join(done), data


def mutated_text(text: str, random_: random.Random) -> tuple[str, str]:
    """The text with one to three words or lines changed."""
    for _ in range(random_.choice((1, 1, 2, 3))):
        text = random_.choice((_word, _line, _letter))(text, random_)
    return "words", text


def mutated_data(data: Any, random_: random.Random) -> tuple[str, Any]:
    """Plain data with one to three of its values replaced, removed or renamed."""
    data = copy.deepcopy(data)
    for _ in range(random_.choice((1, 1, 2, 3))):
        places = list(_places(data))
        if not places:
            break
        holder, key = random_.choice(places)
        change = random_.randrange(4)
        if change == 0:
            del holder[key]
        elif change == 1 and isinstance(holder, dict):
            holder[random_.choice((f"{key}x", 7, None, ""))] = holder.pop(key)
        elif change == 2:  # another value of the same data
            other, at = random_.choice(places)
            holder[key] = copy.deepcopy(other[at]) if at in other or isinstance(other, list) else 0
        else:
            holder[key] = copy.deepcopy(random_.choice(ODD_VALUES))
    return "values", data


def _places(data: Any) -> Any:
    """Every place that holds a value, as its holder and key."""
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in keys:
        yield data, key
        yield from _places(data[key])


def _flips(data: bytearray, random_: random.Random, most: int | None = None) -> bytes:
    for _ in range(random_.choice((1, 2, 8, 64))):
        if data:
            data[random_.randrange(min(len(data), most or len(data)))] ^= 1 << random_.randrange(8)
    return bytes(data)


def _header(data: bytearray, random_: random.Random) -> bytes:
    return _flips(data, random_, _HEAD)


def _number(data: bytearray, random_: random.Random) -> bytes:
    """A number at the edge of what its bytes hold, in the header or anywhere."""
    size = random_.choice((1, 2, 4, 8))
    end = len(data) if random_.random() < 0.3 else min(len(data), _HEAD)
    at = random_.randrange(max(1, end))
    value = random_.choice(_EDGES) % 2 ** (8 * size)
    data[at : at + size] = value.to_bytes(size, random_.choice(("big", "little")))
    return bytes(data)


def _cut(data: bytearray, random_: random.Random) -> bytes:
    return bytes(data[: random_.randrange(max(1, len(data)))])


def _span(data: bytearray, random_: random.Random) -> slice:
    start = random_.randrange(max(1, len(data)))
    return slice(start, start + random_.choice((1, 4, 16, 188, 1024, 8192)))


def _removed(data: bytearray, random_: random.Random) -> bytes:
    del data[_span(data, random_)]
    return bytes(data)


def _doubled(data: bytearray, random_: random.Random) -> bytes:
    span = _span(data, random_)
    data[span.start : span.start] = data[span]
    return bytes(data)


def _zeros(data: bytearray, random_: random.Random) -> bytes:
    span = _span(data, random_)
    data[span] = bytes(len(data[span]))
    return bytes(data)


def _noise(data: bytearray, random_: random.Random) -> bytes:
    span = _span(data, random_)
    data[span] = random_.randbytes(len(data[span]))
    return bytes(data)


def _exchanged(data: bytearray, random_: random.Random) -> bytes:
    one, other = _span(data, random_), _span(data, random_)
    taken = data[other]
    data[one] = taken
    return bytes(data)


_BYTES: dict[str, Callable[[bytearray, random.Random], bytes]] = {
    "flips": _flips, "header": _header, "number": _number, "cut": _cut, "removed": _removed,
    "doubled": _doubled, "zeros": _zeros, "noise": _noise, "exchanged": _exchanged,
}  # fmt: skip


def _word(text: str, random_: random.Random) -> str:
    found = list(re.finditer(r"[\w.\-]+|[^\w\s]", text))
    if not found:
        return random_.choice(_WORDS)
    at = random_.choice(found)
    return text[: at.start()] + random_.choice(("", *_WORDS)) + text[at.end() :]


def _line(text: str, random_: random.Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    at, other = random_.randrange(len(lines)), random_.randrange(len(lines))
    change = random_.randrange(3)
    if change == 0:
        del lines[at]
    elif change == 1:
        lines.insert(other, lines[at])
    else:
        lines[at] = " " * random_.randrange(1, 5) + lines[at]
    return "".join(lines)


def _letter(text: str, random_: random.Random) -> str:
    at = random_.randrange(len(text) + 1)
    return text[:at] + random_.choice(_WORDS) + text[at + random_.randrange(2) :]
