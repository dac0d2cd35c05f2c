"""Controls extracted again from a clip and compared: what a measure says of clips that are near and far."""

from __future__ import annotations

import numpy as np
import pytest

import hgc_video
from hgc_video.errors import InputError, MissingExtraError, ModelError
from hgc_video.evaluate.control_fidelity import control_fidelity, keypoint_measures
from hgc_video.media.control import ControlClip
from hgc_video.preprocess import kept
from hgc_video.preprocess.canny import Canny
from hgc_video.preprocess.depth import Depth
from hgc_video.preprocess.extract import extract_control
from hgc_video.preprocess.lineart import Lineart
from hgc_video.preprocess.pose import Pose

OWN_SIZE = {"multiple": 1, "default_area": None}
BODY = np.random.default_rng(0).uniform(0, 1, (18, 2)) * (40, 100)


def person(*offsets):
    """A track (f 18 4) of somebody at these offsets; None where he is not seen."""
    track = np.zeros((len(offsets), 18, 4))
    for points, offset in zip(track, offsets, strict=True):
        if offset is not None:
            points[:, :2], points[:, 3] = BODY + offset, 1
    return track


def test_keypoints_are_measured_in_heights_of_a_person():
    height = np.ptp(BODY[:, 1])
    wanted = np.stack([person(0, 0, 0), person(None, 300, 300)])
    assert keypoint_measures(wanted, wanted) == (1.0, 0.0)
    assert keypoint_measures(wanted[::-1], wanted) == (1.0, 0.0), "whoever is who"
    moved = wanted + [3, 4, 0, 0] * (wanted[..., 3:] > 0)
    share, distance = keypoint_measures(moved, wanted)
    assert share == 1 and distance == pytest.approx(5 / height)
    assert keypoint_measures(wanted[:1], wanted) == (3 / 5, 0.0), "the second person is not there"
    far = np.stack([person(200, 200, 200)])
    assert keypoint_measures(far, wanted) == (0.0, None), "somebody elsewhere is nobody"
    assert keypoint_measures(wanted, wanted * 0) == (None, None)


def test_joints_that_are_not_seen_do_not_count():
    wanted = person(0)[None]
    found = wanted.copy()
    found[0, 0, 4] = [999, 999, 0, 0.1]
    assert keypoint_measures(found, wanted) == (1.0, 0.0)


def squares(offset=0):
    frames = np.full((3, 96, 128, 3), 220, np.uint8)
    for number, frame in enumerate(frames):
        left = 10 + 8 * number + offset
        frame[30:70, left : left + 40] = 20
    return frames


@pytest.mark.parametrize("preprocessor", [Canny(), Lineart()])
def test_lines_agree_where_they_lie_on_each_other(preprocessor):
    pytest.importorskip("cv2", reason='needs pip install "hgc_video[edges]"')
    control = extract_control(squares(), preprocessor, **OWN_SIZE)
    count = len(kept.entries())
    same, shifted, none = (
        control_fidelity(clip, control, preprocessor)["edge_f1"]
        for clip in (squares(), squares(6), np.full_like(squares(), 128))
    )
    assert same == 1 and 0.2 < shifted < 0.85 and none == 0
    assert len(kept.entries()) == count, "of a finished clip nothing is kept"


class Ramp(Depth):
    """Takes the first channel for nearness"""

    def require(self, offline=False):
        pass

    def estimates(self, frames, fps):
        return (frame[..., 0].astype(np.float16) for frame in frames)


def depth_of(frames):
    return ControlClip(frames, 8, "depth", *frames.shape[1:3])


def test_depth_agrees_up_to_a_scale_and_a_shift_and_not_turned_round():
    ramp = np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (3, 1, 32, 3))
    noise = np.random.default_rng(0).integers(0, 255, ramp.shape, np.uint8)
    measure = {
        name: control_fidelity(frames, depth_of(2 * ramp + 30), Ramp(cut=0))
        for name, frames in {"same": ramp, "inverted": 255 - ramp, "noise": noise, "flat": ramp * 0}.items()
    }  # fmt: skip
    assert measure["same"]["depth_error"] < 0.01 and measure["same"]["depth_correlation"] > 0.99
    assert measure["inverted"]["depth_correlation"] < -0.99
    worst = np.abs(ramp / 255 * 2 - (ramp / 255 * 2).mean()).mean()
    for name in ("inverted", "noise", "flat"):
        assert measure[name]["depth_error"] == pytest.approx(worst, rel=0.1), name
    assert measure["flat"]["depth_correlation"] is None


def test_a_pose_is_found_again_and_nobody_is_nobody(shared_data):
    pytest.importorskip("mediapipe", reason='needs pip install "hgc_video[pose]"')
    from hgc_video.media.video import read_frames

    film = read_frames(shared_data / "dance.mp4", indices=range(0, 6, 2))[:, ::3, ::3]
    control = extract_control(film, Pose(), fps=12, source_fps=12, **OWN_SIZE)
    again = control_fidelity(film, control, Pose())
    assert again["people_found"] == 1 and again["keypoint_distance"] < 0.01
    assert again["skeleton_f1"] > 0.99
    moved = control_fidelity(np.roll(film, 30, 2), control, Pose())
    assert 0.03 < moved["keypoint_distance"] < 0.1 and moved["skeleton_f1"] < 0.8
    nobody = control_fidelity(film * 0, control, Pose())
    assert nobody == {"people_found": 0.0, "keypoint_distance": None, "skeleton_f1": 0.0}
    ready = ControlClip(control.frames, 12, "pose", *film.shape[1:3])
    told = control_fidelity(film, ready, Pose())
    assert told["keypoint_distance"] is None and told["skeleton_f1"] > 0.99


FAST = {"num_frames": 2, "num_inference_steps": 1, "progress": False}


@pytest.mark.slow
def test_a_run_reports_its_fidelity_and_the_report_is_read_again(tmp_path):
    pytest.importorskip("mediapipe", reason='needs pip install "hgc_video[pose]"')
    clip = hgc_video.generate(
        "examples/dance_pose.mp4", "a dancer in a red shirt on a beach", fidelity=True, **FAST
    )
    (kind,) = clip.report.fidelity
    assert kind == "pose" and 0 <= clip.report.fidelity["pose"]["skeleton_f1"] <= 1
    assert "fidelity  pose: skeleton f1 0." in clip.report.summary()
    assert "fidelity" in clip.report.seconds
    told = hgc_video.Report.from_json(clip.report.to_json())
    assert told.fidelity == clip.report.fidelity and told.options["fidelity"] is True


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"fidelity": "canny"}, InputError, "makes canny, and no canny clip is given"),
        ({"fidelity": 2}, InputError, "fidelity=2 is not possible"),
        ({"fidelity": "pos"}, InputError, 'did you mean "pose"'),
        ({"fidelity": {"depth": {"model": "no/such"}}, "control": "depth", "offline": True}, ModelError,
         "as depth:model=FOLDER"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_told_before_the_run(given, error, says):
    with pytest.raises(error, match=says):
        hgc_video.generate("no-such-file.mp4", "a dancer", **given)


def test_a_missing_extra_is_told_before_the_run(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingExtraError, match="pose needs mediapipe"):
        hgc_video.generate("no-such-file.mp4", "a dancer", fidelity=True)
