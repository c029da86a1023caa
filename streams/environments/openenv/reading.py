"""Conversion between texts and the actions and observations of a plain OpenEnv server, by the operator's settings.

`environment.py` reads every server so that does not offer the extension's own words.
"""

import json

from pydantic import JsonValue, TypeAdapter, ValidationError

from streams.environments.environment import Observation
from streams.environments.openenv.protocol import ObservationData
from streams.environments.openenv.settings import OpenEnvSettings
from streams.errors import SandboxError

_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


def mapped_action(text: str, settings: OpenEnvSettings) -> dict[str, JsonValue] | None:
    """The action that `text` is, or None when it is none."""
    if settings.action_field:
        return {settings.action_field: text}
    try:
        return _OBJECT.validate_json(text)
    except ValidationError:
        return None


def mapped_observation(data: ObservationData, score: float, settings: OpenEnvSettings) -> Observation:
    """`score` is the score so far. Raises `SandboxError` for an observation without the settings' `text_field`."""
    earned = (data.reward or 0.0) / settings.full_reward
    score = min(1.0, max(0.0, score + earned if settings.reward == "gain" else earned))
    return Observation(_text(data, settings.text_field), score, data.done, success=score >= 1.0)


def _text(data: ObservationData, field: str) -> str:
    if not field:
        shown = {name: value for name, value in data.observation.items() if name != "metadata"}
        return json.dumps(shown, sort_keys=True, ensure_ascii=False)
    if field not in data.observation:
        raise SandboxError(
            f"the OpenEnv server's observation has no field {field!r}, but {sorted(data.observation)}. "
            "Correct the settings' text_field."
        )
    value = data.observation[field]
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
