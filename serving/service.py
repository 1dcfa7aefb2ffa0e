"""The API's parts, put together from settings, and their background work.

The only place of the API that chooses implementations; tests build `Service` with their own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aegisops.alarm_store import AlarmStore, Signal
from aegisops.alarms.master import MasterDatabase
from aegisops.errors import AegisError, ServiceUnavailable
from aegisops.idempotency import IdempotencyKeys
from aegisops.latest_predictions import LatestPredictions
from aegisops.machines import MachineClass, load_classes
from aegisops.names import (
    ALARMS_TOPIC,
    FEEDBACK_TOPIC,
    PREDICTIONS_TOPIC,
    SHADOW_SCORES_TOPIC,
    WORK_ORDERS_TOPIC,
    Alias,
)
from aegisops.oidc import Provider
from aegisops.online_store import AsyncOnlineStore
from aegisops.rate_bucket import RateBucket
from aegisops.settings import Settings
from aegisops.telemetry_stream import TelemetryStream
from aegisops.tickets import Tickets
from aegisops.work_orders import WorkOrderStore
from serving.alarms import AlarmDesk
from serving.audit import Audit
from serving.auth import Authenticator, make_tokens
from serving.ending import end
from serving.features import FeatureReader
from serving.feedback import FeedbackBook
from serving.ladder import Ladder
from serving.lag import StreamLag
from serving.lake_features import LakeFeatures
from serving.lake_reads import LakeReads
from serving.latest import LatestBook
from serving.metrics import Metrics
from serving.model_slot import ModelSlots
from serving.outbox import Outbox, Publisher, new_instance
from serving.patience import Patience
from serving.prediction import PredictionService
from serving.rates import Rates
from serving.shadow import ShadowScorer
from serving.telemetry import Hub
from serving.telemetry_feed import Feed
from serving.wire import KafkaPublisher, body_encoder
from serving.work_orders import Delivery, WorkOrderDesk

if TYPE_CHECKING:
    import httpx

    from aegisops.bus import Producer
    from aegisops.lake import Lake
    from aegisops.schema_registry import SchemaRegistry
    from aegisops.scoring import Bundle

log = logging.getLogger(__name__)

PUMP_SECONDS = 0.02
PREPARE_SECONDS = 1.0
SHADOW_SECONDS = 0.1
SIGNAL_SECONDS = 5.0
SPOOL_ALARM_SHARE = 0.5
"""From this share of its capacity on, a filling spool is an alarm."""
SIGN_IN_SECONDS = 1.0
DRAIN_SECONDS = 5.0


@dataclass
class Service:
    """Everything `create_app` wires to routes."""

    settings: Settings
    classes: Mapping[str, MachineClass]
    store: AsyncOnlineStore
    reader: FeatureReader
    slots: ModelSlots
    ladder: Ladder
    shadow_slots: ModelSlots
    outbox: Outbox
    publisher: Publisher
    audit: Audit
    shadow: ShadowScorer
    feedback: FeedbackBook
    alarms: AlarmDesk
    predictions: PredictionService
    stream: TelemetryStream
    telemetry: Feed
    latest: LatestBook
    lake_reads: LakeReads
    sign_in: Provider | None
    work_orders: WorkOrderDesk
    tickets: Tickets
    lag: StreamLag | None
    """None without Kafka."""
    delivery: Delivery
    authenticator: Authenticator
    rates: Rates
    rate_bucket: RateBucket
    metrics: Metrics
    executor: ThreadPoolExecutor
    clock: Callable[[], float] = time.time
    started_at: float = field(default_factory=time.time)
    greetings: int = 0
    """WebSockets that have not sent their first message yet."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        """Load the models that are there, then keep following pointers and emptying the outbox."""
        await asyncio.to_thread(self._poll_models)
        self.shadow.start()
        self._tasks = [
            asyncio.create_task(self._follow_models(), name="model slots"),
            asyncio.create_task(self._pump(), name="outbox"),
            asyncio.create_task(self._hand_over_shadows(), name="shadow"),
            asyncio.create_task(self._tell_alarm_engine(), name="signals"),
            asyncio.create_task(self.latest.run(), name="latest answers"),
            asyncio.create_task(self._follow_sign_in(), name="sign-in"),
            asyncio.create_task(self.delivery.run(), name="work orders"),
            asyncio.create_task(self.telemetry.run(), name="telemetry"),
            asyncio.create_task(
                self.telemetry.beat(self.settings.api.telemetry_heartbeat_seconds),
                name="telemetry heartbeat",
            ),
        ]

    async def stop(self) -> None:
        """Hand the outbox's rest to Kafka for a few seconds, then let go of everything."""
        self.telemetry.hub.close()
        await end(self._tasks)
        self.shadow.stop()
        until = time.monotonic() + DRAIN_SECONDS
        while self.outbox.depth and time.monotonic() < until and self.outbox.failure is None:
            self.outbox.pump()
            await asyncio.sleep(PUMP_SECONDS)
        if self.outbox.depth:
            log.warning("%d records stay in the outbox for the next start", self.outbox.depth)
        self.outbox.close()
        self.publisher.close()
        await self.telemetry.aclose()
        await self.latest.aclose()
        await self.stream.aclose()
        await self.store.aclose()
        await self.rate_bucket.aclose()
        await self.alarms.store.aclose()
        await self.feedback.aclose()
        await self.delivery.aclose()
        await self.tickets.aclose()
        await self.work_orders.store.aclose()
        self.lake_reads.close()
        self.executor.shutdown(wait=False, cancel_futures=True)

    @property
    def healthy(self) -> bool:
        """Whether the background work runs."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def redis_problem(self) -> str | None:
        """Why the online store does not answer; None when it does."""
        try:
            await self.store.ping()
        except ServiceUnavailable as error:
            return str(error)
        return None

    async def _follow_models(self) -> None:
        while True:
            await asyncio.sleep(self.settings.api.model_poll_seconds)
            await asyncio.to_thread(self._poll_models)

    async def _follow_sign_in(self) -> None:
        while True:
            if self.sign_in is not None and self.sign_in.is_due:
                await asyncio.to_thread(self.sign_in.refresh)
            await asyncio.sleep(SIGN_IN_SECONDS)

    async def _tell_alarm_engine(self) -> None:
        """What only this process knows and somebody must act on: its spool is filling."""
        capacity = self.settings.api.outbox_capacity
        while True:
            depth = self.outbox.depth
            is_filling = depth >= SPOOL_ALARM_SHARE * capacity
            detail = f"{depth} of {capacity} records wait; {self.outbox.failure or 'they go out'}"
            signal = Signal("spool_filling", self.audit.instance, is_filling, detail, self.clock())
            try:
                await self.alarms.store.tell(signal)
            except ServiceUnavailable:
                log.debug("the alarm engine was not told: Redis is away")
            except Exception:
                log.exception("the alarm engine could not be told")
            await asyncio.sleep(SIGNAL_SECONDS)

    async def _hand_over_shadows(self) -> None:
        while True:
            await asyncio.sleep(SHADOW_SECONDS)
            self.shadow.hand_over()

    def _prepare_publisher(self) -> bool:
        try:
            self.publisher.prepare()
        except AegisError as error:
            if self.outbox.failure is None:
                log.warning("records wait in the outbox: %s", error)
            self.outbox.failure = str(error)
            return False
        self.outbox.failure = None
        return True

    def _poll_models(self) -> None:
        try:
            self.slots.poll()
            self.shadow_slots.poll()
        except Exception:
            # The loop must outlive any surprise of the file system: without it no new model comes.
            log.exception("model slots could not be polled")
        for name, (loaded, _) in self.slots.status().items():
            self.metrics.model_loaded.labels(name).set(loaded is not None)

    async def _pump(self) -> None:
        while not await asyncio.to_thread(self._prepare_publisher):
            self.metrics.outbox_depth.set(self.outbox.depth)
            await asyncio.sleep(PREPARE_SECONDS)
        while True:
            try:
                self.outbox.pump()
            except Exception:
                log.exception("outbox round failed; trying again")
                await asyncio.sleep(1)
            self.metrics.outbox_depth.set(self.outbox.depth)
            await asyncio.sleep(PUMP_SECONDS)


def build(
    settings: Settings,
    *,
    publisher: Publisher | None = None,
    clock: Callable[[], float] = time.time,
) -> Service:
    """The service of these settings; nothing is sent before `start`, except to the registry.

    `publisher` takes the place of the Kafka producer.
    """
    from aegisops import signing

    metrics = Metrics()
    classes = load_classes(settings.classes_dir)
    store = AsyncOnlineStore.from_settings(settings.redis)
    executor = ThreadPoolExecutor(2, thread_name_prefix="lake")
    lake = LakeFeatures(lambda: lake_of(settings), clock)
    reader = FeatureReader(
        store,
        lake,
        classes,
        clock=clock,
        executor=executor,
        budget_seconds=settings.api.lake_budget_seconds,
    )
    public = settings.signing.public_key or signing.ensure_keys(settings.keys_dir).public
    slots, shadow_slots = (
        ModelSlots(
            settings.bundles_dir,
            verify=lambda folder: signing.verify(folder, public),
            load=_load_warm,
            clock=clock,
            refused=lambda name: metrics.bundles_refused.labels(name).inc(),
            alias=alias,
        )
        for alias in (Alias.PRODUCTION, Alias.SHADOW)
    )
    publisher = publisher or _kafka(settings)
    outbox = Outbox(
        settings.data_dir.absolute() / "outbox", publisher, settings.api.outbox_capacity
    )
    audit = Audit(outbox, body_encoder(PREDICTIONS_TOPIC))
    ladder = Ladder(slots.get, Patience(settings.api.model_budget_seconds, clock=time.perf_counter))
    shadow = ShadowScorer(
        shadow_slots.get,
        outbox,
        body_encoder(SHADOW_SCORES_TOPIC),
        clock=clock,
        counted=metrics,
        queue=settings.api.shadow_queue,
        outbox_capacity=settings.api.outbox_capacity,
    )
    lake_reads = LakeReads(lambda: lake_of(settings), settings.api.console_budget_seconds)
    work_orders = WorkOrderDesk(
        WorkOrderStore.from_settings(settings.redis),
        outbox,
        body_encoder(WORK_ORDERS_TOPIC),
        lake_reads,
        has_webhook=bool(settings.work_orders.webhook_url),
        clock=clock,
    )
    sign_in = Provider(settings.oidc, clock) if settings.oidc.issuer else None
    stream = TelemetryStream.from_settings(settings.redis)
    hub = Hub(
        clients=settings.api.telemetry_clients,
        per_subject=settings.api.telemetry_clients_per_subject,
        queue=settings.api.telemetry_queue,
    )
    metrics.telemetry_clients.set_function(lambda: len(hub))
    telemetry = Feed(stream, hub, clock)
    latest = LatestBook(LatestPredictions.from_settings(settings.redis))
    predictions = PredictionService(
        reader,
        ladder,
        audit,
        clock=clock,
        answered=metrics.answered,
        shadow=shadow,
        announce=telemetry.answered,
        note=latest.note,
    )
    api = settings.api
    bucket = RateBucket.from_settings(
        settings.redis, rate=api.rate_per_second, burst=api.rate_burst
    )
    return Service(
        settings=settings,
        classes=classes,
        store=store,
        reader=reader,
        slots=slots,
        ladder=ladder,
        shadow_slots=shadow_slots,
        outbox=outbox,
        publisher=publisher,
        audit=audit,
        shadow=shadow,
        feedback=FeedbackBook(
            outbox,
            body_encoder(FEEDBACK_TOPIC),
            IdempotencyKeys.from_settings(settings.redis),
        ),
        alarms=AlarmDesk(
            AlarmStore.from_settings(settings.redis),
            outbox,
            body_encoder(ALARMS_TOPIC),
            MasterDatabase(classes),
            clock=clock,
            shelve_hours=settings.alarms.shelve_hours,
            outbox_capacity=settings.api.outbox_capacity,
        ),
        predictions=predictions,
        stream=stream,
        telemetry=telemetry,
        latest=latest,
        sign_in=sign_in,
        lake_reads=lake_reads,
        tickets=Tickets.from_settings(settings.redis),
        lag=StreamLag(settings.kafka, time.monotonic)
        if isinstance(publisher, KafkaPublisher)
        else None,
        work_orders=work_orders,
        delivery=Delivery(
            work_orders, settings.work_orders, new_instance(), _http_client, time.monotonic
        ),
        authenticator=Authenticator(make_tokens(settings, sign_in), clock),
        rates=Rates(bucket, rate=api.rate_per_second, burst=api.rate_burst, clock=time.monotonic),
        rate_bucket=bucket,
        metrics=metrics,
        executor=executor,
        clock=clock,
        started_at=clock(),
    )


def _http_client() -> httpx.AsyncClient:
    import httpx

    return httpx.AsyncClient(follow_redirects=False)


def lake_of(settings: Settings) -> Lake:
    """The lake of these settings; its libraries take a second to import."""
    from aegisops.lake import Lake

    return Lake(settings.lake_root)


def _load_warm(folder: Path) -> Bundle:
    """A bundle that has scored once: the first call of a booster costs several times the next."""
    from aegisops import anomaly, scoring

    bundle = scoring.load_bundle(folder)
    vector = np.zeros((1, len(bundle.vector)))
    scoring.score(bundle, vector)
    if bundle.forest is not None:
        anomaly.score(bundle.forest, vector)
    return bundle


def _kafka(settings: Settings) -> Publisher:
    def producer() -> Producer:
        from aegisops.bus import Producer

        return Producer(settings.kafka)

    def registry() -> SchemaRegistry:
        from aegisops.schema_registry import SchemaRegistry

        return SchemaRegistry(settings)

    return KafkaPublisher(producer, registry)
