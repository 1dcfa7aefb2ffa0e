"""One Kafka user a program, each with the rights it needs and no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from aegisops import bus, names
from aegisops.settings import KafkaSettings
from deploy.stack.layout import Layout

_SECONDS = 30
_ITERATIONS = 4096


@dataclass(frozen=True, slots=True)
class User:
    """What a program may do: topics it reads with its group, topics it writes."""

    name: str
    reads: tuple[str, ...] = ()
    group: str = ""
    writes: tuple[str, ...] = ()


_MEASURED = (names.READINGS_TOPIC, names.EVENTS_TOPIC, names.REFUSALS_TOPIC)
_ANSWERS = tuple(topic for topic in names.TOPICS if topic not in _MEASURED)

USERS = (
    User("gateway", writes=_MEASURED),
    User("lake-writer", reads=names.TOPICS, group=names.LAKE_WRITER_APP),
    User(
        "feature-worker",
        reads=(names.READINGS_TOPIC, names.EVENTS_TOPIC),
        group=names.FEATURE_WORKER_APP,
    ),
    User("api", writes=_ANSWERS),
    User(
        "alarm-engine",
        # It reads its own journal's end after Redis was emptied.
        reads=(names.ALARMS_TOPIC,),
        group=bus.TAIL_GROUP,
        writes=_ANSWERS,
    ),
)


def make_users(kafka: KafkaSettings, layout: Layout) -> None:
    """Make or renew every user's password and rights. `kafka`: settings of the super user."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, **kafka.options})
    upserts = [
        UserScramCredentialUpsertion(
            user.name,
            ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS),
            layout.secret(f"kafka-{user.name}").encode(),
        )
        for user in USERS
    ]
    for made in admin.alter_user_scram_credentials(upserts).values():
        made.result(_SECONDS)
    rights = [right for user in USERS for right in _rights(user)]
    for made in admin.create_acls(rights).values():
        made.result(_SECONDS)


def settings_of(user: str, kafka: KafkaSettings, layout: Layout) -> KafkaSettings:
    """The connection of one program."""
    login = {"sasl.username": user, "sasl.password": layout.secret(f"kafka-{user}")}
    return kafka.model_copy(update={"options": {**kafka.options, **login}})


def _rights(user: User) -> Iterator[AclBinding]:
    for topic in user.reads:
        yield _may(user, ResourceType.TOPIC, topic, AclOperation.READ)
        # Quix Streams looks at the partitions and retention of what it reads.
        yield _may(user, ResourceType.TOPIC, topic, AclOperation.DESCRIBE_CONFIGS)
    for topic in user.writes:
        yield _may(user, ResourceType.TOPIC, topic, AclOperation.WRITE)
    if user.group:
        yield _may(user, ResourceType.GROUP, user.group, AclOperation.READ)


def _may(user: User, kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
    return AclBinding(
        kind,
        name,
        ResourcePatternType.LITERAL,
        f"User:{user.name}",
        "*",
        operation,
        AclPermissionType.ALLOW,
    )
