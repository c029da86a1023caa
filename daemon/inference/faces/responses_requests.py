"""Requests of OpenAI's Responses API, field for field; docs/inference.md tells which of them have an effect."""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from daemon.inference.faces.translation import chat_request, read_field
from daemon.inference.parameters import EmptyObject, No, Null, Zero, neutral, without_nulls
from daemon.inference.requests import ChatRequest, StreamOptions
from ratchet_client.settings import FrozenModel
from streams.calls.faces import Earlier, seen_by, tools_offered
from streams.calls.records import Face
from streams.errors import RequestRefusedError

_NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
}
# They are sent to the chat as they are.
_SAMPLING = (
    *("temperature", "top_p", "stream", "parallel_tool_calls", "structured_outputs", "seed", "stop", "ignore_eos"),
    *("top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias"),
    *("skip_special_tokens", "include_stop_str_in_output"),
)
_LOGPROBS = "message.output_text.logprobs"


class TextOptions(FrozenModel):
    format: dict[str, JsonValue] | None = None
    verbosity: Annotated[JsonValue, neutral("medium")] = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        return without_nulls(value)


class ReasoningOptions(FrozenModel):
    """`effort` is told to a chat template that knows efforts. What a model reasons is told whole."""

    effort: JsonValue = None
    summary: JsonValue = None
    generate_summary: JsonValue = None
    context: JsonValue = None


class ResponsesRequest(FrozenModel):
    """`POST /v1/responses`. A reply has at most `max_output_tokens`, or what there is room for."""

    model: str
    input: str | tuple[dict[str, JsonValue], ...]
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    tools: tuple[dict[str, JsonValue], ...] = ()
    tool_choice: JsonValue = "auto"
    parallel_tool_calls: bool = True
    text: TextOptions = TextOptions()
    stream: bool = False
    temperature: JsonValue = 1.0
    top_p: JsonValue = 1.0
    truncation: Literal["auto", "disabled"] = "disabled"
    top_logprobs: int = Field(default=0, ge=0, le=20, description="Of each token of a text, if `include` asks for any.")
    # Whether later requests may name the response by its id.
    store: bool = True
    # vLLM's.
    structured_outputs: JsonValue = None
    seed: JsonValue = None
    stop: JsonValue = None
    ignore_eos: JsonValue = None
    top_k: JsonValue = None
    min_p: JsonValue = None
    repetition_penalty: JsonValue = None
    frequency_penalty: JsonValue = None
    presence_penalty: JsonValue = None
    logit_bias: JsonValue = None
    skip_special_tokens: JsonValue = None
    include_stop_str_in_output: JsonValue = None

    # No reply depends on them.
    metadata: dict[str, JsonValue] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, JsonValue] | None = None
    stream_options: StreamOptions = StreamOptions()
    max_tool_calls: int | None = Field(default=None, description="Of tools that the server runs: there are none.")
    include: tuple[str, ...] = ()
    request_id: str | None = None
    cache_salt: str | None = None

    background: No = None
    conversation: Null = None
    prompt: Null = None
    moderation: Null = None
    reasoning: ReasoningOptions = ReasoningOptions()
    priority: Zero = None
    context_management: Null = None
    vllm_xargs: EmptyObject = None
    kv_transfer_params: EmptyObject = None
    mm_processor_kwargs: EmptyObject = None
    enable_response_messages: No = None
    previous_input_messages: Null = None
    previous_response: Null = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        return without_nulls(value)

    def as_chat(self, earlier: Earlier) -> ChatRequest:
        """The chat that the request continues; `earlier` knows the responses that it may name.

        Raises:
            RequestValidationError: a field is wrong, or not served.
            RequestRefusedError: the response that it continues is not known.
        """
        previous = self.previous_response_id
        if previous is not None and earlier(previous) is None:
            raise RequestRefusedError(
                400,
                "previous_response_not_found",
                f"previous_response_id: {previous:.100} not found; send the whole conversation as input",
            )
        body = self.model_dump(
            mode="json", include={"input", "instructions", "previous_response_id", "tools"}, exclude_none=True
        )
        fields: dict[str, Any] = {
            "model": self.model,
            "messages": read_field("input", lambda: seen_by(Face.RESPONSES, body, earlier)),
            "tools": read_field("tools", lambda: tools_offered(Face.RESPONSES, body)),
            "tool_choice": _tool_choice(self.tool_choice),
            "max_tokens": self.max_output_tokens,
            "response_format": self._format(),
            "reasoning_effort": self.reasoning.effort,
            "logprobs": _LOGPROBS in self.include,
            "top_logprobs": self.top_logprobs if _LOGPROBS in self.include else 0,
            "stream_options": {"include_usage": True},
        }
        return chat_request(fields | {name: getattr(self, name) for name in _SAMPLING}, _NAMES)

    def _format(self) -> dict[str, JsonValue] | None:
        told = self.text.format
        if told is None or told.get("type") != "json_schema":
            return told
        return {"type": "json_schema", "json_schema": {key: each for key, each in told.items() if key != "type"}}


def _tool_choice(value: JsonValue) -> JsonValue:
    """The choice as chat completions have it: there a function has its name one level deeper."""
    if not isinstance(value, dict):
        return value
    if value.get("type") == "function" and "function" not in value:
        return {"type": "function", "function": {"name": value.get("name")}}
    tools = value.get("tools")
    if value.get("type") == "allowed_tools" and isinstance(tools, list):
        chosen: list[JsonValue] = [_tool_choice(tool) for tool in tools]
        return {"type": "allowed_tools", "allowed_tools": {"mode": value.get("mode"), "tools": chosen}}
    return value
