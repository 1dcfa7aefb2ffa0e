import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import yaml

from aegisops import names
from aegisops.schemas.tables import TABLES
from aegisops_assets.definitions import defs

ROOT = Path(__file__).parents[2]


def test_the_graph_reads_from_bronze_to_production():
    graph = defs.resolve_asset_graph()
    for upstream, downstream in [
        (names.BRONZE_READINGS, names.SILVER_TILES),
        (names.SILVER_TILES, names.GOLD_FEATURES),
        (names.GOLD_FEATURES, names.GOLD_LABELS),
        (names.GOLD_LABELS, names.ML_TRAINING_SET),
        (names.ML_TRAINING_SET, names.ML_FAILURE_MODEL),
        (names.ML_TRAINING_SET, names.ML_ANOMALY_MODEL),
        (names.ML_ANOMALY_MODEL, names.ML_FAILURE_MODEL),
        (names.ML_ANOMALY_MODEL, names.ML_VALIDATION),
        (names.ML_FAILURE_MODEL, names.ML_VALIDATION),
        (names.ML_VALIDATION, names.ML_SHADOW),
        (names.ML_SHADOW, names.ML_PRODUCTION),
    ]:
        parents = graph.get(dg.AssetKey(downstream.split("/"))).parent_keys
        assert dg.AssetKey(upstream.split("/")) in parents


def test_every_asset_says_what_it_is_who_owns_it_and_of_which_kind():
    for spec in defs.resolve_all_asset_specs():
        assert spec.description
        assert spec.owners
        assert spec.kinds
        assert spec.group_name in {"bronze", "silver", "gold", "ml", "ops"}


def test_table_assets_show_the_declared_columns():
    for spec in defs.resolve_all_asset_specs():
        table = TABLES.get("/".join(spec.key.path))
        if table is not None:
            shown = spec.metadata["dagster/column_schema"].value
            assert [c.name for c in shown.columns] == list(table.columns)


def test_layers_are_separated_by_blocking_checks():
    graph = defs.resolve_asset_graph()
    blocking = {key.asset_key for key in graph.asset_check_keys if graph.get(key).blocking}
    for name in (
        "silver/tiles",
        "gold/features",
        "gold/labels",
        "ml/training_set",
        "ml/validation",
    ):
        assert dg.AssetKey(name.split("/")) in blocking


def test_the_workspace_names_this_code_location():
    location = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"][0][
        "python_module"
    ]
    assert location["module_name"] == "aegisops_assets.definitions"
    assert find_spec(location["module_name"]) is not None
    # Either block would silently win over workspace.yaml.
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert not {"dagster", "dg"} & set(tools)


def test_no_top_level_name_shadows_a_library():
    own = {"aegisops", "aegisops_assets", "streaming", "serving", "setup"}
    found = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert found <= own


def test_loading_the_definitions_imports_no_heavy_library():
    code = (
        "import sys; import aegisops_assets.definitions; "
        "print(sorted({'mlflow', 'shap', 'evidently', 'xgboost', 'sklearn', 'matplotlib'} "
        "& set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"
