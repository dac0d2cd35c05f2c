"""RTMPose through rtmlib, on ONNX files made here: what it finds comes to lie where it is to be."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest

from hgc_video.errors import InputError, MissingExtraError, ModelError
from hgc_video.media.skeleton import FACE, LEFT_HAND, RIGHT_HAND
from hgc_video.preprocess.extract import extract_control
from hgc_video.preprocess.registry import make_preprocessor
from hgc_video.preprocess.rtmpose import RTMPose
from tests.preprocess.onnx_files import write_onnx

REASON = 'needs pip install "hgc_video[rtmpose]"'
FILM = np.full((3, 64, 64, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def rtmlib():
    pytest.importorskip("onnxruntime", reason=REASON)
    return pytest.importorskip("rtmlib", reason=REASON)


def detector(folder, *boxes):
    """A detector of pictures of 64x64 that finds these boxes, x0 y0 x1 y1, and one it is not sure of."""
    found = np.array([[*box, 0.9] for box in boxes] + [[0, 0, 9, 9, 0.1]], np.float32)[None]
    labels = np.zeros(found.shape[:2], np.float32)
    return write_onnx(
        folder / f"detector{len(boxes)}.onnx", (64, 64), {"dets": found, "labels": labels}
    )


def network(folder, num_points):
    """A network that sees point k of a crop of 48x64 at column k % 48 and row k // 3."""
    x, y = np.zeros((1, num_points, 96), np.float32), np.zeros((1, num_points, 128), np.float32)
    for point in range(num_points):
        x[0, point, 2 * (point % 48)] = y[0, point, 2 * (point // 3)] = 0.8
    return write_onnx(folder / f"network{num_points}.onnx", (64, 48), {"x": x, "y": y})


def found(preprocessor):
    return list(preprocessor.estimates(FILM, 8))


def test_everybody_in_a_box_is_measured_and_nobody_else(rtmlib, tmp_path):
    files = {"network": str(network(tmp_path, 17))}
    two = RTMPose(detector=str(detector(tmp_path, (0, 0, 30, 40), (30, 10, 60, 60))), **files)
    assert [people.shape for people in found(two)] == [(2, 18, 4)] * 3
    none = RTMPose(detector=str(detector(tmp_path)), **files)
    assert [people.shape for people in found(none)] == [(0, 18, 4)] * 3, "no ghost"
    with pytest.raises(InputError, match="no person found"):
        extract_control(FILM, none)


def test_points_lie_where_the_network_saw_them_in_openposes_order(rtmlib, tmp_path):
    """A box of 3:4, padded to 1.25 of its size, is the crop; COCO's joints are put in OpenPose's order."""
    files = {
        "detector": str(detector(tmp_path, (8, 4, 56, 68))),
        "network": str(network(tmp_path, 17)),
    }
    (person,) = found(RTMPose(**files))[0]

    def of_crop(point):
        return np.array([32, 36]) + ((point % 48) / 48 - 0.5, (point // 3) / 64 - 0.5) * np.array(
            [60, 80]
        )

    for joint, coco in {0: 0, 2: 6, 3: 8, 4: 10, 5: 5, 8: 12, 13: 15, 14: 2, 17: 3}.items():
        assert np.allclose(person[joint, :2], of_crop(coco), atol=0.1), joint
    assert np.allclose(person[1, :2], (of_crop(5) + of_crop(6)) / 2, atol=0.1), "the neck"
    assert np.allclose(person[:, 3], 0.8)


def test_hands_and_a_face_of_a_whole_body_network(rtmlib, tmp_path):
    whole = str(network(tmp_path, 133))
    files = {"detector": str(detector(tmp_path, (8, 4, 56, 68))), "network": whole}
    (person,) = found(RTMPose(hands=True, face=True, **files))[0]
    assert person.shape == (130, 4) and person[:, 3].min() > 0.7
    # The network's rows grow with the number of its points: face from 23, left hand 91, right hand 112.
    rows = [person[part, 1] for part in (slice(60, 128), LEFT_HAND, RIGHT_HAND)]
    assert all(one.max() <= next_.min() for one, next_ in pairwise(rows))
    assert np.allclose(person[FACE][68], person[FACE][36:42].mean(0), atol=1e-3)
    (plain,) = found(RTMPose(**files))[0]
    assert plain.shape == (18, 4) and np.allclose(plain, person[:18])
    body = RTMPose(hands=True, detector=files["detector"], network=str(network(tmp_path, 17)))
    with pytest.raises(InputError, match="gives 17 points, none of hands"):
        found(body)


def test_it_makes_a_control_and_is_silent(rtmlib, tmp_path, capfd):
    text = (
        f"rtmpose:detector={detector(tmp_path, (16, 30, 40, 62))},network={network(tmp_path, 17)}"
    )
    control = extract_control(FILM, text, multiple=1, default_area=None)
    assert control.kind == "pose" and control.num_people == 1 and control.frames.max() > 200
    assert capfd.readouterr() == ("", "")


def test_what_is_missing_is_told_before_anything_is_read(rtmlib, tmp_path):
    (tmp_path / "a.onnx").write_text("not it")
    cases = {
        "rtmpose": "name local files",
        "rtmpose:detector=none.onnx,network=none.onnx": 'no file "none.onnx"',
    }
    for text, says in cases.items():
        with pytest.raises(ModelError, match=says):
            extract_control("no-such-film.mp4", text, offline=True)
    bad = f"rtmpose:detector={tmp_path / 'a.onnx'},network={tmp_path / 'a.onnx'}"
    with pytest.raises(ModelError, match="an ONNX file cannot be loaded"):
        extract_control(FILM, bad)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rtmlib", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"rtmpose needs rtmlib .*hgc_video\[rtmpose\]"):
        make_preprocessor("rtmpose").require()
