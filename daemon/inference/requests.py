"""The requests of the HTTP server, field for field as OpenAI and vLLM have them.

A field that is not served is refused and not ignored: a caller would otherwise believe that it had an effect. Fields of
a message are the exception: they are kept, and the chat template takes those that it knows.
"""

from pathlib import PurePath
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from daemon.inference.formats import ToolChoice, read_response_format, read_structured, read_tool_choice
from daemon.inference.grammar import AnswerRule
from daemon.inference.parameters import No, UnservedInChat, UnservedInCompletions, without_nulls
from streams.events import Seed
from streams.messages import Message, ToolDefinition
from streams.settings import FrozenModel

# Longer ones no file system takes.
_LONGEST_PATH = 4096
_LONGEST_NAME = 255

HIGHEST_TEMPERATURE = 2.0


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _as_sent(message: Any) -> Any:
    """A message as clients send replies back: vLLM's name of the reasoning, and empty fields that say nothing."""
    if not isinstance(message, dict):
        return message
    sent = without_nulls(message)
    if sent.get("role") == "assistant" and "reasoning" in sent:
        sent.setdefault("reasoning_content", sent["reasoning"])
        del sent["reasoning"]
    empty = ("tool_calls",) if sent.get("role") == "assistant" else ("tool_calls", "reasoning_content", "reasoning")
    return {key: value for key, value in sent.items() if value or key not in empty}


def _readable(message: Message) -> Message:
    if not message.is_readable:
        raise ValueError("only texts and calls of functions can be read: leave images, audio, files and others out")
    return message


TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Penalty: TypeAlias = Annotated[float, Field(ge=-2, le=2)]
Bias: TypeAlias = Annotated[float, Field(ge=-100, le=100)]
# Each is searched for behind every token; OpenAI takes four.
StopStrings: TypeAlias = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...], Field(max_length=64), BeforeValidator(_as_list)
]
ChatMessage: TypeAlias = Annotated[Message, BeforeValidator(_as_sent), AfterValidator(_readable)]


class _Sampled(FrozenModel):
    """Parameters of both endpoints, with vLLM's meaning."""

    model: str
    n: int = Field(default=1, ge=1, le=128)
    temperature: float = Field(default=1.0, ge=0, le=HIGHEST_TEMPERATURE)
    top_p: float = Field(default=1.0, ge=0, le=1)
    seed: Seed | None = None
    stop: StopStrings = ()
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    logit_bias: dict[TokenId, Bias] = Field(default={}, max_length=1024)
    response_format: Annotated[AnswerRule | None, BeforeValidator(read_response_format)] = None
    # vLLM's.
    structured_outputs: Annotated[AnswerRule | None, BeforeValidator(read_structured)] = None
    top_k: int = Field(default=0, ge=-1, lt=2**31)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100)
    min_tokens: int = Field(default=0, ge=0)
    ignore_eos: bool = False
    stop_token_ids: tuple[TokenId, ...] = Field(default=(), max_length=1024)
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    bad_words: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] = Field(default=(), max_length=1024)
    allowed_token_ids: tuple[TokenId, ...] | None = Field(default=None, min_length=1)
    return_tokens_as_token_ids: bool = False

    @property
    def answer(self) -> AnswerRule | None:
        """The format in which the reply has to answer, None for any."""
        return self.structured_outputs or self.response_format

    def _faults(self, most_tokens: int | None) -> list[str]:
        """The combinations of parameters that cannot be served."""
        faults = []
        if self.response_format is not None and self.structured_outputs is not None:
            faults.append("response_format, structured_outputs: a reply can have one format only; send one of them")
        if most_tokens is not None and self.min_tokens > most_tokens:
            faults.append(f"min_tokens: {self.min_tokens} are more than max_tokens, which is {most_tokens}")
        return faults


class StreamOptions(FrozenModel):
    """`include_usage` asks for one more event, with the usage. `include_obfuscation` is taken and nothing is added."""

    include_usage: bool = False
    include_obfuscation: bool = False
    continuous_usage_stats: No = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        return without_nulls(value)


class ChatRequest(UnservedInChat, _Sampled):
    """`POST /v1/chat/completions`. Without `max_tokens` a reply may fill the rest of the model's length.

    `add_generation_prompt`, `include_reasoning`, `prompt_logprobs` and `return_token_ids` are vLLM's; `prompt_logprobs`
    may only be 0: of the tokens themselves, not of alternatives. The last two do not stream.
    """

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, description="Newer name of `max_tokens`.")
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: Annotated[ToolChoice | None, BeforeValidator(read_tool_choice)] = None
    parallel_tool_calls: bool = True
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    add_generation_prompt: bool = True
    include_reasoning: bool = True
    prompt_logprobs: Literal[0] | None = None
    prompt_logprobs_from_message: int = Field(
        default=0,
        ge=0,
        description="Ours: tokens of the messages before this one, counted from 0, are not scored and may be cached.",
    )
    return_token_ids: bool = False

    @field_validator("tools")
    @classmethod
    def _only_functions(cls, tools: tuple[ToolDefinition, ...]) -> tuple[ToolDefinition, ...]:
        faults = [fault for index, tool in enumerate(tools) if (fault := _tool_fault(tool, index))]
        if faults:
            raise ValueError("; ".join(faults))
        return tools

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        faults = self._faults(self.max_completion_tokens or self.max_tokens)
        if self.top_logprobs and not self.logprobs:
            faults.append("top_logprobs: they are told with the log-probabilities; send logprobs true with it")
        offered = {name for tool in self.tools if isinstance(name := _function(tool)["name"], str)}
        if self.tool_choice is not None:
            unknown = [name for name in self.tool_choice.names or () if name not in offered]
            if unknown:
                faults.append(f"tool_choice: {', '.join(unknown)} not among the tools; name one of them")
            elif self.tool_choice.mode == "required" and not offered:
                faults.append("tool_choice: without tools no call can be made; send tools with it")
        if self.stream and (self.prompt_logprobs is not None or self.return_token_ids):
            faults.append("prompt_logprobs, return_token_ids: not served with stream; leave one or the other out")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class CompletionRequest(UnservedInCompletions, _Sampled):
    """`POST /v1/completions`.

    `echo` is served with `max_tokens` 0 alone, and then asks for the log-probabilities of the prompt: with `logprobs` 0
    only, of its own tokens.
    """

    prompt: Annotated[str, Field(min_length=1)] | Annotated[tuple[TokenId, ...], Field(min_length=1)]
    max_tokens: int = Field(default=16, ge=0)
    logprobs: int | None = Field(default=None, ge=0, le=5)
    stream_options: StreamOptions = Field(default=StreamOptions(), description="Of no effect: nothing streams.")
    echo: bool = False

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        faults = self._faults(self.max_tokens)
        if self.echo != (self.max_tokens == 0):
            faults.append("echo, max_tokens: echo is served with max_tokens 0, and max_tokens 0 with echo only")
        if self.echo and self.logprobs:
            faults.append("logprobs: above 0 they are not served with echo; send 0")
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _function(tool: ToolDefinition) -> dict[str, Any]:
    function = tool["function"]
    assert isinstance(function, dict)
    return function


def _tool_fault(tool: ToolDefinition, index: int) -> str | None:
    kind, function = tool.get("type"), tool.get("function")
    if kind != "function":
        body = tool.get(kind) if isinstance(kind, str) else None
        name = body.get("name") if isinstance(body, dict) else tool.get("name")
        return f"tool {index}{f' ({name})' if name else ''} is of type {kind!r}, and only functions can be called"
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        return f"tool {index} names no function: send {{'type': 'function', 'function': {{'name': …}}}}"
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        return f"the parameters of {function['name']} are no JSON schema: send an object"
    if isinstance(parameters, dict) and parameters.get("type", "object") != "object":
        return f"the parameters of {function['name']} are of type {parameters['type']!r}, and only objects can be"
    return None


def _possible_path(path: str) -> str:
    if (
        "\0" in path
        or len(path) > _LONGEST_PATH
        or any(len(part.encode()) > _LONGEST_NAME for part in PurePath(path).parts)
    ):
        raise ValueError("no file system has such a path; send that of the adapter's folder")
    return path


class LoadAdapterRequest(FrozenModel):
    lora_name: str = Field(min_length=1, max_length=200)
    lora_path: Annotated[str, Field(min_length=1), AfterValidator(_possible_path)]


class UnloadAdapterRequest(FrozenModel):
    lora_name: str
