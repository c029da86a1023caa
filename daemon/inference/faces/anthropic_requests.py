"""Requests of Anthropic's Messages API, field for field; docs/inference.md tells which of them have an effect."""

from typing import Any, Literal

from pydantic import Field, JsonValue, model_validator

from daemon.inference.faces.translation import chat_request, read_field, refused
from daemon.inference.parameters import EmptyList, EmptyObject, Null, without_nulls
from daemon.inference.requests import ChatRequest
from ratchet_client.settings import FrozenModel
from streams.calls.faces import Body, seen_by, tools_offered
from streams.calls.records import Face

_NAMES = {"stop": "stop_sequences", "response_format": "output_config.format"}
_MODES = {"auto": "auto", "any": "required", "none": "none"}


class ChosenTool(FrozenModel):
    """`name` goes with the type `tool`."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class CountRequest(FrozenModel):
    """`POST /v1/messages/count_tokens`."""

    model: str
    messages: tuple[dict[str, JsonValue], ...] = Field(min_length=1)
    system: str | tuple[dict[str, JsonValue], ...] | None = None
    tools: tuple[dict[str, JsonValue], ...] = ()
    tool_choice: ChosenTool | None = None
    # A model reasons as its chat template has it. The others are about the caller, storage, cost and cache.
    thinking: dict[str, JsonValue] | None = None
    cache_control: dict[str, JsonValue] | None = None
    context_management: dict[str, JsonValue] | None = None
    output_config: dict[str, JsonValue] | None = None
    output_format: dict[str, JsonValue] | None = None
    speed: str | None = None

    mcp_servers: EmptyList = None
    # vLLM's.
    chat_template_kwargs: EmptyObject = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        return without_nulls(value)

    def as_chat(self, **more: Any) -> ChatRequest:
        """The chat that the request asks for. Raises `RequestValidationError`."""
        body: Body = {"messages": list(self.messages), "tools": list(self.tools)}
        if self.system is not None:
            body["system"] = self.system if isinstance(self.system, str) else list(self.system)
        chosen = self.tool_choice
        if chosen is not None and (chosen.type == "tool") != (chosen.name is not None):
            raise refused("tool_choice", "name: goes with the type tool, and only with it")
        fields: dict[str, Any] = {
            "model": self.model,
            "messages": read_field("messages", lambda: seen_by(Face.ANTHROPIC, body)),
            "tools": read_field("tools", lambda: tools_offered(Face.ANTHROPIC, body)),
            "response_format": self._format(),
            **more,
        }
        if chosen is not None:
            named = {"type": "function", "function": {"name": chosen.name}}
            fields["tool_choice"] = named if chosen.type == "tool" else _MODES[chosen.type]
            fields["parallel_tool_calls"] = not chosen.disable_parallel_tool_use
        return chat_request(fields, _NAMES)

    def _format(self) -> dict[str, Any] | None:
        told = self.output_format or (self.output_config or {}).get("format")
        if told is None:
            return None
        if not isinstance(told, dict) or told.get("type") != "json_schema" or set(told) - {"type", "schema", "name"}:
            raise refused("output_config.format", 'not served; send {"type": "json_schema", "schema": …}')
        return {"type": "json_schema", "json_schema": {"schema": told.get("schema"), "strict": True}}


class MessagesRequest(CountRequest):
    """`POST /v1/messages`. The reply has at most `max_tokens`, or what there is room for."""

    max_tokens: int = Field(ge=1, lt=2**31)
    stop_sequences: tuple[JsonValue, ...] = ()
    stream: bool = False
    temperature: JsonValue = 1.0
    top_p: JsonValue = 1.0
    top_k: JsonValue = 0
    metadata: dict[str, JsonValue] | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    container: Null = None
    # vLLM's.
    kv_transfer_params: EmptyObject = None

    def as_chat(self, **more: Any) -> ChatRequest:
        own = {
            "max_tokens": self.max_tokens,
            "stop": self.stop_sequences,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "stream": self.stream,
            "stream_options": {"include_usage": True},
        }
        return super().as_chat(**own, **more)
