"""MQTT 3.1.1 and 5 → deliveries. The one module of the gateway that knows paho.

A message is acknowledged to the broker only after its values are on disk. The session is persistent
and QoS is 1, so the broker keeps what comes while the gateway is away and repeats what was not
acknowledged. While the gateway is full, paho's thread waits and the broker's window closes.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from aegisops.errors import BadInput, ConfigurationError
from aegisops.names import Reason
from streaming.gateway_metrics import GatewayMetrics
from streaming.mapping import Mqtt, Place, Target
from streaming.samples import Delivery, Item, Offer, Refusal
from streaming.sources import payloads
from streaming.sources.sparkplug import NAMESPACE, EdgeNode, SparkplugHost, rebirth_request

log = logging.getLogger(__name__)

QOS = 1
TOPICS_PER_REQUEST = 200
RECONNECT_SECONDS = (1, 30)
_US_PER_SECOND = 1_000_000


class MqttSource:
    """One broker. paho's own thread reads, connects and reconnects."""

    def __init__(
        self,
        source: Mqtt,
        targets: Mapping[Place, Sequence[Target]],
        *,
        offer: Offer,
        metrics: GatewayMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises `ConfigurationError` for certificates that cannot be used; connects nowhere."""
        self.name = source.name
        self.is_connected = False
        self._source = source
        self._offer = offer
        self._metrics = metrics
        self._clock = clock
        self._topics = {p.address: found for p, found in targets.items() if p.kind == "topic"}
        self._sparkplug = SparkplugHost(source.name, targets)
        self._heard_at: float | None = None
        self._client = self._made()
        metrics.connected.labels(self.name).set(0)

    def start(self) -> None:
        """Connect and read, in a thread; returns at once."""
        self._client.connect_async(
            self._source.host,
            self._source.port,
            keepalive=self._source.keepalive // _US_PER_SECOND,
            **self._session(),
        )
        self._client.loop_start()

    def stop(self) -> None:
        """End the connection; the broker keeps the session, and what was not acknowledged."""
        self._client.disconnect()
        self._client.loop_stop()

    def _made(self) -> paho.Client:
        source = self._source
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=source.client_id,
            # On MQTT 5 the same is said by the session expiry interval.
            clean_session=None if source.version == "5" else False,
            protocol=paho.MQTTv5 if source.version == "5" else paho.MQTTv311,
            manual_ack=True,
        )
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_connect_fail = self._on_connect_fail
        client.on_message = self._on_message
        client.reconnect_delay_set(*RECONNECT_SECONDS)
        if source.user is not None:
            client.username_pw_set(source.user, _password(source))
        if source.tls:
            client.tls_set_context(tls_context(source))
        return client

    def _session(self) -> dict[str, Any]:
        if self._source.version != "5":
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._source.session_expiry // _US_PER_SECOND
        properties.ReceiveMaximum = self._source.receive_maximum
        return {"clean_start": False, "properties": properties}

    # --- paho's thread ----------------------------------------------------------------------------

    def _on_connect(
        self,
        client: paho.Client,
        _: object,
        flags: Any,  # noqa: ANN401 - paho's signature
        reason: Any,  # noqa: ANN401
        __: object,
    ) -> None:
        if reason.is_failure:
            log.error("%s refuses us: %s; paho tries again", self.name, reason)
            return
        filters = [*self._topics, *self._sparkplug.topics]
        for begin in range(0, len(filters), TOPICS_PER_REQUEST):
            client.subscribe([(f, QOS) for f in filters[begin : begin + TOPICS_PER_REQUEST]])
        self.is_connected = True
        self._metrics.connected.labels(self.name).set(1)
        self._metrics.connections.labels(self.name).inc()
        log.info(
            "%s: connected to %s:%s, session %s", self.name, self._source.host, self._source.port,
            "kept" if flags.session_present else "new",
        )  # fmt: skip
        if self._heard_at is not None and not flags.session_present:
            # A broker that kept the session kept the messages.
            self._metrics.gaps.labels(self.name).inc()
            begin_at = datetime.fromtimestamp(self._heard_at, UTC).isoformat(
                timespec="milliseconds"
            )
            detail = f"the broker forgot our session; messages since {begin_at} may be missing"
            self._offer(Delivery(self.name, (self._refusal("session", Reason.GAP, detail),)))

    def _on_disconnect(self, *arguments: Any) -> None:  # noqa: ANN401 - paho's signature
        self._sparkplug.forget()
        if self.is_connected:
            log.warning("%s: disconnected: %s", self.name, arguments[3])
        self.is_connected = False
        self._metrics.connected.labels(self.name).set(0)

    def _on_connect_fail(self, *_: object) -> None:
        log.warning("%s: no connection to %s:%s", self.name, self._source.host, self._source.port)

    def _on_message(self, client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        now = self._clock()
        self._heard_at = now
        try:
            items, rebirth = self._items(message, now)
        except Exception as error:  # a bug must not lose the message, nor stop the others
            log.exception("%s: %s", self.name, message.topic)
            detail = f"{type(error).__name__}: {error}"
            refusal = self._refusal(message.topic, Reason.MALFORMED, detail, bytes(message.payload))
            items, rebirth = (refusal,), None
        mid = message.mid
        self._offer(Delivery(self.name, items, done=lambda: _ack(client, mid)))
        if rebirth is not None:
            log.warning("%s: asking %s/%s for its births", self.name, *rebirth)
            client.publish(*rebirth_request(rebirth, now), qos=0)

    def _items(
        self, message: paho.MQTTMessage, now: float
    ) -> tuple[tuple[Item, ...], EdgeNode | None]:
        topic, raw = message.topic, bytes(message.payload)
        if topic.startswith(f"{NAMESPACE}/"):
            heard = self._sparkplug.receive(topic, raw, now)
            if heard.ignored:
                self._metrics.ignored.labels(self.name, "unmapped").inc(heard.ignored)
            return heard.items, heard.rebirth
        targets = self._topics.get(topic, ())
        if not targets:
            refusal = self._refusal(topic, Reason.UNMAPPED, "no such topic", raw)
            return (refusal,), None
        names = self._source.payload
        try:
            parsed = payloads.parse(raw)
        except BadInput as error:
            reason = Reason(error.reason)
            return (self._refusal(topic, reason, error.detail, raw, targets[0]),), None
        if message.retain and not payloads.has_own_time(parsed, names):
            # The broker's copy of some earlier value: nobody knows when it was measured.
            self._metrics.ignored.labels(self.name, "retained").inc()
            return (), None
        items: list[Item] = []
        for target in targets:
            try:
                items.append(payloads.item(parsed, target, names, round(now * 1e6)))
            except BadInput as error:
                reason = Reason(error.reason)
                items.append(self._refusal(topic, reason, error.detail, raw, target))
        return tuple(items), None

    def _refusal(
        self,
        place: str,
        reason: Reason,
        detail: str,
        raw: bytes = b"",
        target: Target | None = None,
    ) -> Refusal:
        machine, channel = (target.machine_id, target.channel) if target else ("", "")
        at = round(self._clock() * 1e6)
        return Refusal(self.name, place, reason, detail, bytes(raw), at, machine, channel)


def _ack(client: paho.Client, mid: int) -> None:
    client.ack(mid, QOS)


def tls_context(source: Mqtt) -> ssl.SSLContext:
    """TLS 1.3, the server's name checked, our certificate shown when there is one."""
    try:
        context = ssl.create_default_context(cafile=source.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if source.certificate is not None:
            context.load_cert_chain(source.certificate, source.private_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"{source.name}: ca, certificate or private_key cannot be used: {error}"
        ) from error
    return context


def _password(source: Mqtt) -> str:
    if source.password_env is None or source.password_env not in os.environ:
        raise ConfigurationError(
            f"{source.name}: set password_env, and the environment variable it names"
        )
    return os.environ[source.password_env]
