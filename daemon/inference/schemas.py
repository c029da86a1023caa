"""The requests and replies of the HTTP server, field for field as OpenAI and vLLM have them.

A field that is not served is refused and not ignored: a caller would otherwise believe that it had an effect.
"""

from importlib.metadata import version
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from daemon.inference.parameters import No, UnservedInChat, UnservedInCompletions, without_nulls
from streams.events import Message, Seed
from streams.settings import FrozenModel

# Longer ones no file system takes.
_LONGEST_PATH = 4096
_LONGEST_NAME = 255

HIGHEST_TEMPERATURE = 2.0
# OpenAI's name for what computed a reply.
FINGERPRINT = f"ratchet-{version('ratchetd')}"


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _as_sent(message: Any) -> Any:
    """A message without the fields of a reply's message that say nothing, so that it may be sent back as it came."""
    if not isinstance(message, dict):
        return message
    empty = {"tool_calls": [], "annotations": [], "refusal": "", "reasoning_content": "", "reasoning": ""}
    return {key: value for key, value in without_nulls(message).items() if empty.get(key) != value or key not in empty}


# Each is searched for behind every token; OpenAI takes four.
StopStrings: TypeAlias = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...], Field(max_length=64), BeforeValidator(_as_list)
]
ChatMessage: TypeAlias = Annotated[Message, BeforeValidator(_as_sent)]


TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class _Sampled(FrozenModel):
    model: str
    n: int = Field(default=1, ge=1, le=128)
    temperature: float = Field(default=1.0, ge=0, le=HIGHEST_TEMPERATURE)
    top_p: float = Field(default=1.0, ge=0, le=1)
    seed: Seed | None = None
    stop: StopStrings = ()


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

    `add_generation_prompt`, `prompt_logprobs` and `return_token_ids` are vLLM's; `prompt_logprobs` may only be 0: of
    the tokens themselves, not of alternatives. The last two do not stream.
    """

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, description="Newer name of `max_tokens`.")
    logprobs: bool = False
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    add_generation_prompt: bool = True
    prompt_logprobs: Literal[0] | None = None
    prompt_logprobs_from_message: int = Field(
        default=0,
        ge=0,
        description="Ours: tokens of the messages before this one, counted from 0, are not scored and may be cached.",
    )
    return_token_ids: bool = False


class CompletionRequest(UnservedInCompletions, _Sampled):
    """`POST /v1/completions`. `logprobs` may only be 0: of the tokens themselves, not of alternatives.

    `echo` is served with `max_tokens` 0 alone, and then asks for the log-probabilities of the prompt.
    """

    prompt: Annotated[str, Field(min_length=1)] | Annotated[tuple[TokenId, ...], Field(min_length=1)]
    max_tokens: int = Field(default=16, ge=0)
    logprobs: Literal[0] | None = None
    stream_options: StreamOptions = Field(default=StreamOptions(), description="Of no effect: nothing streams.")
    echo: bool = False


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


class PromptDetails(FrozenModel):
    cached_tokens: int


class Usage(FrozenModel):
    """`cached_tokens` were not computed again; with n > 1 the prompt counts once and cached tokens are the first's."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class TokenLogprob(FrozenModel):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: tuple[()] = ()


class ChatLogprobs(FrozenModel):
    """Of every drawn token, the end token or a stop string's included."""

    content: list[TokenLogprob]
    refusal: None = None


class ReplyMessage(FrozenModel):
    """`refusal` is always null, and there because clients expect it."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(FrozenModel):
    index: int
    message: ReplyMessage
    logprobs: ChatLogprobs | None
    finish_reason: str
    token_ids: list[int] | None


class PromptLogprob(FrozenModel):
    """vLLM's `Logprob`; the rank is not computed."""

    logprob: float
    rank: None = None
    decoded_token: str


class ChatReply(FrozenModel):
    """`prompt_logprobs` has an entry for each token of the prompt, by its id; None for one that is not scored."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[ChatChoice]
    usage: Usage
    prompt_logprobs: list[dict[int, PromptLogprob] | None] | None
    prompt_token_ids: list[int] | None


class ChatDelta(FrozenModel):
    """A field that is None is not sent."""

    role: Literal["assistant"] | None = None
    content: str | None = None

    @model_serializer(mode="wrap")
    def _without_nulls(self, dump: SerializerFunctionWrapHandler) -> Any:
        return without_nulls(dump(self))


class ChatChunkChoice(FrozenModel):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: str | None


class ChatChunk(FrozenModel):
    """`usage` is sent only where it was asked for: null in all chunks but the last, which has no choices."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class CompletionLogprobs(FrozenModel):
    """Parallel lists; the first token of an echoed prompt has no log-probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    text_offset: list[int]
    top_logprobs: None = None


class CompletionChoice(FrozenModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str


class CompletionReply(FrozenModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[CompletionChoice]
    usage: Usage


class ModelCard(FrozenModel):
    """`root` is the model's folder; `parent` the base model's name, for an adapter."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["ratchet"] = "ratchet"
    root: str
    parent: str | None
    max_model_len: int


class ModelList(FrozenModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Stats(FrozenModel):
    """Tokens since the start (of prompts computed and reused, of replies drawn) and replies under way or waiting."""

    prefilled: int
    reused: int
    decoded: int
    active: int
    waiting: int
