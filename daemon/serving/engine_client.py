"""The client of the inference servers as the settings describe them, for every part that asks one directly."""

from daemon.serving.settings import ServingSettings
from streams.policy.client import PolicyClient


class EngineClient(PolicyClient):
    """A client that names the setting when the server wants another key."""

    key_remedy = "set engine.api_key to the server's --api-key"


def engine_client(settings: ServingSettings, url: str | None = None, timeout_s: float | None = None) -> EngineClient:
    """A client of the server at `url`, by default the first one, which gates are played on.

    `timeout_s` takes the place of the settings' own.
    """
    return EngineClient(
        url or settings.inference_url,
        settings.timeout_s if timeout_s is None else timeout_s,
        settings.engine_key.get_secret_value(),
        settings.base_name,
    )
