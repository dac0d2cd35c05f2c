"""Skeletons by RTMPose and its kin (DWPose, RTMW) through rtmlib: better, for those who can download or have
the files"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..errors import InputError, ModelError
from ..files import kept_sha256_of, user_path
from ..media.frames import Frame
from ..media.skeleton import BODY, FACE, LEFT_HAND, NUM_POINTS, RIGHT_HAND
from .pose import PosePreprocessor

_BODY_ALONE, _WHOLE = 18, 134  # points that rtmlib gives in OpenPose's order
# Where rtmlib's whole people have their parts; 18 to 23 are feet, which ControlNets do not know.
_FACE_68, _LEFT, _RIGHT = slice(24, 92), slice(92, 113), slice(113, 134)
_EYES = ((slice(36, 42), 68), (slice(42, 48), 69))


class RTMPose(PosePreprocessor):
    """Skeletons of several people by RTMPose (rtmlib), downloaded at first use or from local ONNX files"""

    name = "rtmpose"
    extra = "rtmpose"

    mode: Literal["lightweight", "balanced", "performance"] = Field(
        "balanced", description="which networks are downloaded: larger ones are slower and surer"
    )
    detector: str = Field("", description="an ONNX file of YOLOX that finds people, instead")
    network: str = Field("", description="an ONNX file of RTMPose, 133 points or 17, instead")
    hands: bool = Field(False, description="hands too, of a network of 133 points")
    face: bool = Field(False, description="the face too, of a network of 133 points")

    def require(self, offline: bool = False) -> None:
        self._rtmlib()
        if offline and not (self.detector and self.network):
            raise ModelError(
                "rtmpose: it was asked to stay offline; name local files, as "
                "rtmpose:detector=yolox.onnx,network=dwpose.onnx"
            )
        self._files()

    def made_by(self) -> dict[str, str]:
        return {name: kept_sha256_of(file) for name, file in self._files().items()}

    def estimates(self, frames: Iterable[Frame], fps: float) -> Iterator[NDArray[Any]]:
        detector, network = self._tools()
        for frame in frames:
            image = np.ascontiguousarray(frame[..., ::-1])  # it takes what OpenCV reads
            boxes = detector(image)
            if not len(boxes):  # it would take the whole picture for somebody
                yield np.zeros((0, self._num_points, 4), np.float32)
                continue
            points, scores = network(image, bboxes=boxes)
            yield self._people(np.concatenate([points, scores[..., None]], -1))

    @property
    def _num_points(self) -> int:
        return NUM_POINTS if self.hands or self.face else BODY.stop

    def _people(self, found: NDArray[np.floating]) -> NDArray[np.float32]:
        """People (p n 4) of what rtmlib gives (p k 3) in OpenPose's order; z is not known and 0."""
        if self._num_points > BODY.stop and found.shape[1] != _WHOLE:
            raise InputError(
                f"rtmpose: the network gives {found.shape[1] - 1} points, none of hands and face; leave "
                "hands and face out, or give one of 133 points"
            )
        people = np.zeros((len(found), self._num_points, 4), np.float32)
        parts = [(BODY, slice(0, _BODY_ALONE))]
        parts += [(LEFT_HAND, _LEFT), (RIGHT_HAND, _RIGHT)] * self.hands
        parts += [(slice(FACE.start, FACE.stop - 2), _FACE_68)] * self.face
        for to, of in parts:
            people[:, to, :2] = found[:, of, :2]
            people[:, to, 3] = found[:, of, 2].clip(0, 1)
        if self.face:
            for eye, pupil in _EYES:
                people[:, FACE.start + pupil] = people[:, FACE][:, eye].mean(1)
        return people

    def _files(self) -> dict[str, Path]:
        """The networks' files: as told, or downloaded; ModelError where there are none."""
        from_web = self._rtmlib().Wholebody.MODE[self.mode]
        files = {}
        for name, told, part in (
            ("detector", self.detector, "det"),
            ("network", self.network, "pose"),
        ):
            if told:
                files[name] = user_path(told)
                if not files[name].is_file():
                    raise ModelError(f'rtmpose: no file "{told}"; give {name} an ONNX file')
                continue
            fetch = import_module("rtmlib.tools.file").download_checkpoint
            try:
                files[name] = Path(fetch(from_web[part]))
            except (
                Exception
            ) as error:  # of the network, the server, an archive: rtmlib tells none apart
                raise ModelError(
                    f"rtmpose: {from_web[part]} cannot be downloaded ({error}); name a local file, as "
                    f"rtmpose:{name}=FILE.onnx"
                ) from error
        return files

    def _tools(self) -> tuple[Any, Any]:
        """rtmlib's detector and network, of the sizes that their files have."""
        rtmlib, files = self._rtmlib(), self._files()
        on_gpu = "CUDAExecutionProvider" in import_module("onnxruntime").get_available_providers()
        given = {"backend": "onnxruntime", "device": "cuda" if on_gpu else "cpu"}
        try:
            with redirect_stdout(StringIO()):  # it says which file it loads
                detector = rtmlib.YOLOX(str(files["detector"]), **given)
                network = rtmlib.RTMPose(str(files["network"]), to_openpose=True, **given)
            height, width = detector.session.get_inputs()[0].shape[2:]
            detector.model_input_size = (int(height), int(width))
            height, width = network.session.get_inputs()[0].shape[2:]
            network.model_input_size = (int(width), int(height))
        except Exception as error:  # onnxruntime has errors of its own kinds
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"rtmpose: an ONNX file cannot be loaded: {first}") from error
        return detector, network

    def _rtmlib(self) -> Any:
        try:
            import_module("onnxruntime")
            return import_module("rtmlib")
        except (ImportError, OSError) as error:
            raise self._lacks("rtmlib and onnxruntime", error) from error
