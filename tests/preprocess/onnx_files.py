"""ONNX files of networks that answer the same to every picture, written without the package onnx, whose
protobuf is another than mediapipe's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

_FLOAT, _TENSOR = 1, 4  # TensorProto.FLOAT, AttributeProto.TENSOR


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _whole(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _nested(field: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(_nested(1, _whole(1, size)) for size in shape)
    tensor = _whole(1, _FLOAT) + _nested(2, dims)
    return _nested(1, name) + _nested(2, _nested(1, tensor))


def _constant(name: str, array: np.ndarray) -> bytes:
    dims = b"".join(_whole(1, size) for size in array.shape)
    tensor = dims + _whole(2, _FLOAT) + _nested(9, array.astype("<f4").tobytes())
    attribute = _nested(1, "value") + _nested(5, tensor) + _whole(20, _TENSOR)
    return _nested(2, name) + _nested(4, "Constant") + _nested(5, attribute)


def write_onnx(file: Path, size: tuple[int, int], answers: Mapping[str, np.ndarray]) -> Path:
    """A network of pictures (1 3 H W) of this size, height first, whose outputs are always `answers`."""
    graph = b"".join(_nested(1, _constant(name, array)) for name, array in answers.items())
    graph += _nested(2, "made") + _nested(11, _value("picture", (1, 3, *size)))
    graph += b"".join(_nested(12, _value(name, array.shape)) for name, array in answers.items())
    opset = _nested(1, "") + _whole(2, 13)
    file.write_bytes(_whole(1, 8) + _nested(7, graph) + _nested(8, opset))
    return file
