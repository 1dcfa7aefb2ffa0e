from __future__ import annotations

import copy
import math
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from aegisops import audit_chain
from aegisops.audit_chain import digest, genesis, verify
from aegisops.lake import Lake
from aegisops.schemas.tables import PREDICTIONS


def chain(length: int, instance: str = "api-1") -> list[dict[str, Any]]:
    records, previous = [], genesis(instance)
    for i in range(length):
        record: dict[str, Any] = {
            "prediction_id": f"{instance}-{i}",
            "machine_id": "m",
            "asked_at": 1_700_000_000_123_456 + i,
            "subject": "line-3",
            "served_by": "production",
            "probability": i / 7,
            "risk": "normal",
            "failure_mode": None,
            "model_version": "1",
            "model_digest": "ab",
            "feature_set": "cnc_spindle@1",
            "features_at": None if i % 2 else 1_700_000_000_000_000,
            "vector": [1.5, math.nan, -0.0, 1e-300],
            "source": "cache",
            "latency_us": 900,
            "instance": instance,
            "chain_seq": i,
            "previous_digest": previous,
        }
        previous = record["digest"] = digest(record, previous)
        records.append(record)
    return records


def test_whole_chains_of_several_instances_hold_in_any_order() -> None:
    records = chain(5) + chain(3, "api-2")
    assert verify(reversed(records)) == []


@pytest.mark.parametrize("field", audit_chain.FIELDS)
def test_any_altered_field_shows(field: str) -> None:
    records = chain(5)
    value = records[2][field]
    records[2][field] = {
        str: lambda: f"{value}!",
        int: lambda: value + 1,
        float: lambda: math.nextafter(value, 1),
        list: lambda: [*value[:-1], value[-1] + 1],
        type(None): lambda: "bearing_wear",
    }[type(value)]()
    assert verify(records)


def test_an_altered_record_with_a_new_digest_of_its_own_shows_at_its_successor() -> None:
    records = chain(5)
    records[2]["probability"] = 0.001
    records[2]["digest"] = digest(records[2], records[2]["previous_digest"])
    assert [f.chain_seq for f in verify(records)] == [3]


def test_a_removed_record_shows() -> None:
    records = chain(5)
    del records[2]
    (fault,) = verify(records)
    assert (fault.chain_seq, fault.problem) == (3, "records 2–2 are missing")


def test_a_cut_off_beginning_shows_unless_only_a_stretch_is_checked() -> None:
    records = chain(5)[2:]
    assert verify(records)
    assert verify(records, from_start=False) == []


def test_exchanged_records_show() -> None:
    records = chain(5)
    records[1]["chain_seq"], records[3]["chain_seq"] = 3, 1
    assert verify(records)


def test_a_second_record_of_one_number_shows() -> None:
    records = chain(3)
    twin = copy.deepcopy(records[1])
    twin["machine_id"] = "other"
    twin["digest"] = digest(twin, twin["previous_digest"])
    assert verify([*records, twin])


def test_a_record_delivered_twice_is_no_fault() -> None:
    records = chain(3)
    assert verify([*records, copy.deepcopy(records[1])]) == []


def test_a_second_delivery_with_other_content_shows() -> None:
    records = chain(3)
    twin = copy.deepcopy(records[1])
    twin["probability"] = 0.5
    assert verify([*records, twin])
    assert verify([*records[:1], twin, *records[1:]])


def test_fields_cannot_borrow_from_each_other() -> None:
    one, other = chain(1)[0], chain(1)[0]
    one["machine_id"], one["subject"] = "ab", "c"
    other["machine_id"], other["subject"] = "a", "bc"
    assert digest(one, "") != digest(other, "")


def test_the_chain_holds_after_a_way_through_delta(tmp_path: Any) -> None:
    lake = Lake(tmp_path)
    source = {"_topic": "t", "_partition": 0, "_index": 0, "_ingested_at": datetime.now(UTC)}
    rows = [r | source | {"_offset": i} for i, r in enumerate(chain(4))]
    frame = pl.DataFrame(rows).with_columns(
        pl.col("asked_at", "features_at").cast(pl.Datetime("us", "UTC"))
    )
    lake.append(PREDICTIONS, frame)
    stored = lake.scan(PREDICTIONS).collect().to_dicts()
    assert len(stored) == 4
    assert verify(stored) == []
