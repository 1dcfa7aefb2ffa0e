"""Asset keys and how declared tables look in the Dagster UI."""

from __future__ import annotations

import dagster as dg
import pyarrow as pa
from deltalake import DeltaTable

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


def size_metadata(handle: DeltaTable) -> dict[str, dg.MetadataValue | int]:
    """Version, rows, files and bytes of a snapshot, from its log alone."""
    import pyarrow.compute as pc

    added = pa.table(handle.get_add_actions(flatten=True))

    def total(column: str) -> int:
        return pc.sum(added.column(column)).as_py() or 0 if added.num_rows else 0

    return {
        "delta_version": handle.version(),
        "dagster/row_count": total("num_records"),
        "files": added.num_rows,
        "bytes": total("size_bytes"),
        "place": dg.MetadataValue.path(handle.table_uri),
    }


def _type_name(kind: pa.DataType) -> str:
    return str(kind)
