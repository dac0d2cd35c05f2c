"""Graphs that are kept: shipped ones are what the models give, spoilt ones are made anew."""

from __future__ import annotations

import gzip
import json

import pytest

from hgc_video.errors import PlanError
from hgc_video.files import own_folder, package_data
from hgc_video.models import kept_data
from hgc_video.models.configurations import Configurations, known_model, known_models
from hgc_video.models.graph_store import build, graph_of, graph_request, of_request
from hgc_video.plan.clip_shape import ClipShape
from hgc_video.plan.graph import BlockGraph
from tests.plan.test_graph import ladder

SMALL = 256  # channels; a model of fewer is built in a second or two
TINY = Configurations(
    {
        "_class_name": "UNet2DConditionModel", "block_out_channels": [32, 64], "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "norm_num_groups": 8,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "cross_attention_dim": 16,
        "attention_head_dim": 4,
    },
    (), {},
)  # fmt: skip
SHAPE = ClipShape(2, 8, 8, 7)


def shipped_graphs():
    """Every shipped graph by a name to read; those of large models are slow to build."""
    for request, data in kept_data.shipped():
        if request["kind"] == "graph":
            shape, nets = request["shape"], len(request["controlnets"])
            size = f"{shape['num_frames']}x{shape['height']}x{shape['width']}"
            width = request["unet"].get("block_out_channels", [1280])[-1]
            name = f"{request['unet']['_class_name']}-{width}-{size}-{nets}-{shape['dtype_nbytes']}"
            marks = () if width < SMALL else pytest.mark.slow
            yield pytest.param(request, data, id=name, marks=marks)


@pytest.mark.parametrize(("request_", "data"), list(shipped_graphs()))
def test_a_shipped_graph_is_the_one_that_is_built(request_, data):
    assert BlockGraph.from_dict(data) == build(*of_request(request_))


def test_every_known_model_has_a_shipped_graph_of_its_own_size():
    for name in known_models():
        known, factor = known_model(name), known_model(name).latent_factor
        models = known.configurations(1 if known.controlnet else 0)
        size = (known.num_frames, known.height // factor, known.width // factor, known.num_tokens)
        request = graph_request(models, ClipShape(*size))
        assert kept_data.read_shipped(request) is not None, name
    sizes = [path.stat().st_size for path in package_data("graphs").iterdir()]
    assert sum(sizes) < 2**20


def test_a_graph_comes_back_from_plain_data():
    graph = ladder()
    assert BlockGraph.from_dict(json.loads(json.dumps(graph.to_dict()))) == graph
    with pytest.raises(PlanError, match="block graph needs layers"):
        BlockGraph.from_dict({"depths": []})


@pytest.fixture
def builds(monkeypatch, tmp_path):
    """Counts the graphs that are built; the user's folder is empty."""
    monkeypatch.setenv("HGC_VIDEO_HOME", str(tmp_path))
    made = []

    def counted(*asked):
        made.append(asked)
        return build(*asked)

    monkeypatch.setattr("hgc_video.models.graph_store.build", counted)
    return made


def test_a_graph_is_built_once_for_each_model_and_shape(builds):
    first = graph_of(TINY, SHAPE)
    assert graph_of(TINY, SHAPE) == first == build(TINY, SHAPE)
    assert len(builds) == 1
    half = graph_of(TINY, SHAPE, dtype_nbytes=2)
    assert half.layers[0].nbytes * 2 == first.layers[0].nbytes
    other = Configurations({**TINY.unet, "cross_attention_dim": 32}, (), {})
    assert graph_of(other, SHAPE) != first
    assert len(builds) == 3
    noted = Configurations({**TINY.unet, "_diffusers_version": "0.1", "_name_or_path": "x"}, (), {})
    assert graph_of(noted, SHAPE) == first
    assert len(builds) == 3, "where a model comes from makes no other graph"


def _rewritten(path, **changed):
    content = json.loads(gzip.decompress(path.read_bytes()))
    path.write_bytes(gzip.compress(json.dumps({**content, **changed}).encode()))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_bytes(gzip.compress(b"[1, 2]")),
        lambda path: _rewritten(path, data={"layers": "none"}),
        lambda path: _rewritten(path, data=None),
        lambda path: _rewritten(path, request={"kind": "graph"}),
        lambda path: _rewritten(path, made_by={"format": 0}),
    ],
    ids=["empty", "cut", "foreign", "spoilt", "none", "of another", "of other code"],
)
def test_a_file_that_cannot_be_used_is_made_anew(builds, spoil):
    first = graph_of(TINY, SHAPE)
    (path,) = (own_folder() / "graphs").iterdir()
    whole = path.read_bytes()
    spoil(path)
    assert graph_of(TINY, SHAPE) == first
    assert len(builds) == 2 and path.read_bytes() == whole


def test_a_place_that_is_no_folder_keeps_nothing(builds, tmp_path):
    (tmp_path / "graphs").write_text("a file")
    assert graph_of(TINY, SHAPE) == graph_of(TINY, SHAPE)
    assert len(builds) == 2


def test_a_user_without_a_home_keeps_nothing(builds, homeless):
    assert graph_of(TINY, SHAPE) == graph_of(TINY, SHAPE)
    assert len(builds) == 2 and not list(homeless.iterdir())


def test_an_unknown_convention_is_told():
    with pytest.raises(PlanError, match="unknown convention"):
        graph_of(TINY, SHAPE, convention="thop")


def test_what_is_kept_is_shipped_as_the_same_bytes(builds, tmp_path, monkeypatch):
    folder = tmp_path / "shipped"
    monkeypatch.setattr(kept_data, "package_data", lambda kind: folder)
    first = graph_of(TINY, SHAPE)
    kept_data.ship_own(folder)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    kept_data.ship_own(folder)
    assert path.read_bytes() == whole
    ((request, data),) = kept_data.shipped()
    assert request == json.loads(json.dumps(graph_request(TINY, SHAPE)))
    assert BlockGraph.from_dict(data) == first
    monkeypatch.setenv("HGC_VIDEO_HOME", str(tmp_path / "empty"))
    assert graph_of(TINY, SHAPE) == first
    assert len(builds) == 1 and not (tmp_path / "empty").exists()


def test_shipped_data_of_another_diffusers_is_not_used(builds, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_data, "package_data", lambda kind: tmp_path / "shipped")
    graph_of(TINY, SHAPE)
    kept_data.ship_own(tmp_path / "shipped")
    assert len(kept_data.shipped()) == 1
    monkeypatch.setattr(kept_data.metadata, "version", lambda name: "0.99.1")
    assert not kept_data.shipped()
    graph_of(TINY, SHAPE)
    assert len(builds) == 2, "what is kept was made by another diffusers too"
