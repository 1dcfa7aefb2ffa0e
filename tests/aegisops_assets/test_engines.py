"""Threads or a Dask cluster: the same tables."""

import pytest

from aegisops.engine import DaskEngine
from aegisops.schemas.tables import FEATURES, TILES
from aegisops_assets.steps import features, tiles
from tests.aegisops_assets.conftest import fill, make_platform

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def dask():
    engine = DaskEngine(workers=2)
    yield engine
    engine.close()


def test_two_dask_workers_write_the_same_tiles_and_features_as_threads(tmp_path, dask, monkeypatch):
    # Several jobs a step, so that both workers have work.
    monkeypatch.setattr(tiles, "VALUES_AT_ONCE", 4_000)
    monkeypatch.setattr(features, "MACHINES_AT_ONCE", 2)
    made = []
    for name in ("threads", "workers"):
        platform = make_platform(tmp_path / name)
        if name == "workers":
            platform = platform.with_engine(dask)
        fill(platform.lake)
        tiles.build(platform)
        features.build(platform)
        made.append([platform.lake.scan(t).collect().sort(t.keys) for t in (TILES, FEATURES)])
    for by_threads, by_workers in zip(*made, strict=True):
        assert by_threads.height
        assert by_threads.equals(by_workers, null_equal=True)
