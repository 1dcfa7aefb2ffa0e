import datetime as dt
import hashlib
from pathlib import Path

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from aegisops.errors import ConfigurationError
from aegisops.importers import register
from aegisops.lake import Lake, conform
from aegisops.machines import shipped_classes
from aegisops.project_files import SQL_VIEWS
from aegisops.schemas import tables
from aegisops.schemas.tables import TABLES
from aegisops.warehouse import Warehouse

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
NOW_US = 1_772_323_200_000_000
CLASS = shipped_classes()["azure_pdm"]
VIEWS = sorted(path.stem for path in SQL_VIEWS.glob("*.sql"))
QUERIES = sorted((SQL_VIEWS.parent / "queries").glob("*.sql"))


def source(offset=0, **values):
    return {
        "_topic": "aegis.v1@x", "_partition": 0, "_offset": offset, "_index": 0,
        "_ingested_at": START + HOUR * offset,
    } | values  # fmt: skip


def readings(machine, hours, channel="volt", quality=0, first_offset=0):
    return pl.DataFrame(
        [
            source(first_offset + i, machine_id=machine, channel=channel, ts=START + HOUR * i,
                   value=None if quality == 2 else 170.0 + i, quality=quality, seq=i)
            for i in range(hours)
        ],
        schema_overrides={"value": pl.Float64},
    )  # fmt: skip


def prediction(number, machine, probability, risk, before):
    digest = hashlib.sha256(f"{number}".encode()).hexdigest()
    return source(
        number, prediction_id=f"p{number}", machine_id=machine, asked_at=START + HOUR * number,
        subject="operator-7", served_by="production" if probability is not None else "abstained",
        probability=probability, risk=risk, failure_mode="comp2" if risk == "high" else None,
        model_version="3", model_digest="ab", feature_set=CLASS.feature_set, features_at=START,
        vector=[1.0], source="cache", latency_us=1500, instance="api-1", chain_seq=number,
        previous_digest=before, digest=digest,
    )  # fmt: skip


@pytest.fixture
def lake(tmp_path):
    """Two machines with readings, one failure, three answers, features and labels."""
    # A space, a quote and a percent sign: people have such folders.
    lake = Lake(tmp_path / "it's 100% lake")
    machines = pl.DataFrame(
        [
            {"machine_id": m, "machine_class": "azure_pdm", "site": "s", "area": "", "attributes":
             '{"age": 3}'}
            for m in ("m1", "m2")
        ]
    )  # fmt: skip
    lake.append(
        tables.MACHINES,
        machines.with_columns(registered_at=pl.lit(START)),
    )
    lake.append(tables.READINGS, readings("m1", 30))
    lake.append(tables.READINGS, readings("m2", 10, quality=2, first_offset=30))
    lake.append(
        tables.EVENTS,
        pl.DataFrame(
            [
                source(0, machine_id="m1", ts=START, type="maintenance", code="comp1", detail=""),
                source(1, machine_id="m1", ts=START + 29 * HOUR, type="failure", code="comp2",
                       detail=""),
            ]
        ),
    )  # fmt: skip
    first = prediction(0, "m1", 0.2, "normal", "genesis")
    second = prediction(1, "m1", 0.9, "high", first["digest"])
    third = prediction(2, "m2", None, "unknown", "tampered")
    lake.append(tables.PREDICTIONS, pl.DataFrame([first, second, third]))
    lake.append(
        tables.FEEDBACK,
        pl.DataFrame(
            [source(0, feedback_id="f", prediction_id="p1", machine_id="m1", ts=START,
                    outcome="confirmed", failure_mode="comp2", subject="planner-1")]
        ),
    )  # fmt: skip
    vector = [float(i) for i in range(len(CLASS.vector))]
    vector[1] = float("nan")
    lake.append(
        tables.FEATURES,
        pl.DataFrame(
            [{"machine_id": "m1", "machine_class": "azure_pdm", "feature_set": CLASS.feature_set,
              "ts": START + HOUR, "vector": vector, "coverage": 0.75}]
        ),
    )  # fmt: skip
    lake.append(
        tables.LABELS,
        pl.DataFrame(
            [
                {"machine_id": "m1", "machine_class": "azure_pdm", "ts": START + HOUR * i,
                 "horizon_us": 86_400_000_000, "label": label, "failure_modes": modes,
                 "hours_to_failure": None, "hours_followed": 24.0, "provenance": why}
                for i, (label, modes, why) in enumerate(
                    [(1, ["comp2"], "failure"), (0, [], "survived"), (0, [], "survived"),
                     (None, [], "end_of_data")]
                )
            ],
            schema_overrides={"label": pl.Int8, "failure_modes": pl.List(pl.String),
                              "hours_to_failure": pl.Float64},
        ),
    )  # fmt: skip
    lake.append(
        tables.DEAD_LETTERS,
        pl.DataFrame(
            [
                source(i, reason="out_of_range", detail=f"d{i}", machine_id="m1", channel="volt",
                       ts=1, schema_id=1, raw=b"x")
                for i in (7, 8)
            ]
        ),
    )  # fmt: skip
    return lake


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_answers_on_an_empty_lake_with_typed_columns(tmp_path, view):
    rows = Warehouse(tmp_path / "nothing").run(f"SELECT * FROM {view}")
    assert rows.height == 0
    assert rows.columns


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_has_its_declared_columns_whether_it_exists_or_not(lake, tmp_path, name):
    view = name.replace("/", ".")
    there = Warehouse(lake.root).run(f"SELECT * FROM {view}")
    absent = Warehouse(tmp_path / "nothing").run(f"SELECT * FROM {view}")
    assert there.schema == absent.schema
    assert there.columns == list(TABLES[name].columns)
    empty = pl.from_arrow(TABLES[name].schema.empty_table())
    assert there.schema == empty.schema


@pytest.mark.parametrize("query", QUERIES, ids=lambda path: path.stem)
def test_every_example_query_runs_on_the_views(lake, query):
    assert query.read_text().startswith("-- ")
    assert Warehouse(lake.root).run(query.read_text()).columns


def test_every_view_file_says_its_grain_and_every_column(lake):
    warehouse = Warehouse(lake.root)
    for view in VIEWS:
        header = (SQL_VIEWS / f"{view}.sql").read_text().partition("CREATE")[0]
        assert f"-- {view}: " in header
        assert "-- Grain: " in header
        for column in warehouse.run(f"SELECT * FROM {view}").columns:
            assert column in header, f"{view}.sql does not explain {column}"


def test_the_riskiest_machine_comes_first_with_what_to_do(lake):
    rows = Warehouse(lake.root).run("SELECT * FROM risk_ranking").to_dicts()
    assert [(r["position"], r["machine_id"], r["risk"]) for r in rows] == [
        (1, "m1", "high"),
        (2, "m2", "unknown"),
    ]
    assert rows[0]["action"] == CLASS.failure_modes["comp2"].action


def test_machine_health_has_one_row_per_machine(lake):
    rows = Warehouse(lake.root).run("SELECT * FROM machine_health ORDER BY machine_id").to_dicts()
    first, second = rows
    assert (first["machine_id"], first["failures"], first["maintenances"]) == ("m1", 1, 1)
    assert first["last_reading_at"] == START + 29 * HOUR
    assert (first["channels_seen"], first["channels_declared"]) == (1, 4)
    assert (first["good_share"], second["good_share"]) == (1.0, 0.0)
    assert first["last_failure_code"] == "comp2"
    assert first["coverage"] == 0.75
    assert (first["probability"], second["probability"]) == (0.9, None)


def test_sensor_quality_counts_a_day(lake):
    rows = Warehouse(lake.root).run("SELECT * FROM sensor_quality ORDER BY machine_id, date")
    first, _, bad = rows.to_dicts()
    assert (first["readings"], first["good"], first["expected"]) == (24, 24, 24)
    assert first["received_share"] == 1.0
    assert first["longest_gap_s"] == 3600
    assert (first["lowest"], first["highest"], first["unit"]) == (170, 193, "V")
    assert (bad["bad"], bad["good_share"], bad["lowest"]) == (10, 0.0, None)


def test_feature_history_names_every_value_and_keeps_missing_ones_null(lake):
    rows = Warehouse(lake.root).run("SELECT * FROM feature_history ORDER BY value NULLS LAST")
    assert rows.height == len(CLASS.vector)
    assert rows["feature"][0] == CLASS.vector[0]
    assert rows.filter(pl.col("value").is_null())["feature"].to_list() == [CLASS.vector[1]]
    assert rows.filter(feature="age")["unit"].item() == "years"


def test_label_balance_adds_up(lake):
    rows = Warehouse(lake.root).run("SELECT * FROM label_balance ORDER BY provenance")
    assert rows.select("provenance", "label", "label_rows").rows() == [
        ("end_of_data", None, 1),
        ("failure", 1, 1),
        ("survived", 0, 2),
    ]
    assert rows["share"].sum() == 1.0


def test_the_audit_trail_shows_a_broken_chain_and_what_became_of_the_answer(lake):
    rows = Warehouse(lake.root).run("SELECT * FROM audit_trail ORDER BY chain_seq").to_dicts()
    assert [row["is_chained"] for row in rows] == [True, True, False]
    assert [row["outcome"] for row in rows] == [None, "confirmed", None]
    assert rows[0]["latency_ms"] == 1.5


def test_the_shadow_comparison_pairs_both_scores_of_a_prediction_once(lake):
    scores = [
        source(i, prediction_id=p, machine_id="m", scored_at=START + HOUR, model_version="4",
               digest=digest, probability=probability)
        for i, (p, digest, probability) in enumerate(
            [("p1", "cd", 0.7), ("p1", "cd", 0.7), ("p1", "ef", 0.1), ("p2", "cd", 0.4),
             ("lost", "cd", 0.5)]
        )
    ]  # fmt: skip
    lake.append(tables.SHADOW_SCORES, pl.DataFrame(scores))
    rows = Warehouse(lake.root).run(
        "SELECT prediction_id, probability, shadow_digest, shadow_probability, "
        "round(difference, 9), outcome FROM shadow_comparison ORDER BY ALL"
    )
    assert rows.rows() == [
        ("p1", 0.9, "cd", 0.7, -0.2, "confirmed"),
        ("p1", 0.9, "ef", 0.1, -0.8, "confirmed"),
        ("p2", None, "cd", 0.4, None, None),
    ]


def test_delivery_check_finds_a_row_written_twice(lake):
    check = "SELECT * FROM delivery_check WHERE duplicates > 0"
    assert Warehouse(lake.root).run(check).height == 0
    lake.append(tables.READINGS, readings("m1", 2))
    (row,) = Warehouse(lake.root).run(check).to_dicts()
    assert (row["table_name"], row["duplicates"], row["source_rows"]) == ("bronze/readings", 2, 42)


def test_dead_letters_are_summed_up_by_reason(lake):
    (row,) = Warehouse(lake.root).run("SELECT * FROM dead_letter_summary").to_dicts()
    assert (row["reason"], row["letters"], row["last_detail"]) == ("out_of_range", 2, "d8")


def test_the_newest_registration_wins(lake):
    moved = pl.DataFrame(
        {"machine_id": "m1", "machine_class": "azure_pdm", "site": "new", "area": "",
         "attributes": "{}"}
    )  # fmt: skip
    register(lake, moved, NOW_US + 3_600_000_000)
    rows = Warehouse(lake.root).run("SELECT machine_id, site FROM fleet ORDER BY machine_id")
    assert rows.rows() == [("m1", "new"), ("m2", "s")]


def test_a_pinned_version_gives_the_same_rows_for_ever(lake):
    warehouse = Warehouse(lake.root)
    pinned = warehouse.versions()
    query = "SELECT count(*) FROM bronze.readings"
    lake.append(tables.READINGS, readings("m3", 5, first_offset=90))
    assert warehouse.run(query).item() == 45
    assert warehouse.run(query, pinned).item() == 40
    assert warehouse.run(query, {"bronze/readings": 1}).item() == 30


@pytest.mark.parametrize(
    ("pins", "word"),
    [
        ({"bronze/reading": 1}, "no table 'bronze/reading'"),
        ({"bronze/readings": 99}, "latest is 2"),
        ({"ml/training_set": 0}, "not there"),
    ],
)
def test_an_impossible_pin_is_refused(lake, pins, word):
    with pytest.raises(ConfigurationError, match=word):
        Warehouse(lake.root).connect(pins)


def test_wrong_sql_is_our_error_with_the_databases_words(lake):
    with pytest.raises(ConfigurationError, match=r"Candidate bindings|not found"):
        Warehouse(lake.root).run("SELECT nothing FROM fleet")


def test_times_are_utc_and_the_partition_column_has_its_declared_type(lake):
    rows = Warehouse(lake.root).run(
        "SELECT date, typeof(date) AS kind, ts, current_setting('TimeZone') AS zone "
        "FROM bronze.readings WHERE date = DATE '2026-03-02' ORDER BY ts LIMIT 1"
    )
    assert rows.rows() == [
        (dt.date(2026, 3, 2), "DATE", START + 24 * HOUR, "UTC"),
    ]


def test_a_partition_value_that_looks_like_a_number_stays_text(tmp_path):
    lake = Lake(tmp_path)
    rows = pl.DataFrame(
        {"machine_id": "m", "machine_class": "007", "ts": START, "horizon_us": 1, "label": 0,
         "failure_modes": [[]], "hours_to_failure": None, "hours_followed": 1.0,
         "provenance": "survived"},
        schema_overrides={"failure_modes": pl.List(pl.String), "hours_to_failure": pl.Float64},
    )  # fmt: skip
    lake.append(tables.LABELS, rows)
    found = Warehouse(tmp_path).run("SELECT machine_class FROM gold.labels")
    assert found.item() == "007"


def test_a_snapshot_with_deletion_vectors_is_read_without_its_deleted_rows(tmp_path):
    lake = Lake(tmp_path)
    write_deltalake(
        lake.uri(tables.EVENTS),
        conform(tables.EVENTS, pl.DataFrame(
            [source(i, machine_id="m", ts=START, type="error", code=str(i), detail="")
             for i in range(3)]
        )),
        configuration={"delta.enableDeletionVectors": "true"},
    )  # fmt: skip
    DeltaTable(lake.uri(tables.EVENTS)).delete("code = '1'")
    assert "deletionVectors" in lake.open(tables.EVENTS).protocol().reader_features
    found = Warehouse(tmp_path).run("SELECT code FROM bronze.events ORDER BY code")
    assert found["code"].to_list() == ["0", "2"]
    with pytest.raises(ConfigurationError, match="bronze/events"):
        Warehouse(tmp_path).script()


def test_the_script_makes_the_same_views_in_any_duckdb(lake, tmp_path):
    file = tmp_path / "warehouse.sql"
    file.write_text(Warehouse(lake.root).script())
    with duckdb.connect() as plain:
        plain.execute(file.read_text())
        for view in VIEWS:
            ours = Warehouse(lake.root).run(f"SELECT * FROM {view} ORDER BY ALL")
            assert plain.sql(f"SELECT * FROM {view} ORDER BY ALL").pl().equals(ours)


def test_a_view_file_must_make_the_view_it_is_named_after(tmp_path):
    views = tmp_path / "views"
    views.mkdir()
    (views / "alarms.sql").write_text("CREATE OR REPLACE VIEW alarm AS SELECT 1")
    with pytest.raises(ConfigurationError, match=r"alarms\.sql"):
        Warehouse(tmp_path, views=views).connect()
    (views / "alarms.sql").write_text("CREATE OR REPLACE VIEW alarms AS SELECT nothing FROM fleet")
    with pytest.raises(ConfigurationError, match=r"alarms\.sql"):
        Warehouse(tmp_path, views=views).connect()


def test_views_may_read_from_views_of_any_name(tmp_path):
    views = Path(tmp_path / "views")
    views.mkdir()
    (views / "a.sql").write_text("CREATE OR REPLACE VIEW a AS SELECT * FROM b")
    (views / "b.sql").write_text("CREATE OR REPLACE VIEW b AS SELECT 1 AS x")
    assert Warehouse(tmp_path, views=views).run("SELECT x FROM a").item() == 1
