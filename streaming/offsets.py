"""Kafka offsets inside Delta commits: how they are named, and what they say is settled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deltalake.exceptions import TableNotFoundError

from aegisops.lake import Lake
from aegisops.schemas.tables import Table
from streaming.buffers import TopicPartition
from streaming.routes import ROUTES

NOTHING = -1


def app_id(table: Table, topic: str, incarnation: str, partition: int) -> str:
    """Name of a partition's stored offset in a table's log.

    Without the incarnation (cluster and topic id) a recreated topic, which starts at offset 0
    again, would be discarded as already written.
    """
    return f"{table.name}/{incarnation}/{topic}/{partition}"


def topic_label(topic: str, incarnation: str) -> str:
    """`_topic` of rows: offsets are unique only within one incarnation of a topic."""
    return f"{topic}@{incarnation}"


def settled(
    lake: Lake, incarnations: Mapping[str, str], partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """Last offset of each partition that is in every table of its route; -1 = none."""
    by_topic: dict[str, list[int]] = {}
    for topic, partition in partitions:
        by_topic.setdefault(topic, []).append(partition)
    offsets: dict[TopicPartition, int] = {}
    for topic, wanted in by_topic.items():
        table = ROUTES[topic].closing
        try:
            handle = lake.open(table)
        except TableNotFoundError:
            offsets |= {(topic, partition): NOTHING for partition in wanted}
            continue
        for partition in wanted:
            version = handle.transaction_version(
                app_id(table, topic, incarnations[topic], partition)
            )
            offsets[topic, partition] = NOTHING if version is None else version
    return offsets
