"""The replies of the HTTP server, field for field as OpenAI and vLLM have them. `requests.py` has the requests."""

from importlib.metadata import version
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from daemon.inference.parameters import without_nulls
from ratchet_client.messages import ToolCall
from ratchet_client.settings import FrozenModel

# OpenAI's name for what computed a reply.
FINGERPRINT = f"ratchet-{version('ratchetd')}"


class PromptDetails(FrozenModel):
    cached_tokens: int


class Usage(FrozenModel):
    """`cached_tokens` were not computed again; with n > 1 the prompt counts once and cached tokens are the first's."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class LikelyToken(FrozenModel):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(LikelyToken):
    top_logprobs: list[LikelyToken]


class ChatLogprobs(FrozenModel):
    """Of every drawn token, the end token or a stop string's included."""

    content: list[TokenLogprob]
    refusal: None = None


class ReplyMessage(FrozenModel):
    """`refusal` is always null, and there because clients expect it. The last two are sent where there are any."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, dump: SerializerFunctionWrapHandler) -> Any:
        told = dump(self)
        return {key: value for key, value in told.items() if key in ("content", "refusal") or value is not None}


class ChatChoice(FrozenModel):
    """`stop` is the stop string that ended the reply, if one did: other APIs tell it, this one does not."""

    index: int
    message: ReplyMessage
    logprobs: ChatLogprobs | None
    finish_reason: str
    stop: str | None = Field(default=None, exclude=True)
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


class FunctionDelta(FrozenModel):
    name: str
    arguments: str


class CallDelta(FrozenModel):
    """A whole call: none is told before its last token. `index` counts the calls of a reply."""

    index: int
    id: str
    type: Literal["function"] = "function"
    function: FunctionDelta


class ChatDelta(FrozenModel):
    """A field that is None is not sent."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallDelta] | None = None

    @model_serializer(mode="wrap")
    def _without_nulls(self, dump: SerializerFunctionWrapHandler) -> Any:
        return without_nulls(dump(self))


class ChatChunkChoice(FrozenModel):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    stop: str | None = Field(default=None, exclude=True)


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
    top_logprobs: list[dict[str, float]] | None = None


class CompletionChoice(FrozenModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None


class CompletionReply(FrozenModel):
    """A reply, or a piece of a streamed one: then `usage` is as in `ChatChunk`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[CompletionChoice]
    usage: Usage | None = None


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
    """Tokens since the start (of prompts computed and reused, of replies drawn, drafted, and drawn as drafted), and
    replies under way or waiting."""

    prefilled: int
    reused: int
    decoded: int
    drafted: int
    accepted: int
    active: int
    waiting: int
