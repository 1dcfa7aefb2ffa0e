"""The remaining life in an answer: from the production model alone, and only with a trend."""

from __future__ import annotations

import numpy as np
import pytest

from aegisops import scoring
from aegisops.settings import Settings
from serving.contract import Prediction
from tests.serving.conftest import (
    SOUND,
    WORN,
    Fleet,
    promote,
    running,
    vector_of,
    write_bundle,
)

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


async def test_a_worn_machine_is_told_how_long_it_has_left_and_a_sound_one_nothing(
    settings: Settings, fleet: Fleet
) -> None:
    folder = write_bundle(settings, life=True)
    promote(settings, "1")
    vector = vector_of(WORN)[np.newaxis]
    wanted = scoring.score(scoring.load_bundle(folder), vector).remaining_life
    assert wanted is not None
    async with running(settings) as api:
        fleet.add("worn", WORN)
        fleet.add("sound", SOUND)
        worn = Prediction.model_validate_json((await api.predict("worn")).content)
        sound = Prediction.model_validate_json((await api.predict("sound")).content)
    assert worn.remaining_life is not None
    assert worn.remaining_life.hours == pytest.approx(wanted.median[0], abs=0.005)
    assert worn.remaining_life.low < worn.remaining_life.hours < worn.remaining_life.high
    assert worn.remaining_life.coverage == 0.9
    assert sound.remaining_life is None


async def test_only_a_model_of_the_remaining_life_speaks_of_it(api, fleet: Fleet) -> None:
    fleet.add("worn", WORN)
    assert (await api.predict("worn")).json()["remaining_life"] is None
