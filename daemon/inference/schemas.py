"""The requests and replies of the HTTP server, field for field as OpenAI and vLLM have them.

A field that is not served is refused and not ignored: a caller would otherwise believe that it had an effect.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from streams.events import Message
from streams.settings import FrozenModel


def _as_list(value: object) -> object:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


StopStrings = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_list)]


TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class _Sampled(FrozenModel):
    model: str
    n: int = Field(default=1, ge=1, le=128)
    temperature: float = Field(default=1.0, ge=0, le=10)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = None
    stop: StopStrings = ()
    user: str | None = Field(default=None, description="Accepted and not used.")


class ChatRequest(_Sampled):
    """`POST /v1/chat/completions`. Without `max_tokens` a reply may fill the rest of the model's length.

    `add_generation_prompt`, `prompt_logprobs` and `return_token_ids` are vLLM's; `prompt_logprobs` may only be 0: of
    the tokens themselves, not of alternatives. The last two do not stream.
    """

    messages: tuple[Message, ...] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, description="Newer name of `max_tokens`.")
    logprobs: bool = False
    stream: bool = False
    add_generation_prompt: bool = True
    prompt_logprobs: Literal[0] | None = None
    prompt_logprobs_from_message: int = Field(
        default=0,
        ge=0,
        description="Ours: tokens of the messages before this one, counted from 0, are not scored and may be cached.",
    )
    return_token_ids: bool = False


class CompletionRequest(_Sampled):
    """`POST /v1/completions`. `logprobs` may only be 0: of the tokens themselves, not of alternatives.

    `echo` is served with `max_tokens` 0 alone, and then asks for the log-probabilities of the prompt.
    """

    prompt: Annotated[str, Field(min_length=1)] | Annotated[tuple[TokenId, ...], Field(min_length=1)]
    max_tokens: int = Field(default=16, ge=0)
    logprobs: Literal[0] | None = None
    echo: bool = False


class LoadAdapterRequest(FrozenModel):
    lora_name: str = Field(min_length=1, max_length=200)
    lora_path: str = Field(min_length=1)


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


class ChatChoice(FrozenModel):
    index: int
    message: Message
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
    choices: list[ChatChoice]
    usage: Usage
    prompt_logprobs: list[dict[int, PromptLogprob] | None] | None
    prompt_token_ids: list[int] | None


class ChatDelta(FrozenModel):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(FrozenModel):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: str | None


class ChatChunk(FrozenModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]


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
