"""Settings from the environment (`AEGIS_<CONCERN>__<FIELD>`), made by an app's main.

settings = Settings()                      # reads AEGIS_* and nothing else
settings.data_dir / "lake"                 # everything local lives under data_dir
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class KafkaSettings(BaseModel, frozen=True, extra="forbid"):
    """Broker connection of every producer and consumer."""

    bootstrap: str = "127.0.0.1:19092"
    in_memory: bool = True
    """The embedded broker: no admin API, data gone at exit."""
    cluster_id: str = ""
    """Part of the exactly-once identity; the in-memory broker has a new one at each start."""
    options: dict[str, str] = Field(default_factory=dict)
    """Further librdkafka options, for example security.protocol and ssl.ca.location."""


class RedisSettings(BaseModel, frozen=True, extra="forbid"):
    """Online store."""

    url: str = "redis://127.0.0.1:16379/0"
    feature_ttl_seconds: int = 7_200


class RegistrySettings(BaseModel, frozen=True, extra="forbid"):
    """Confluent-compatible schema registry."""

    url: str = "http://127.0.0.1:18081"


class ApiSettings(BaseModel, frozen=True, extra="forbid"):
    """Prediction API."""

    host: str = "127.0.0.1"
    port: int = 18000
    accept_local_tokens: bool = True
    """Whether tokens of `aegisops token` (the key in data_dir/keys) are accepted."""
    issuer: str = "aegisops"
    audience: str = "aegisops-api"
    token_public_key: Path | None = None
    """PEM (Ed25519 or RSA) that the product's own tokens are checked with; empty = the development
    key under data_dir/keys."""
    tls_certificate: Path | None = None
    """PEM chain; with `tls_key` the API speaks TLS 1.3 itself."""
    tls_key: Path | None = None
    rate_per_second: float = Field(default=2_000.0, gt=0)
    """Requests a second of one token subject, over all API processes."""
    rate_burst: int = Field(default=4_000, ge=1)
    """Requests a subject may send at once after a pause."""
    concurrency: int = 16
    """Requests worked on at once; those that wait for the lake do not count."""
    queue: int = 128
    max_body_bytes: int = 4 * 1024 * 1024
    lake_budget_seconds: float = 2.0
    """Longest time an answer waits for features computed from the lake."""
    console_budget_seconds: float = 10.0
    """Longest time one read of the lake for the console may take."""
    outbox_capacity: int = 200_000
    """Audit records that may wait for Kafka; beyond it the API refuses to predict."""
    model_poll_seconds: float = 1.0
    """How often the model slots look at their pointers."""
    model_budget_seconds: float = 0.25
    """Longest the production model may take for up to 64 vectors; late three times in a row, it
    rests for 10 s and the anomaly model answers."""
    shadow_queue: int = 10_000
    """Vectors that may wait for the shadow model; beyond it they are dropped."""
    telemetry_clients: int = 1_000
    """Live-telemetry clients of one API process."""
    telemetry_clients_per_subject: int = 20
    telemetry_machines: int = 500
    """Machines in one live-telemetry subscription."""
    telemetry_queue: int = 64
    """Messages that wait for a slow client before it misses some."""
    telemetry_heartbeat_seconds: float = 2.0
    """A console that hears nothing for this and 2 s more says that it lost the connection."""


class OidcSettings(BaseModel, frozen=True, extra="forbid"):
    """Sign-in at an OpenID Connect provider; empty issuer = none."""

    issuer: str = ""
    """https://…, as in the provider's discovery document; http only on this computer."""
    client_id: str = "aegisops-console"
    """The console, a public client with PKCE."""
    audience: str = "aegisops-api"
    """`aud` that access tokens must carry."""
    scopes: str = "openid profile"
    role_claim: str = "roles"
    """Claim with the subject's role or groups; dots go into objects: realm_access.roles."""
    roles: dict[str, str] = Field(default_factory=dict)
    """Value of that claim → viewer, operator, engineer or admin; the highest counts. Empty = the
    claim holds these words themselves."""
    sites_claim: str = "sites"
    areas_claim: str = "areas"
    """Claims with the sites and areas a subject may see; absent from a token = all."""

    @property
    def origin(self) -> str:
        """Scheme, host and port of the issuer; empty without one."""
        parts = urlsplit(self.issuer)
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


class StreamSettings(BaseModel, frozen=True, extra="forbid"):
    """Commit intervals of the two stream applications, in seconds."""

    lake_commit_seconds: float = 5.0
    feature_commit_seconds: float = 0.5
    max_future_seconds: float = 300.0
    """A reading dated further ahead of arrival than this is quarantined."""
    max_past_days: float = 7_300.0
    """A reading older than this at arrival is quarantined."""
    max_bad_share: float = Field(default=0.5, ge=0, le=1)
    """The lake writer stops before a flush of which a larger share is bad; 1 never stops."""
    max_buffer_mb: int = Field(default=16, ge=1)
    """Payloads an application holds before it flushes early; larger flushes cost more CPU."""
    restarts: int = 0
    """Told by the supervisor: how often it has started this process again."""
    instance: str = "0"
    """Tells several processes of one application apart; stable over restarts."""
    lake_metrics_port: int = 18101
    feature_metrics_port: int = 18102
    """Prometheus ports; 0 = none."""


class AlarmSettings(BaseModel, frozen=True, extra="forbid"):
    """Alarm engine."""

    evaluate_seconds: float = 1.0
    """Interval of the limit and data alarms."""
    risk_seconds: float = 60.0
    """Interval of the full decision for every machine, for advisories; each is an audit record."""
    fleet_seconds: float = 15.0
    """Interval of looking for machines that were registered or removed."""
    lead_seconds: float = 5.0
    """An engine that is silent for this long is replaced by another one."""
    shelve_hours: float = 12.0
    """Longest time an alarm may be shelved."""
    port: int = 18103
    """Probes and metrics of the engine; 0 = none."""
    webhook_url: str = ""
    """PagerDuty Events v2 address for notifications; empty = none."""
    webhook_routing_key: SecretStr | None = None
    webhook_routing_key_file: Path | None = None
    """File with the routing key, instead of the variable."""
    webhook_priority: int = Field(default=2, ge=1, le=4)
    """Alarms of this priority and more urgent ones are notified."""


class WorkOrderSettings(BaseModel, frozen=True, extra="forbid"):
    """Where drafts of work orders go."""

    webhook_url: str = ""
    """Gets each draft and each outcome as JSON; empty = none."""
    webhook_token: SecretStr | None = None
    """Sent as `Authorization: Bearer`."""


class GatewaySettings(BaseModel, frozen=True, extra="forbid"):
    """Sensor gateway: OPC UA and MQTT to Kafka."""

    mapping: Path | None = None
    """Mapping file: which nodes and topics are which machine's channels."""
    pki_dir: Path | None = None
    """OPC UA certificates: own, trusted, rejected; data_dir/gateway/pki when absent."""
    spool_max_bytes: int = 2 * 1024**3
    """What may wait on disk for Kafka; beyond it sources have to wait."""
    metrics_port: int = 18104
    """Prometheus metrics, /livez and /readyz; 0 = none."""


class MlflowSettings(BaseModel, frozen=True, extra="forbid"):
    """Model registry; empty = sqlite and a folder under data_dir."""

    tracking_uri: str = ""


class DagsterSettings(BaseModel, frozen=True, extra="forbid"):
    """Dagster UI."""

    port: int = 13000


class EngineSettings(BaseModel, frozen=True, extra="forbid"):
    """Where tiles and features are built; training stays in one process."""

    kind: Literal["local", "dask"] = "local"
    """local = threads of the run's process; dask = a cluster (pip install 'aegisops[dask]')."""
    workers: int = Field(default=0, ge=0)
    """0 = one per processor."""
    address: str = ""
    """Dask scheduler, tcp://host:8786; empty = worker processes on this computer."""


class SigningSettings(BaseModel, frozen=True, extra="forbid"):
    """Key files; empty = keys made under data_dir/keys at first use (development)."""

    private_key: Path | None = None
    public_key: Path | None = None
    key_password: SecretStr | None = None


class Settings(BaseSettings):
    """All settings; frozen, unknown AEGIS_ variables are refused by `aegisops doctor`."""

    model_config = SettingsConfigDict(
        env_prefix="AEGIS_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    data_dir: Path = Path(".aegis")
    lake_url: str = ""
    """Delta root: a folder or object-store URL; empty = data_dir/lake."""
    classes_dir: Path | None = None
    """Folder with further machine classes (*.toml)."""
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    registry: RegistrySettings = RegistrySettings()
    api: ApiSettings = ApiSettings()
    oidc: OidcSettings = OidcSettings()
    work_orders: WorkOrderSettings = WorkOrderSettings()
    stream: StreamSettings = StreamSettings()
    alarms: AlarmSettings = AlarmSettings()
    gateway: GatewaySettings = GatewaySettings()
    mlflow: MlflowSettings = MlflowSettings()
    dagster: DagsterSettings = DagsterSettings()
    engine: EngineSettings = EngineSettings()
    signing: SigningSettings = SigningSettings()

    @property
    def lake_root(self) -> str:
        """Where the Delta tables are."""
        return self.lake_url or str(self.data_dir.absolute() / "lake")

    @property
    def gateway_pki(self) -> Path:
        """OPC UA certificates of the gateway."""
        return self.gateway.pki_dir or self.data_dir.absolute() / "gateway" / "pki"

    @property
    def bundles_dir(self) -> Path:
        """Exported model bundles and the pointer the model slot follows."""
        return self.data_dir.absolute() / "bundles"

    @property
    def forests_dir(self) -> Path:
        """The newest Isolation Forest of each class, until a bundle takes it."""
        return self.data_dir.absolute() / "forests"

    @property
    def drift_reports_dir(self) -> Path:
        """Drift reports: a folder per class, JSON for ever and the last HTML pages."""
        return self.data_dir.absolute() / "reports" / "drift"

    @property
    def keys_dir(self) -> Path:
        """Development keys (signing, JWT)."""
        return self.data_dir.absolute() / "keys"

    @property
    def mlflow_uri(self) -> str:
        """MLflow tracking and registry URI."""
        return self.mlflow.tracking_uri or f"sqlite:///{self.data_dir.absolute()}/mlflow.db"
