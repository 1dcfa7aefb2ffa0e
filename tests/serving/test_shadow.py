"""A shadow model scores what is answered and changes nothing about the answers."""

from __future__ import annotations

import io
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest

from aegisops import scoring
from aegisops.names import SHADOW_SCORES_TOPIC
from aegisops.schemas import avro
from aegisops.scoring import bundle_digest
from aegisops.settings import ApiSettings, Settings
from serving.model_slot import Loaded
from serving.outbox import Outbox
from serving.shadow import Scored, ShadowScorer
from serving.wire import body_encoder
from tests.serving.conftest import (
    SOUND,
    SPINDLE,
    WORN,
    Fleet,
    Recorder,
    Running,
    promote,
    running,
    write_bundle,
)

NAME = SPINDLE.name


class Counts(Counter[str]):
    """Stands for the metrics."""

    def scored(self, machine_class: str, n: int) -> None:
        self["scored"] += n

    def dropped(self, machine_class: str, n: int) -> None:
        self["dropped"] += n

    def failed(self, machine_class: str, n: int) -> None:
        self["failed"] += n


def shadow(settings: Settings, version: str = "2") -> Path:
    """A signed bundle that the shadow pointer names."""
    folder = write_bundle(settings, version=version)
    promote(settings, version)
    base = settings.bundles_dir / NAME
    (base / "production.json").replace(base / "shadow.json")
    return folder


def scores_of(recorder: Recorder) -> list[dict[str, Any]]:
    schema = avro.contract(SHADOW_SCORES_TOPIC).schema
    return [
        fastavro.schemaless_reader(io.BytesIO(value), schema, None)
        for topic, _, value in recorder.sent
        if topic == SHADOW_SCORES_TOPIC
    ]


def metric(api: Running, ended: str) -> float:
    name = f"aegis_serving_shadow_{ended}_total"
    found = api.service.metrics.registry.get_sample_value(name, {"machine_class": NAME})
    return found or 0.0


@pytest.mark.anyio
@pytest.mark.integration
class TestInTheApi:
    async def test_the_shadow_scores_the_answered_vector_and_both_scores_are_logged(
        self, settings: Settings, fleet: Fleet
    ) -> None:
        folder = shadow(settings)
        write_bundle(settings, version="1")
        promote(settings, "1")
        fleet.add("m", WORN)
        async with running(settings) as api:
            answer = (await api.predict("m")).json()
            await api.until(lambda: bool(scores_of(api.recorder)))
            status = (await api.client.get("/api/v1/system/status")).json()
        (score,) = scores_of(api.recorder)
        assert answer["model"]["version"] == "1"
        assert (score["prediction_id"], score["machine_id"]) == (answer["prediction_id"], "m")
        assert (score["model_version"], score["digest"]) == ("2", bundle_digest(folder))
        vector = np.zeros((1, len(SPINDLE.vector)))
        vector[0, SPINDLE.vector.index("vibration_rms_1h")] = WORN
        expected = scoring.probabilities(scoring.load_bundle(folder), vector)[0]
        assert score["probability"] == expected != answer["probability"]
        assert metric(api, "scored") == 1
        shown = next(m for m in status["models"] if m["machine_class"] == NAME)
        assert shown["shadow"]["version"] == "2"

    async def test_without_a_pointer_nothing_is_scored(self, api: Running, fleet: Fleet) -> None:
        fleet.add("m", SOUND)
        assert (await api.predict("m")).status_code == 200
        assert api.service.shadow.idle
        assert not api.service.shadow.wants(NAME)

    async def test_an_abstention_has_nothing_to_compare(
        self, settings: Settings, promoted: Path, fleet: Fleet
    ) -> None:
        shadow(settings)
        promote(settings, "1")
        fleet.add("m", SOUND, coverage=0.0)
        fleet.add("n", SOUND)
        async with running(settings) as api:
            assert (await api.predict("m")).json()["served_by"] == "abstained"
            assert (await api.predict("n")).json()["served_by"] == "production"
            await api.until(lambda: bool(scores_of(api.recorder)))
        assert [score["machine_id"] for score in scores_of(api.recorder)] == ["n"]

    async def test_an_altered_shadow_is_refused_and_the_answers_go_on(
        self, settings: Settings, promoted: Path, fleet: Fleet
    ) -> None:
        folder = shadow(settings)
        promote(settings, "1")
        (folder / "extra.py").write_text("print()")
        fleet.add("m", SOUND)
        async with running(settings) as api:
            assert (await api.predict("m")).json()["served_by"] == "production"
            _, refusal = api.service.shadow_slots.status()[NAME]
        assert refusal is not None
        assert scores_of(api.recorder) == []

    async def test_a_shadow_that_raises_changes_no_answer(
        self, settings: Settings, promoted: Path, fleet: Fleet
    ) -> None:
        shadow(settings)
        promote(settings, "1")
        fleet.add("m", WORN)

        def broken(*_: object) -> Any:
            raise ArithmeticError("broken shadow")

        async with running(settings) as api:
            before = (await api.predict("m")).json()["probability"]
            await api.until(lambda: metric(api, "scored") == 1)
            api.service.shadow._probabilities = broken
            for _ in range(3):
                answer = (await api.predict("m")).json()
                assert (answer["served_by"], answer["probability"]) == ("production", before)
            await api.until(lambda: metric(api, "failed") == 3)
            assert api.service.healthy

    async def test_a_shadow_that_hangs_delays_no_answer(
        self, settings: Settings, promoted: Path, fleet: Fleet
    ) -> None:
        shadow(settings)
        promote(settings, "1")
        fleet.add("m", WORN)
        small = settings.model_copy(
            update={"api": ApiSettings(model_poll_seconds=0.02, shadow_queue=3)}
        )
        awake, began = threading.Event(), threading.Event()

        def hanging(bundle: scoring.Bundle, vectors: Any) -> Any:
            began.set()
            awake.wait()
            return scoring.probabilities(bundle, vectors)

        async with running(small) as api:
            api.service.shadow._probabilities = hanging
            await api.predict("m")
            await api.until(began.is_set)
            answers = [(await api.predict("m")).json() for _ in range(8)]
            # All were answered while the one shadow call was still held.
            assert {a["served_by"] for a in answers} == {"production"}
            assert metric(api, "scored") == 0
            assert metric(api, "dropped") == 5
            awake.set()
            await api.until(lambda: metric(api, "scored") >= 3)


@pytest.fixture
def counts() -> Counts:
    return Counts()


def scorer(
    tmp_path: Path, counts: Counts, *, queue: int = 5, capacity: int = 100
) -> tuple[ShadowScorer, Outbox, Loaded]:
    settings = Settings(data_dir=tmp_path)
    folder = write_bundle(settings)
    bundle = scoring.load_bundle(folder)
    loaded = Loaded(bundle, "1", bundle.digest, None)  # type: ignore[arg-type]
    outbox = Outbox(tmp_path / "outbox", Recorder(), capacity)
    made = ShadowScorer(
        lambda name: loaded if name == NAME else None,
        outbox,
        body_encoder(SHADOW_SCORES_TOPIC),
        clock=lambda: 1.0,
        counted=counts,
        queue=queue,
        outbox_capacity=capacity,
    )
    return made, outbox, loaded


def vectors(n: int, feature_set: str = SPINDLE.feature_set) -> list[Scored]:
    return [
        Scored(f"p{i}", "m", NAME, feature_set, np.zeros(len(SPINDLE.vector))) for i in range(n)
    ]


def test_what_finds_no_room_is_dropped_and_counted(tmp_path: Path, counts: Counts) -> None:
    made, outbox, _ = scorer(tmp_path, counts)
    made.offer(vectors(8))  # the worker does not run yet
    assert counts == Counts({"dropped": 3})
    made.start()
    while counts["scored"] < 5:
        made._thread.join(0.005)
    made.stop()
    assert outbox.depth == 5
    outbox.close()


def test_the_shadow_leaves_the_outbox_to_the_answers(tmp_path: Path, counts: Counts) -> None:
    made, outbox, _ = scorer(tmp_path, counts, capacity=8)
    made._score(NAME, vectors(5))
    made.hand_over()
    assert (outbox.depth, counts["dropped"]) == (0, 5)
    made._score(NAME, vectors(4))
    made.hand_over()
    assert (outbox.depth, counts["dropped"]) == (4, 5)
    outbox.close()


def test_a_vector_of_another_feature_set_is_never_scored(tmp_path: Path, counts: Counts) -> None:
    made, outbox, _ = scorer(tmp_path, counts)
    made._score(NAME, vectors(2, "cnc_spindle@other"))
    made.hand_over()
    assert counts == Counts({"failed": 2})
    assert outbox.depth == 0
    outbox.close()


def test_a_vector_without_a_number_fails_alone(tmp_path: Path, counts: Counts) -> None:
    made, outbox, _ = scorer(tmp_path, counts)
    made._probabilities = lambda *_: np.array([0.5, np.nan, 0.25])
    made._score(NAME, vectors(3))
    made.hand_over()
    assert counts == Counts({"scored": 2, "failed": 1})
    assert outbox.depth == 2
    outbox.close()
