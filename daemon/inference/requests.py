"""The requests of the HTTP server, field for field as OpenAI and vLLM have them.

A field that is not served is refused and not ignored: a caller would otherwise believe that it had an effect. Fields of
a message are the exception: they are kept, and the chat template takes those that it knows.
"""

from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from daemon.inference.formats import ToolChoice, function_of, read_response_format, read_structured, read_tool_choice
from daemon.inference.grammar import AnswerRule
from daemon.inference.parameters import No, UnservedInChat, UnservedInCompletions, without_nulls
from ratchet_client.events import Seed
from ratchet_client.messages import Message, ToolDefinition
from ratchet_client.settings import FrozenModel

# Longer ones no file system takes.
_LONGEST_PATH = 4096
_LONGEST_NAME = 255

HIGHEST_TEMPERATURE = 2.0
_PART = '{"type": "text", "text": …}'


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _as_sent(message: Any) -> Any:
    """A message as clients send replies back: vLLM's name of the reasoning, and empty fields that say nothing."""
    if not isinstance(message, dict):
        return message
    sent = without_nulls(message)
    content = sent.get("content")
    if content is not None and not isinstance(content, str) and not _is_parts(content):
        raise _refusal(f"the content must be null, a text or a list of parts: {_PART}")
    if sent.get("role") == "assistant" and "reasoning" in sent:
        sent.setdefault("reasoning_content", sent["reasoning"])
        del sent["reasoning"]
    empty = ("tool_calls",) if sent.get("role") == "assistant" else ("tool_calls", "reasoning_content", "reasoning")
    return {key: value for key, value in sent.items() if value or key not in empty}


def _is_parts(content: Any) -> bool:
    return isinstance(content, list | tuple) and all(
        isinstance(part, dict) and isinstance(part.get("type"), str) and isinstance(part.get("text"), str | None)
        for part in content
    )


def _one_prompt(value: Any) -> Any:
    tokens = isinstance(value, list | tuple) and all(type(each) is int and 0 <= each < 2**31 for each in value)
    if not value or not (isinstance(value, str) or tokens):
        raise _refusal("send one text or one list of tokens, not empty; several prompts take a request each")
    return value


def _readable(message: Message) -> Message:
    unreadable = sorted(set(message.unreadable()))
    if unreadable:
        raise _refusal(f"{', '.join(unreadable)}: only texts and calls of functions can be read; leave it out")
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

    @field_validator("structured_outputs")
    @classmethod
    def _one_format(cls, value: AnswerRule | None, others: ValidationInfo) -> AnswerRule | None:
        if value is not None and others.data.get("response_format") is not None:
            raise _refusal("a reply can have one format only; send it or response_format")
        return value


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

    `reasoning_effort` is told to a chat template that knows efforts, and has no effect with any other.
    `add_generation_prompt`, `include_reasoning`, `prompt_logprobs` and `return_token_ids` are vLLM's; `prompt_logprobs`
    may only be 0: of the tokens themselves, not of alternatives. The last two do not stream.
    """

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, description="Newer name of `max_tokens`.")
    min_tokens: int = Field(default=0, ge=0)
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: Annotated[ToolChoice | None, BeforeValidator(read_tool_choice)] = None
    parallel_tool_calls: bool = True
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
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
            raise _refusal("; ".join(faults))
        return tools

    @field_validator("tool_choice")
    @classmethod
    def _of_these_tools(cls, choice: ToolChoice | None, others: ValidationInfo) -> ToolChoice | None:
        if choice is not None and "tools" in others.data:
            offered = [function_of(tool)["name"] for tool in others.data["tools"]]
            unknown = [name for name in choice.names or () if name not in offered]
            if unknown:
                raise _refusal(f"{', '.join(unknown)} not among the tools; name one of them")
            if choice.mode == "required" and not offered:
                raise _refusal("without tools no call can be made; send tools with it")
        return choice

    @field_validator("min_tokens")
    @classmethod
    def _not_above_most(cls, least: int, others: ValidationInfo) -> int:
        return _within(least, others.data.get("max_completion_tokens") or others.data.get("max_tokens"))

    @field_validator("top_logprobs")
    @classmethod
    def _with_logprobs(cls, count: int, others: ValidationInfo) -> int:
        if count and not others.data.get("logprobs", True):
            raise _refusal("they are told with the log-probabilities of the reply; send logprobs true with it")
        return count

    @field_validator("prompt_logprobs", "return_token_ids")
    @classmethod
    def _not_streamed(cls, wanted: Any, others: ValidationInfo) -> Any:
        if wanted is not None and wanted is not False and others.data.get("stream"):
            raise _refusal("not served with stream; leave one of them out")
        return wanted


class CompletionRequest(UnservedInCompletions, _Sampled):
    """`POST /v1/completions`.

    `echo` is served with `max_tokens` 0 alone, and then asks for the log-probabilities of the prompt: with `logprobs` 0
    only, of its own tokens.
    """

    prompt: Annotated[str | tuple[TokenId, ...], BeforeValidator(_one_prompt)]
    max_tokens: int = Field(default=16, ge=0)
    min_tokens: int = Field(default=0, ge=0)
    logprobs: int | None = Field(default=None, ge=0, le=5)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    echo: bool = Field(default=False, validate_default=True)

    @field_validator("min_tokens")
    @classmethod
    def _not_above_most(cls, least: int, others: ValidationInfo) -> int:
        return _within(least, others.data.get("max_tokens"))

    @field_validator("echo")
    @classmethod
    def _with_no_reply(cls, echo: bool, others: ValidationInfo) -> bool:
        if "max_tokens" in others.data and echo != (others.data["max_tokens"] == 0):
            raise _refusal("echo is served with max_tokens 0, and max_tokens 0 with echo only")
        if echo and others.data.get("stream"):
            raise _refusal("not served with stream; leave one of them out")
        if echo and others.data.get("logprobs"):
            raise _refusal("with echo only logprobs 0 are served: those of the prompt's own tokens")
        return echo


def _refusal(reason: str) -> PydanticCustomError:
    return PydanticCustomError("not_served", "{reason}", {"reason": reason})


def _within(least: int, most: int | None) -> int:
    if most is not None and least > most:
        raise _refusal(f"{least} are more than max_tokens, which is {most}; send fewer")
    return least


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
