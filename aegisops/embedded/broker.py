"""librdkafka's in-memory Kafka broker, for the quick start and the tests. No topic names here.

The broker is part of the librdkafka that confluent-kafka carries; it is driven through ctypes.
Its limits: everything is lost at `close`, it listens on loopback only and on a port the system
chooses, there is no admin API, aborted transactions are visible, and each partition keeps the
last 5 MiB or 100,000 batches and drops the oldest silently. Data that must survive needs Kafka.
"""

from __future__ import annotations

import ctypes
import uuid
from collections.abc import Iterable
from typing import Self

from aegisops.errors import ConfigurationError, Permanent

_PRODUCER = 0  # RD_KAFKA_PRODUCER: the broker needs some client to live in
_TOPIC_EXISTS = 36  # RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS
_QUIET = b"3"  # syslog level "error"; the default logs every connection
_BROKER_ID = 1

_POINTER = ctypes.c_void_p
_SIGNATURES: dict[str, tuple[type | None, list[type]]] = {
    "rd_kafka_conf_new": (_POINTER, []),
    "rd_kafka_conf_set": (
        ctypes.c_int,
        [_POINTER, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t],
    ),
    "rd_kafka_new": (_POINTER, [ctypes.c_int, _POINTER, ctypes.c_char_p, ctypes.c_size_t]),
    "rd_kafka_destroy": (None, [_POINTER]),
    "rd_kafka_err2str": (ctypes.c_char_p, [ctypes.c_int]),
    "rd_kafka_mock_cluster_new": (_POINTER, [_POINTER, ctypes.c_int]),
    "rd_kafka_mock_cluster_destroy": (None, [_POINTER]),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, [_POINTER]),
    "rd_kafka_mock_topic_create": (
        ctypes.c_int,
        [_POINTER, ctypes.c_char_p, ctypes.c_int, ctypes.c_int],
    ),
    "rd_kafka_mock_broker_set_down": (ctypes.c_int, [_POINTER, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_up": (ctypes.c_int, [_POINTER, ctypes.c_int32]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [_POINTER, ctypes.c_int32]),
    "rd_kafka_mock_push_request_errors_array": (
        None,
        [_POINTER, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)],
    ),
}


def _library() -> ctypes.CDLL:
    """The librdkafka that confluent-kafka itself uses, wherever it is installed.

    Symbols are looked up through the extension module, whose dependency it is: that finds the
    wheel's copy on Linux and macOS and a system library alike.
    """
    from confluent_kafka import cimpl

    library = ctypes.CDLL(cimpl.__file__)
    for name, (result, arguments) in _SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise ConfigurationError(
                f"librdkafka of {cimpl.__file__} has no {name}; install the pinned confluent-kafka"
                " wheel, or set AEGIS_KAFKA__IN_MEMORY=false and use a real broker"
            ) from error
        function.restype = result
        function.argtypes = arguments
    return library


class InMemoryBroker:
    """A one-node Kafka inside this process; a context manager. Not thread-safe."""

    bootstrap: str
    """host:port for clients; new at each start."""
    incarnation: str
    """New at each start: the exactly-once identity of what is in this broker."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        self._client: int | None = None
        self._cluster: int | None = None
        self.bootstrap = ""
        self.incarnation = ""

    def start(self) -> Self:
        """Listen. Raises `Permanent` when librdkafka refuses."""
        if self._cluster is not None:
            raise Permanent("the in-memory broker is already running")
        library = self._library = _library()
        message = ctypes.create_string_buffer(512)
        conf = library.rd_kafka_conf_new()
        library.rd_kafka_conf_set(conf, b"log_level", _QUIET, message, len(message))
        self._client = library.rd_kafka_new(_PRODUCER, conf, message, len(message))
        if not self._client:
            raise Permanent(f"librdkafka does not start: {message.value.decode()}")
        self._cluster = library.rd_kafka_mock_cluster_new(self._client, 1)
        if not self._cluster:
            library.rd_kafka_destroy(self._client)
            self._client = None
            raise Permanent("librdkafka cannot listen on 127.0.0.1; is loopback networking up?")
        # Kafka waits 3 s for more members before the first assignment; nobody else will come.
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self.bootstrap = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        self.incarnation = f"in-memory-{uuid.uuid4().hex}"
        return self

    def close(self) -> None:
        """Stop listening and forget everything. Safe to call twice."""
        library, cluster, client = self._library, self._cluster, self._client
        self._cluster = self._client = None
        if library is not None and cluster is not None:
            library.rd_kafka_mock_cluster_destroy(cluster)
            library.rd_kafka_destroy(client)

    def __enter__(self) -> Self:
        return self if self._cluster is not None else self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def create_topic(self, name: str, partitions: int) -> bool:
        """Make a topic; False when it is there already. Clients that ask first get 4 partitions."""
        library, cluster = self._running()
        if partitions < 1:
            raise Permanent(f"topic {name!r} needs at least one partition, not {partitions}")
        code = library.rd_kafka_mock_topic_create(cluster, name.encode(), partitions, 1)
        if code == _TOPIC_EXISTS:
            return False
        self._check(code, f"create topic {name!r} with {partitions} partitions")
        return True

    def set_down(self) -> None:
        """Drop every connection and refuse new ones; topics and data stay."""
        library, cluster = self._running()
        self._check(library.rd_kafka_mock_broker_set_down(cluster, _BROKER_ID), "go down")

    def set_up(self) -> None:
        """Accept connections again, at the same address."""
        library, cluster = self._running()
        self._check(library.rd_kafka_mock_broker_set_up(cluster, _BROKER_ID), "come up")

    def fail_requests(self, api_key: int, errors: Iterable[int]) -> None:
        """Answer the next requests of a Kafka API (0 Produce, 1 Fetch) with these error codes."""
        library, cluster = self._running()
        codes = list(errors)
        array = (ctypes.c_int * len(codes))(*codes)
        library.rd_kafka_mock_push_request_errors_array(cluster, api_key, len(codes), array)

    def _running(self) -> tuple[ctypes.CDLL, int]:
        if self._library is None or self._cluster is None:
            raise Permanent("the in-memory broker is not running; call start() first")
        return self._library, self._cluster

    def _check(self, code: int, action: str) -> None:
        if code and self._library is not None:
            reason = self._library.rd_kafka_err2str(code).decode()
            raise Permanent(f"the in-memory broker cannot {action}: {reason}")
