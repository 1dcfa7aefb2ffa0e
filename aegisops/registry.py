"""The MLflow edge: runs, model versions and aliases. Nothing that serves imports this module.

A version's source is our own signed bundle; MLflow keeps it, its figures and who moved an alias.
The registry accepts a version whose source does not exist, so `fetch` verifies what it returns.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegisops.errors import Permanent, ServiceUnavailable, UntrustedBundle
from aegisops.names import Alias, model_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "failure-models"
BUNDLE, SIGNATURE = "bundle", "bundle.sig"
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}


@dataclass(frozen=True, slots=True)
class Version:
    """A registered model version."""

    name: str
    version: str
    run_id: str
    digest: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    registered_at: datetime


class ModelRegistry:
    """Versions and aliases of every machine class's failure model."""

    def __init__(self, tracking_uri: str, artifact_dir: Path) -> None:
        """`artifact_dir` is used by a new experiment; MLflow is imported at the first call."""
        self._uri = tracking_uri
        self._artifacts = artifact_dir
        self._made: MlflowClient | None = None
        self._lock = threading.Lock()

    def register(
        self,
        machine_class: str,
        bundle: Path,
        *,
        digest: str,
        metrics: Mapping[str, float],
        parameters: Mapping[str, Any],
        artifacts: tuple[Path, ...] = (),
        tags: Mapping[str, str] | None = None,
    ) -> Version:
        """Log a run with the signed bundle and register it as the class's new candidate."""
        from aegisops import signing

        client = self._client()
        name = model_name(machine_class)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        experiment_id = (
            experiment.experiment_id
            if experiment is not None
            else client.create_experiment(EXPERIMENT, self._artifacts.absolute().as_uri())
        )
        run = client.create_run(experiment_id, run_name=name, tags=dict(tags or {}))
        run_id = run.info.run_id
        for key, value in metrics.items():
            client.log_metric(run_id, key, value)
        for key, value in parameters.items():
            client.log_param(run_id, key, value)
        client.log_artifacts(run_id, str(bundle), BUNDLE)
        client.log_artifact(run_id, str(signing.signature_path(bundle)))
        for path in artifacts:
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id)
        if not any(m.name == name for m in client.search_registered_models()):
            client.create_registered_model(name)
        made = client.create_model_version(
            name,
            source=f"{run.info.artifact_uri}/{BUNDLE}",
            run_id=run_id,
            tags={"digest": digest, **(tags or {})},
        )
        client.set_registered_model_alias(name, Alias.CANDIDATE, made.version)
        return self.get(machine_class, str(made.version))

    def get(self, machine_class: str, version: str) -> Version:
        """One version. Raises `Permanent` when there is none."""
        name = model_name(machine_class)
        found = self._ask(lambda client: client.get_model_version(name, version))
        if found is None:
            raise Permanent(f"{name} has no version {version}")
        return _version(found)

    def by_alias(self, machine_class: str, alias: Alias) -> Version | None:
        """The version an alias points to, if any."""
        name = model_name(machine_class)
        found = self._ask(lambda client: client.get_model_version_by_alias(name, alias))
        return None if found is None else self.get(machine_class, str(found.version))

    def history(self, machine_class: str) -> list[Version]:
        """All versions, newest first."""
        found = self._client().search_model_versions(f"name = '{model_name(machine_class)}'")
        versions = [self.get(machine_class, str(v.version)) for v in found]
        return sorted(versions, key=lambda v: -int(v.version))

    def point(
        self, machine_class: str, alias: Alias, version: str, tags: Mapping[str, str] | None = None
    ) -> None:
        """Move an alias and note why on the version."""
        client, name = self._client(), model_name(machine_class)
        for key, value in (tags or {}).items():
            client.set_model_version_tag(name, version, key, value)
        client.set_registered_model_alias(name, alias, version)

    def unpoint(self, machine_class: str, alias: Alias) -> None:
        """Take an alias away; nothing happens when there is none."""
        if self.by_alias(machine_class, alias) is not None:
            self._client().delete_registered_model_alias(model_name(machine_class), alias)

    def attach(self, version: Version, file: Path) -> None:
        """Add a file to the run that made a version."""
        self._client().log_artifact(version.run_id, str(file))

    def fetch(self, version: Version, target: Path, public_key: Path) -> Path:
        """Copy a version's bundle and signature below `target`; returns the verified bundle.

        Raises `UntrustedBundle` when the signature does not hold.
        """
        from mlflow.exceptions import MlflowException

        from aegisops import signing

        client = self._client()
        target.mkdir(parents=True, exist_ok=True)
        for path in (BUNDLE, SIGNATURE):
            try:
                client.download_artifacts(version.run_id, path, str(target))
            except (MlflowException, OSError) as error:
                raise UntrustedBundle(
                    f"{version.name} {version.version}: {path} is not in MLflow: {error}"
                ) from error
        bundle = target / BUNDLE
        signing.verify(bundle, public_key)
        return bundle

    def open(self) -> None:
        """Import MLflow and make its store, which takes up to ten seconds the first time.

        For a thread beside other work: whoever needs the registry meanwhile waits for it.
        """
        self._client()

    def _client(self) -> MlflowClient:
        with self._lock:
            if self._made is None:
                os.environ |= _QUIET
                from mlflow import MlflowClient

                if self._uri.startswith("sqlite:///"):
                    file = Path(self._uri.removeprefix("sqlite:///"))
                    file.parent.mkdir(parents=True, exist_ok=True)
                self._made = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            return self._made

    def _ask(self, question: Any) -> Any:  # noqa: ANN401 - MLflow is not typed
        from mlflow.exceptions import MlflowException

        try:
            return question(self._client())
        except MlflowException as error:
            if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                return None
            raise ServiceUnavailable(f"MLflow at {self._uri}: {error.message}") from error


def _version(found: Any) -> Version:  # noqa: ANN401 - MLflow is not typed
    return Version(
        name=found.name,
        version=str(found.version),
        run_id=found.run_id,
        digest=found.tags.get("digest", ""),
        aliases=tuple(found.aliases),
        tags=dict(found.tags),
        registered_at=datetime.fromtimestamp(found.creation_timestamp / 1_000, UTC),
    )
