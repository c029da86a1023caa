"""The operator's settings of the environment `openenv`: which server it is, and how a plain one is to be understood."""

from typing import Literal, Self

from pydantic import ConfigDict, Field, SecretStr, WebsocketUrl, model_validator

from ratchet_client.settings import FrozenModel, Secret
from streams.environments.harness import ChatHarness
from streams.environments.openenv.protocol import MESSAGE_BYTES

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class OpenEnvSettings(FrozenModel):
    """Settings of one server. What follows `message_bytes` is for servers that do not say it of themselves."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: WebsocketUrl = Field(description="The server's WebSocket, such as ws://127.0.0.1:8000/ws.")
    token: Secret = Field(default=SecretStr(""), description="Sent as a bearer token when it is not empty.")
    connect_timeout_s: float = Field(default=10.0, gt=0, description="Longest time, in seconds, to connect.")
    answer_timeout_s: float = Field(default=60.0, gt=0, description="Longest time, in seconds, to wait for an answer.")
    message_bytes: int = Field(default=MESSAGE_BYTES, ge=1024, description="Longest message sent or taken, in bytes.")

    deterministic: bool = Field(
        default=False, description="Whether the same task and actions always give the same answers."
    )
    side_effects: bool = Field(
        default=True, description="Whether an action may change anything outside of the server's own session."
    )
    harness: ChatHarness = Field(default=ChatHarness(), description="How its states are rendered for the policy.")
    task_field: str = Field(
        default="task_id",
        description="The parameter of a reset that takes the task's id; empty: the id is the parameters, in JSON.",
    )
    action_field: str = Field(
        default="", description="The field of the action that takes the text; empty: the text is the action, in JSON."
    )
    tools: bool = Field(
        default=False, description="Whether its tools are called, by OpenEnv's own actions list_tools and call_tool."
    )
    text_field: str = Field(
        default="",
        description="The field of the observation that is the text or the chat messages, with dots for fields of "
        "fields; empty: all of it, in JSON.",
    )
    reward: Literal["gain", "score"] = Field(
        default="gain", description="Whether a reward adds to the score so far, or is the score so far."
    )
    full_reward: float = Field(default=1.0, gt=0, description="The reward that is the score 1, and success.")

    def hosts(self) -> tuple[str, ...]:
        """The server, as `host:port`."""
        return (f"{self.url.host}:{self.url.port}",)

    @model_validator(mode="after")
    def _nothing_secret_is_shown(self) -> Self:
        if self.url.username or self.url.password:
            raise ValueError("url must hold no user or password, for it is logged; use token")
        if self.token.get_secret_value() and self.url.scheme == "ws" and self.url.host not in _LOOPBACK:
            raise ValueError("token would travel unencrypted; use a wss:// url")
        return self
