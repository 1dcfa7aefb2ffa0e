"""The command line as a client of the prediction API: mint a token, ask, explain refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from aegisops.errors import Permanent, ServiceUnavailable

if TYPE_CHECKING:
    from aegisops.settings import Settings

UNAVAILABLE = frozenset({429, 502, 503, 504})


class Api:
    """Blocking client of /api/v1 with a freshly minted development token."""

    def __init__(self, settings: Settings, role: str = "operator", timeout: float = 30.0) -> None:
        """Nothing is sent yet; `timeout` in seconds holds for each call."""
        import httpx

        from aegisops.tokens import mint

        host = settings.api.host if settings.api.host != "0.0.0.0" else "127.0.0.1"  # noqa: S104 - any interface: ask the local one
        self.url = f"http://{host}:{settings.api.port}"
        self._client = httpx.Client(
            base_url=self.url,
            timeout=timeout,
            headers={"Authorization": f"Bearer {mint(settings, 'aegisops-cli', role)}"},
            trust_env=False,  # a proxy has no business between two processes of one machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **query: object) -> Any:  # noqa: ANN401 - JSON
        """Answer of GET /api/v1`path`; None in `query` is left out."""
        return self._ask("GET", path, None, {k: v for k, v in query.items() if v is not None})

    def post(self, path: str, body: object) -> Any:  # noqa: ANN401 - JSON
        """Answer of POST /api/v1`path`."""
        return self._ask("POST", path, body)

    def predict_fleet(self, **body: object) -> list[dict[str, Any]]:
        """Answers of /predict/batch, riskiest first; abstentions last."""
        answer = self.post("/predict/batch", body)
        answers = answer["predictions"] if isinstance(answer, dict) else answer
        return sorted(answers, key=lambda a: -(-1 if (p := a["probability"]) is None else p))

    def _ask(
        self, method: str, path: str, body: object, query: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - JSON
        import httpx

        try:
            answer = self._client.request(method, f"/api/v1{path}", json=body, params=query)
        except httpx.TransportError as error:
            raise ServiceUnavailable(
                f"no API answers at {self.url} ({error}); start one with `aegisops up` or "
                "`aegisops demo`, or name a data folder with --data-dir"
            ) from error
        if answer.is_success:
            return answer.json()
        try:
            problem = answer.json()
            text = f"{problem['title']}: {problem['detail']}"
        except (ValueError, KeyError, TypeError):
            text = f"the API answered {answer.status_code}: {answer.text[:200]}"
        kind = ServiceUnavailable if answer.status_code in UNAVAILABLE else Permanent
        raise kind(text)
