"""mediapipe's own graphs, run on images one at a time: its person detector, and the landmarks of one crop"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingExtraError
from ..media.frames import Frame

SIZE = """
node { calculator: "ImagePropertiesCalculator" input_stream: "IMAGE:image" output_stream: "SIZE:size" }
"""
FIND = """
input_stream: "image"
output_stream: "rois"
node { calculator: "PoseDetectionCpu" input_stream: "IMAGE:image" output_stream: "DETECTIONS:found" }
node {
  calculator: "AlignmentPointsRectsCalculator"
  input_stream: "DETECTIONS:found" input_stream: "IMAGE_SIZE:size" output_stream: "NORM_RECTS:crops"
  options: { [mediapipe.DetectionsToRectsCalculatorOptions.ext] {
    rotation_vector_start_keypoint_index: 0 rotation_vector_end_keypoint_index: 1
    rotation_vector_target_angle_degrees: 90 } }
}
node {
  calculator: "RectTransformationCalculator"
  input_stream: "NORM_RECTS:crops" input_stream: "IMAGE_SIZE:size" output_stream: "rois"
  options: { [mediapipe.RectTransformationCalculatorOptions.ext] {
    scale_x: 1.25 scale_y: 1.25 square_long: true } }
}
"""
MEASURE = """
input_stream: "image"
input_stream: "roi"
output_stream: "body"
output_stream: "next_roi"
node {
  calculator: "PoseLandmarkByRoiCpu" input_side_packet: "MODEL_COMPLEXITY:complexity"
  input_stream: "IMAGE:image" input_stream: "ROI:roi"
  output_stream: "LANDMARKS:body" output_stream: "AUXILIARY_LANDMARKS:around"
}
node {
  calculator: "PoseLandmarksToRoi"
  input_stream: "LANDMARKS:around" input_stream: "IMAGE_SIZE:size" output_stream: "ROI:next_roi"
}
"""
HANDS = """
output_stream: "left"
output_stream: "right"
node {
  calculator: "HandLandmarksLeftAndRightCpu"
  input_stream: "IMAGE:image" input_stream: "POSE_LANDMARKS:body"
  output_stream: "LEFT_HAND_LANDMARKS:left" output_stream: "RIGHT_HAND_LANDMARKS:right"
}
"""
FACES = """
output_stream: "face"
node {
  calculator: "SplitNormalizedLandmarkListCalculator"
  input_stream: "body" output_stream: "head"
  options: { [mediapipe.SplitVectorCalculatorOptions.ext] { ranges: { begin: 0 end: 11 } } }
}
node {
  calculator: "FaceLandmarksFromPoseCpu"
  input_stream: "IMAGE:image" input_stream: "FACE_LANDMARKS_FROM_POSE:head"
  output_stream: "FACE_LANDMARKS:face"
}
"""


def mediapipe_version() -> str:
    """The version of mediapipe; MissingExtraError where it, or its models, are not there."""
    _mediapipe()
    return metadata.version("mediapipe")


class Graph:
    """A running mediapipe graph, called with an image and, where it takes one, a crop."""

    def __init__(self, text: str, complexity: int | None = None) -> None:
        self._mediapipe = _mediapipe()
        self._graph = self._mediapipe.CalculatorGraph(graph_config=text)
        self._got: dict[str, Any] = {}
        self._time = 0
        names = [
            line.split('"')[1] for line in text.splitlines() if line.startswith("output_stream")
        ]
        for name in names:
            self._graph.observe_output_stream(name, self._receive)
        create = self._mediapipe.packet_creator
        side = {} if complexity is None else {"complexity": create.create_int(complexity)}
        self._graph.start_run(side)
        self._graph.wait_until_idle()  # what it says when it opens is hushed with the rest

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, *error: object) -> None:
        with hushed():
            self._graph.close()

    def __call__(self, image: Any, roi: Any = None) -> dict[str, Any]:
        self._got = {}
        self._graph.add_packet_to_input_stream("image", image.at(self._time))
        if roi is not None:
            packet = self._mediapipe.packet_creator.create_proto(roi)
            self._graph.add_packet_to_input_stream("roi", packet.at(self._time))
        self._graph.wait_until_idle()
        self._time += 1
        return self._got

    def _receive(self, name: str, packet: Any) -> None:
        get = self._mediapipe.packet_getter
        read = get.get_proto_list if name == "rois" else get.get_proto
        self._got[name] = read(packet)


def as_image(frame: Frame) -> Any:
    """A frame (H W 3) as the graphs take it."""
    mediapipe = _mediapipe()
    kind = mediapipe.ImageFormat.SRGB
    return mediapipe.packet_creator.create_image_frame(
        np.ascontiguousarray(frame), image_format=kind
    )


def _mediapipe() -> Any:
    if sys.version_info >= (3, 13):
        remedy = 'on this Python use rtmpose instead: pip install "hgc_video[rtmpose]"'
    else:
        remedy = 'pip install "hgc_video[pose]"'
    try:
        mediapipe = import_module("mediapipe")
        resources = import_module("mediapipe.python._framework_bindings").resource_util
        if not hasattr(mediapipe, "CalculatorGraph"):
            raise ImportError(f"mediapipe {mediapipe.__version__} carries no models")
    except (ImportError, OSError, AttributeError) as error:
        raise MissingExtraError(f"pose needs mediapipe 0.10.14 ({error}): {remedy}") from error
    resources.set_resource_dir(str(Path(str(mediapipe.__file__)).parent.parent))
    return mediapipe


@contextmanager
def hushed() -> Iterator[None]:
    """Silences what mediapipe's C++ core writes straight to the terminal, and its warnings."""
    sys.stderr.flush()
    saved = os.dup(2)
    void = os.open(os.devnull, os.O_WRONLY)
    os.dup2(void, 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(saved, 2)
        os.close(void)
        os.close(saved)
