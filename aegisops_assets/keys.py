"""Asset keys and how declared tables look in the Dagster UI."""

from __future__ import annotations

import dagster as dg
import pyarrow as pa

from aegisops.schemas.tables import Table

OWNERS = ["team:data"]


def key(name: str) -> dg.AssetKey:
    """Asset key of a name such as `silver/tiles`: the table's folder is its key."""
    return dg.AssetKey(name.split("/"))


def column_schema(table: Table) -> dg.TableSchema:
    """The declared columns, for the asset's page."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name,
                _type_name(column.type),
                description=column.doc,
                constraints=dg.TableColumnConstraints(
                    nullable=column.nullable, unique=table.keys == (name,)
                ),
            )
            for name, column in table.columns.items()
        ]
    )


def table_metadata(table: Table) -> dict[str, dg.MetadataValue]:
    """What a table's asset always says about itself."""
    return {
        "dagster/column_schema": dg.MetadataValue.table_schema(column_schema(table)),
        "keys": dg.MetadataValue.text(", ".join(table.keys)),
    }


def _type_name(kind: pa.DataType) -> str:
    return str(kind)
