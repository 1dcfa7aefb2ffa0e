"""OPC UA subscriptions → deliveries. The one module of the gateway that knows asyncua.

A publish response is acknowledged to the server only after its values are on disk: the server keeps
what was not acknowledged and sends it again after a broken connection. While the gateway waits for
its disk it asks for nothing, so the server's queues hold back what comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.client.client import Client
from asyncua.client.ua_client import UaClientState
from asyncua.common.subscription import DataChangeEvent, SubEvent, Subscription
from asyncua.common.utils import ServiceError
from asyncua.crypto import security_policies
from asyncua.crypto.truststore import TrustStore
from asyncua.crypto.validator import CertificateValidator, CertificateValidatorOptions
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from aegisops.certificates import Identity
from aegisops.errors import BadInput, ConfigurationError, Permanent, Retryable
from aegisops.names import Quality, Reason
from streaming.gateway_metrics import GatewayMetrics
from streaming.mapping import OpcUa, Place, Target
from streaming.samples import Delivery, Item, Mark, Offer, Refusal
from streaming.sources import values

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
REQUEST_SECONDS = 10.0
MISSING_SECONDS = 60.0
"""How often nodes that the server did not have are asked for again."""
ITEMS_PER_REQUEST = 500
_SESSION_MS = 60_000
_OVERFLOW = 0x480
"""Status code bits (OPC 10000-4, 7.39): info type DataValue and overflow."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OpcUaSource:
    """One server's nodes. `run` until cancelled; it connects again and again."""

    def __init__(
        self,
        source: OpcUa,
        targets: Mapping[Place, Sequence[Target]],
        *,
        identity: Identity,
        trusted: Path,
        put: Offer,
        metrics: GatewayMetrics,
        marks: Mapping[str, tuple[int, int]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`trusted`: folder with the certificates of servers, or of their authorities.

        `marks`: place → (time, status) of the last value that an earlier run has spooled.
        """
        self.name = source.name
        self.is_connected = False
        self._source = source
        self._targets = targets
        self._identity = identity
        self._trusted = trusted
        self._put = put
        self._metrics = metrics
        self._clock = clock
        self._by_node: dict[ua.NodeId, tuple[str, Target]] = {}
        self._last = dict(marks or {})
        self._lost_at: float | None = None
        self._metrics.connected.labels(self.name).set(0)

    async def run(self) -> None:
        """Subscribe, and start over when the connection cannot be kept."""
        pause = FIRST_PAUSE
        while True:
            started = time.monotonic()
            try:
                await self._session()
            except Permanent as error:
                # Somebody may put the certificate into the trust store: look again, seldom.
                pause = LONGEST_PAUSE
                log.error("%s: %s", self.name, error)  # noqa: TRY400 - for people
            except (Retryable, OSError, TimeoutError, UaError) as error:
                log.warning("%s: %s; next try in %g s", self.name, error or repr(error), pause)
            finally:
                self._connected(is_connected=False)
            if time.monotonic() - started > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _session(self) -> None:
        client = await client_of(self._source, self._identity, self._trusted)
        await client.connect(auto_reconnect=True, reconnect_max_delay=LONGEST_PAUSE)
        try:
            nodes = await self._nodes(client)
            subscription = await self._subscribe(client)
            missing = await self._monitor(subscription, client, nodes)
            self._connected(is_connected=True)
            asked = time.monotonic()
            async with client.uaclient.subscribe_state() as states:
                while client.state is not UaClientState.DISCONNECTED:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await states.next_change(1.0)
                    self._connected(is_connected=client.state is UaClientState.CONNECTED)
                    if missing and time.monotonic() - asked > MISSING_SECONDS:
                        asked = time.monotonic()
                        missing = await self._monitor(subscription, client, missing, again=True)
        finally:
            self._connected(is_connected=False)
            with contextlib.suppress(OSError, TimeoutError, UaError):
                await asyncio.wait_for(client.disconnect(), REQUEST_SECONDS)

    async def _nodes(self, client: Client) -> dict[ua.NodeId, tuple[str, Target]]:
        """Node id on this server → its place in the mapping and what it means."""
        uris = await client.get_namespace_array()
        found: dict[ua.NodeId, tuple[str, Target]] = {}
        for place, (target, *_) in self._targets.items():
            try:
                found[_node_id(place.address, uris)] = place.address, target
            except ConfigurationError as error:
                self._refuse(place.address, target, Reason.UNMAPPED, str(error))
        return found

    async def _subscribe(self, client: Client) -> Subscription:
        interval = self._source.publishing_interval / 1_000
        parameters = ua.CreateSubscriptionParameters()
        parameters.RequestedPublishingInterval = interval
        parameters.RequestedMaxKeepAliveCount = max(round(5_000 / interval), 1)
        parameters.RequestedLifetimeCount = max(round(600_000 / interval), 1_000)
        parameters.MaxNotificationsPerPublish = 10_000
        parameters.PublishingEnabled = True
        subscription = _Acknowledged(client.uaclient.session, parameters, self._deliver)
        await subscription.init()
        # What `Client.create_subscription` does, for a class of our own: reconnects restore it.
        client._subscriptions.append(subscription)  # noqa: SLF001
        return subscription

    async def _monitor(
        self,
        subscription: Subscription,
        client: Client,
        nodes: Mapping[ua.NodeId, tuple[str, Target]],
        *,
        again: bool = False,
    ) -> dict[ua.NodeId, tuple[str, Target]]:
        """Monitor the nodes; returns those that the server has not."""
        self._by_node |= nodes
        missing: dict[ua.NodeId, tuple[str, Target]] = {}
        wanted = list(nodes)
        for begin in range(0, len(wanted), ITEMS_PER_REQUEST):
            part = wanted[begin : begin + ITEMS_PER_REQUEST]
            # The public `subscribe_data_change` has no way to give a filter.
            results = await subscription._subscribe(  # noqa: SLF001
                [client.get_node(node) for node in part],
                mfilter=_filter(self._source),
                queuesize=self._source.queue_size,
                sampling_interval=ua.Duration(self._source.publishing_interval / 1_000),
            )
            for node, result in zip(part, results, strict=True):
                if isinstance(result, ua.StatusCode):
                    place, target = missing[node] = nodes[node]
                    if not again:
                        self._refuse(
                            place, target, Reason.UNMAPPED, f"not monitored: {result.name}"
                        )
        if missing and not again:
            log.error("%s: %d of %d nodes are not there", self.name, len(missing), len(wanted))
        return missing

    async def _deliver(self, events: Sequence[SubEvent]) -> None:
        """Hand the values over and return when they are on disk."""
        items = [
            item
            for event in events
            if isinstance(event, DataChangeEvent)
            for item in self._items(event)
        ]
        if not items:
            return
        loop = asyncio.get_running_loop()
        safe = loop.create_future()

        def done() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lambda: None if safe.done() else safe.set_result(None))

        places = {self._by_node[e.node.nodeid][0] for e in events if isinstance(e, DataChangeEvent)}
        marks = tuple(Mark(p, *self._last[p]) for p in places if p in self._last)
        self._put(Delivery(self.name, tuple(items), marks, done))
        await safe

    def _items(self, event: DataChangeEvent) -> list[Item]:
        data: ua.DataValue = event.data.monitored_item.Value
        node = event.node.nodeid
        place, target = self._by_node[node]
        now = round(self._clock() * 1e6)
        status = data.StatusCode.value if data.StatusCode is not None else 0
        if status == StatusCodes.BadWaitingForInitialData:
            self._metrics.ignored.labels(self.name, "no_value_yet").inc()
            return []
        ts = _us(data.SourceTimestamp or data.ServerTimestamp, now)
        if self._last.get(place) == (ts, status):
            # After every reconnect and restart a server sends the current value again.
            self._metrics.ignored.labels(self.name, "repeated").inc()
            return []
        self._last[place] = ts, status
        items: list[Item] = []
        if status & _OVERFLOW == _OVERFLOW:
            self._metrics.gaps.labels(self.name).inc()
            detail = f"the server's queue overflowed before {ts} µs; raise queue_size"
            items.append(self._refusal(place, target, Reason.GAP, detail))
        try:
            value = data.Value.Value if data.Value is not None else None
            items.append(values.item(target, _plain(value), ts, quality(status)))
        except BadInput as error:
            reason = Reason(error.reason)
            items.append(self._refusal(place, target, reason, error.detail, repr(data.Value)))
        return items

    def _connected(self, *, is_connected: bool) -> None:
        if is_connected == self.is_connected:
            return
        self.is_connected = is_connected
        self._metrics.connected.labels(self.name).set(is_connected)
        if not is_connected:
            self._lost_at = self._clock()
            log.warning("%s: not connected to %s", self.name, self._source.endpoint)
            return
        self._metrics.connections.labels(self.name).inc()
        log.info("%s: connected to %s", self.name, self._source.endpoint)
        if self._lost_at is not None:
            self._metrics.gaps.labels(self.name).inc()
            begin = datetime.fromtimestamp(self._lost_at, UTC).isoformat(timespec="milliseconds")
            detail = f"away since {begin}; what the server did not keep until now is missing"
            refusal = self._refusal(self._source.endpoint, None, Reason.GAP, detail)
            self._put(Delivery(self.name, (refusal,)))

    def _refuse(self, place: str, target: Target, reason: Reason, detail: str) -> None:
        self._put(Delivery(self.name, (self._refusal(place, target, reason, detail),)))

    def _refusal(
        self, place: str, target: Target | None, reason: Reason, detail: str, payload: str = ""
    ) -> Refusal:
        machine, channel = (target.machine_id, target.channel) if target else ("", "")
        now = round(self._clock() * 1e6)
        return Refusal(
            self.name,
            place,
            reason,
            detail,
            payload.encode(errors="replace"),
            now,
            machine,
            channel,
        )


class _Acknowledged(Subscription):
    """A subscription whose publish responses are acknowledged after `deliver` has returned."""

    def __init__(
        self,
        session: Any,  # noqa: ANN401 - asyncua's own
        parameters: ua.CreateSubscriptionParameters,
        deliver: Callable[[Sequence[SubEvent]], Any],
    ) -> None:
        super().__init__(session, parameters)
        self._give = deliver
        self._taken: list[SubEvent] = []
        self._is_giving = False

    async def publish_callback(self, publish_result: ua.PublishResult) -> None:
        """Called by asyncua's publish loop, which acknowledges when this has returned."""
        await super().publish_callback(publish_result)
        taken, self._taken = self._taken, []
        self._is_giving = True
        try:
            await self._give(taken)
        finally:
            self._is_giving = False
            self.last_publish_at = time.monotonic()

    def is_stale(self, margin: float) -> bool:
        """Silence is no fault of the server while we do not ask."""
        return not self._is_giving and super().is_stale(margin)

    def _deliver(self, event: SubEvent) -> None:
        self._taken.append(event)


async def client_of(source: OpcUa, identity: Identity, trusted: Path) -> Client:
    """A client with the source's security, not yet connected.

    But for "None" it asks the server for its certificate first, and refuses it at `connect`
    (`ConfigurationError`) unless it or its authority is in `trusted`.
    """
    client = Client(source.endpoint, timeout=REQUEST_SECONDS, watchdog_intervall=2.0)
    client.name = client.description = "AegisOps gateway"
    client.application_uri = identity.uri
    client.product_uri = "urn:aegisops:gateway"
    client.session_timeout = _SESSION_MS
    if source.user is not None:
        client.set_user(source.user)
        client.set_password(_password(source))
    if source.security_mode == "None":
        return client
    store = TrustStore([trusted], [trusted / "crl"])
    with contextlib.suppress(ValueError):  # an empty folder: such a store trusts nobody
        await store.load()
    options = CertificateValidatorOptions
    validate = CertificateValidator(
        options.TIME_RANGE | options.URI | options.TRUSTED | options.REVOKED | options.PEER_SERVER,
        store,
    )

    async def validator(certificate: x509.Certificate, server: ua.ApplicationDescription) -> None:
        try:
            await validate(certificate, server)
        except ServiceError as error:
            why = ua.StatusCode(ua.UInt32(error.code)).name
            raise _untrusted(source, certificate, why, trusted) from error

    client.certificate_validator = validator
    policy = getattr(security_policies, "SecurityPolicy" + source.security_policy.replace("_", ""))
    await client.set_security(
        policy,
        identity.certificate,
        identity.private_key,
        mode=ua.MessageSecurityMode[source.security_mode],
    )
    return client


def _untrusted(
    source: OpcUa, certificate: x509.Certificate, why: str, trusted: Path
) -> ConfigurationError:
    der = certificate.public_bytes(Encoding.DER)
    rejected = trusted.parent / "rejected" / f"{hashlib.sha256(der).hexdigest()[:16]}.der"
    with contextlib.suppress(OSError):
        rejected.parent.mkdir(parents=True, exist_ok=True)
        rejected.write_bytes(der)
    return ConfigurationError(
        f"{source.endpoint}: its certificate is refused ({why}). It is in {rejected}; compare its "
        f"thumbprint with the server's, then move it to {trusted}"
    )


def _filter(source: OpcUa) -> ua.DataChangeFilter:
    """Report each new source time: a value that stays the same is a reading all the same."""
    triggers = ua.DataChangeTrigger
    wanted = triggers.StatusValue
    if source.trigger == "timestamp":
        wanted = triggers.StatusValueTimestamp
    return ua.DataChangeFilter(Trigger=wanted)


def quality(status: int) -> Quality:
    """Severity bits of an OPC UA status code (OPC 10000-4, 7.39)."""
    return (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD)[status >> 30 & 3]


def _us(moment: datetime | None, now: int) -> int:
    """Microseconds since 1970; `now` when neither the device nor the server gave a time."""
    if moment is None:
        return now
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    delta = aware - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _plain(value: object) -> object:
    """A value as `values.item` takes it: ByteString and LocalizedText are texts."""
    if isinstance(value, ua.LocalizedText):
        return value.Text
    return value


def _node_id(text: str, uris: Sequence[str]) -> ua.NodeId:
    """`ns=…`, `i=…`, or `nsu=<uri>;…` resolved by the server's namespace array."""
    rest = text
    if text.startswith("nsu="):
        uri, separator, tail = text[4:].rpartition(";")
        # The identifier itself may hold semicolons: take the namespace that the server knows.
        for known in uris:
            if known and text[4:].startswith(f"{known};"):
                uri, separator, tail = known, ";", text[4 + len(known) + 1 :]
        if not separator or uri not in uris:
            raise ConfigurationError(f"{text}: the server has no such namespace")
        rest = f"ns={list(uris).index(uri)};{tail}"
    try:
        return ua.NodeId.from_string(rest)
    except (UaError, ValueError) as error:
        raise ConfigurationError(
            f"{text}: not a node id such as ns=2;s=Press1.Vibration"
        ) from error


def _password(source: OpcUa) -> str:
    if source.password_env is None or source.password_env not in os.environ:
        raise ConfigurationError(
            f"{source.name}: set password_env, and the environment variable it names"
        )
    return os.environ[source.password_env]


async def browse(client: Client, most: int = 10_000) -> list[tuple[str, str, str]]:
    """(node id with `nsu=`, browse path, data type) of the variables outside namespace 0."""
    uris = await client.get_namespace_array()
    found: list[tuple[str, str, str]] = []
    queue = [(client.get_objects_node(), "")]
    seen: set[ua.NodeId] = set()
    while queue and len(found) < most:
        node, path = queue.pop(0)
        for child in await node.get_children_descriptions():
            if child.NodeId in seen or child.NodeId.NamespaceIndex == 0:
                continue
            seen.add(child.NodeId)
            here = f"{path}/{child.BrowseName.Name}"
            reached = client.get_node(child.NodeId)
            if child.NodeClass is ua.NodeClass.Variable:
                kind = await reached.read_data_type_as_variant_type()
                local = child.NodeId.to_string().partition(";")[2]
                found.append((f"nsu={uris[child.NodeId.NamespaceIndex]};{local}", here, kind.name))
            queue.append((reached, here))
    return found
