"""Settings of sandboxes; the branch role and the learner take them, within those of branching."""

from pathlib import Path

from pydantic import Field, JsonValue

from ratchet_client.settings import FrozenModel
from streams.sandboxes.isolation.settings import Isolation, Limits
from streams.sandboxes.permissions import Permissions


class SandboxSettings(FrozenModel):
    """Settings of sandbox processes: their number, their time limits and their isolation."""

    sandboxes: int = Field(default=1, ge=1, description="Sandbox processes of each environment.")
    step_timeout_s: float = Field(default=10.0, gt=0, description="Longest time, in seconds, for a step or a reset.")
    isolation: Isolation = Field(
        default="auto", description="What keeps sandboxes apart from the machine; auto is the best that works here."
    )
    limits: Limits = Field(default=Limits(), description="What one sandbox process may use.")
    readable: tuple[Path, ...] = Field(
        default=(),
        description="Further files and folders that sandboxes may read, such as packages installed as editable.",
    )
    permissions: dict[str, Permissions] = Field(
        default={}, description="What the sandboxes of one environment may reach besides, by the environment's name."
    )
    environments: dict[str, dict[str, JsonValue]] = Field(
        default={}, description="Settings of environments that have some, by the environment's name."
    )
