"""Which topic a topic is beyond its name: cluster and topic id; offsets count within those."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from aegisops import bus
from aegisops.errors import ConfigurationError, Permanent, ServiceUnavailable
from aegisops.settings import KafkaSettings

TIMEOUT_SECONDS = 10.0


class TopicRecreated(Permanent):
    """A topic was deleted and made again under a running application; its restart reads the new."""


def incarnations(kafka: KafkaSettings, topics: Sequence[str]) -> dict[str, str]:
    """Topic → cluster id and topic id: what tells its offsets from those of a namesake.

    Missing topics are made. Raises `ConfigurationError` for an in-memory broker without
    AEGIS_KAFKA__CLUSTER_ID: each of its starts must have its own, else new data would be discarded
    as already written.
    """
    if kafka.in_memory:
        if not kafka.cluster_id:
            raise ConfigurationError(
                "the in-memory broker needs a new AEGIS_KAFKA__CLUSTER_ID at each of its starts "
                "(the broker's `incarnation`)"
            )
        return dict.fromkeys(topics, kafka.cluster_id)
    bus.ensure_topics(kafka, topics)
    cluster = kafka.cluster_id or bus.cluster_id(kafka)
    ids = _topic_ids(AdminClient(bus.client_options(kafka)), topics)
    if missing := [topic for topic in topics if topic not in ids]:
        raise ServiceUnavailable(f"Kafka does not know {missing} yet; try again")
    return {topic: f"{cluster}/{ids[topic]}" for topic in topics}


def checker(kafka: KafkaSettings, known: Mapping[str, str]) -> Callable[[], None]:
    """Asks Kafka whether every topic still is the one in `known`.

    A consumer goes on reading a topic that was made again, at whatever offset it was, and would
    miss what lies before it. Whatever was fetched before the answer "the same" is of that topic,
    because an id is never used twice. The call raises `TopicRecreated`, and `ServiceUnavailable`
    while Kafka is away. A topic that is gone passes: what was fetched from it is all there will be.
    """
    if kafka.in_memory:
        return lambda: None
    admin = AdminClient(bus.client_options(kafka))

    def check() -> None:
        ids = _topic_ids(admin, list(known))
        for topic, identity in known.items():
            if topic in ids and not identity.endswith(f"/{ids[topic]}"):
                raise TopicRecreated(
                    f"{topic} was deleted and made again; this process ends, and its restart reads "
                    "the new topic from its first message"
                )

    return check


def _topic_ids(admin: AdminClient, topics: Sequence[str]) -> dict[str, str]:
    """Ids of the topics that exist."""
    found = {}
    described = admin.describe_topics(
        TopicCollection(list(topics)), request_timeout=TIMEOUT_SECONDS
    )
    for topic, future in described.items():
        try:
            found[topic] = str(future.result().topic_id)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                why = error.args[0].str()
                raise ServiceUnavailable(f"Kafka: describe {topic}: {why}") from error
    return found
