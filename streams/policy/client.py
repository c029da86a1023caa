"""The one client of the inference server: branching, evaluation and probes all go through it.

It speaks the OpenAI API and vLLM's adapter endpoints, so the server may be vLLM or the embedded one.
"""

import asyncio
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, Field, ValidationError

from ratchet_client.errors import ConfigurationError, RatchetError
from ratchet_client.messages import MESSAGE, Message, Tools
from ratchet_client.settings import FrozenModel, server_url
from streams.errors import ContextLengthError, PolicyError
from streams.policy.likelihood import (
    ChatFrame,
    NegativeLogLikelihood,
    Observed,
    action_span,
    frame_probe,
    observation_spans,
    observed,
    read_frame,
    with_role,
)
from streams.runtime.http_client import HttpClient


class Sampling(FrozenModel):
    """Sampling parameters of replies. Temperature 0 is greedy. The server has defaults for what is None."""

    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int | None = Field(
        default=None, ge=1, description="Longest reply, in tokens; none means the limit of the environment's harness."
    )
    stop: tuple[str, ...] | None = Field(
        default=None, description="Texts that end a reply; none means those of the environment's harness."
    )
    seed: int | None = None

    def within(self, max_tokens: int, stop: tuple[str, ...]) -> Self:
        """The same, with these limits where it has none of its own."""
        own = self.model_dump(include={"max_tokens", "stop"}, exclude_none=True)
        return self.model_copy(update={"max_tokens": max_tokens, "stop": stop} | own)


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `model` is the name that really served it.

    `logprobs` are per token, in nats, as the model has them before temperature and `top_p` change anything, and
    `tokens` the texts of these, the token included that ends the turn.
    """

    message: Message
    model: str
    finish_reason: str
    logprobs: tuple[float, ...] = ()
    tokens: tuple[str, ...] = ()

    def ends_itself(self, stop: Sequence[str]) -> bool:
        """Return whether a token of the model's own ended the turn, and neither a limit nor one of the texts `stop`.

        To be asked of a reply with `tokens`.
        """
        said = "".join(self.tokens)
        return self.finish_reason in ("stop", "tool_calls") and not any(text in said for text in stop)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """An entry of `/v1/models`; `root` is an adapter's folder, `parent` its base model, None for the base itself.

    `owner` is the server's word for who made it, which tells vLLM from others.
    """

    name: str
    root: str
    parent: str | None
    owner: str = ""


# Neither of the two is a `FrozenModel`: the server's reply has many more fields.
class _TokenLogprob(BaseModel):
    logprob: float


class _ScoredPrompt(BaseModel):
    """The part of a reply that is about the prompt; an entry holds its token's id, maybe among likelier ones."""

    prompt_token_ids: tuple[int, ...]
    prompt_logprobs: tuple[dict[int, _TokenLogprob] | None, ...]


BASE = "base"
"""The base model's name everywhere in Ratchet."""


class PolicyClient(HttpClient):
    """An asynchronous client of the inference server, or of the gateway before it.

    `base_url` may end with `/v1`. `base_name` is the server's own name for the base model; callers write `base`, and
    read it. Raises `ConfigurationError` where `base_url` is not the URL of a server.
    """

    server = "the inference server"
    remedy = "is it running?"
    error = PolicyError
    # What Ratchet asks for is not an agent's doing: the gateway must not record it.
    headers: ClassVar[Mapping[str, str]] = {"x-ratchet-capture": "off"}

    def __init__(self, base_url: str, timeout_s: float = 300.0, token: str = "", base_name: str = BASE) -> None:
        try:
            super().__init__(server_url(base_url), timeout_s, token)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        self.base_name = base_name
        self._frame: ChatFrame | None = None
        self._framing = asyncio.Lock()

    def error_of(self, body: bytes) -> type[RatchetError]:
        # OpenAI's code, which the embedded server has too, and the words of vLLM.
        too_long = b"context_length_exceeded" in body or b"maximum context length" in body
        return ContextLengthError if too_long else PolicyError

    async def chat(
        self,
        model: str,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        tools: Tools = (),
        n: int = 1,
        logprobs: bool = False,
    ) -> list[Reply]:
        """`n` replies to the chat `messages` by `model`, which may call `tools`.

        Raises `ContextLengthError` when there is no room for a reply, and `PolicyError` for all else.
        """
        body = {
            **_chat(self.name_there(model), messages, tools),
            "n": n,
            "logprobs": logprobs,
            **sampling.model_dump(exclude_none=True),
        }
        answer = (await self._call("POST", "/v1/chat/completions", body)).json()
        return [_reply(self._name_here(answer["model"]), choice) for choice in answer["choices"]]

    async def prompt_logprobs(self, model: str, prompt: str | Sequence[int]) -> list[float]:
        """The log-probability, in nats, of each token of `prompt`, a text or token ids, but the first."""
        body = {"model": self.name_there(model), "prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 0}
        answer = (await self._call("POST", "/v1/completions", body)).json()
        return [float(value) for value in answer["choices"][0]["logprobs"]["token_logprobs"][1:]]

    async def negative_log_likelihoods(
        self, model: str, messages: Sequence[Message], tools: Tools = ()
    ) -> tuple[NegativeLogLikelihood, ...]:
        """The negative log-likelihood of each observation of an episode under `model`, by one request for all.

        The assistant messages of the chat `messages` are actions, and the messages between one and the next, or the
        end, are an observation; an action without any has none. `PolicyError` also where their tokens cannot be told
        apart.
        """
        found = observed(messages)
        return await self._likelihoods(model, messages[: found[-1].end], found, tools) if found else ()

    async def negative_log_likelihood(
        self, model: str, messages: Sequence[Message], tools: Tools = ()
    ) -> NegativeLogLikelihood:
        """The negative log-likelihood of the observation with which the chat ends, under `model`.

        What other chats share with `messages` up to there is not computed again by the embedded server.
        """
        found = observed(messages)
        if not found or found[-1].end != len(messages):
            raise PolicyError("only an observation that answers an action can be scored: end the chat with the two")
        return (await self._likelihoods(model, messages, found[-1:], tools))[0]

    async def action_logprobs(self, model: str, messages: Sequence[Message], tools: Tools = ()) -> tuple[float, ...]:
        """The log-probability, in nats, of each token of the action with which the chat ends, under `model`.

        The token that ends the action is not among them: a reply that was cut off has none.
        """
        if not messages or messages[-1].role != "assistant":
            raise PolicyError("only a chat that ends with an action can be scored for it: end it with the assistant's")
        frame = await self._framed(model, set())
        scored = await self._score(model, messages, len(messages) - 1, tools)
        return _logprobs(scored, *action_span(scored.prompt_token_ids, messages, frame))

    async def _likelihoods(
        self, model: str, messages: Sequence[Message], wanted: Sequence[Observed], tools: Tools
    ) -> tuple[NegativeLogLikelihood, ...]:
        """Of the observations `wanted`, the last ones of the chat."""
        frame = await self._framed(model, {messages[each.begin].role for each in observed(messages)})
        scored = await self._score(model, messages, wanted[0].begin, tools)
        spans = observation_spans(scored.prompt_token_ids, messages, frame)
        return tuple(_likelihood(scored, *span) for span in spans[-len(wanted) :])

    async def _framed(self, model: str, roles: Set[str]) -> ChatFrame:
        """The frame of chats whose observations begin with `roles`. The server is asked for each role once."""
        async with self._framing:
            frame = self._frame or read_frame(*[await self._tokens(model, frame_probe(letter)) for letter in "ab"])
            for role in sorted(roles - frame.before_observation.keys()):
                frame = with_role(frame, role, *[await self._tokens(model, frame_probe(x, role)) for x in "ab"])
            self._frame = frame
            return frame

    async def _tokens(self, model: str, messages: Sequence[Message]) -> tuple[int, ...]:
        return (await self._score(model, messages, 0, ())).prompt_token_ids

    async def _score(self, model: str, messages: Sequence[Message], first: int, tools: Tools) -> _ScoredPrompt:
        """The chat's tokens, with log-probabilities at least of those of the messages from `first` on."""
        body = {
            **_chat(self.name_there(model), messages, tools),
            "max_tokens": 1,
            "temperature": 0,
            "add_generation_prompt": False,
            "prompt_logprobs": 0,
            "prompt_logprobs_from_message": first,
            "return_token_ids": True,
        }
        answer = (await self._call("POST", "/v1/chat/completions", body)).json()
        try:
            return _ScoredPrompt.model_validate(answer)
        except ValidationError as error:
            raise PolicyError(
                f"the inference server at {self.base_url} scores no prompts; use the embedded one or vLLM 0.10.2"
            ) from error

    async def models(self, timeout_s: float | None = None) -> list[ServedModel]:
        """The models that the server has now; `timeout_s` takes the place of the client's own."""
        answer = await self._call("GET", "/v1/models", timeout_s=timeout_s)
        try:
            return [
                ServedModel(
                    name=self._name_here(entry["id"]),
                    root=entry.get("root") or entry["id"],
                    parent=self._name_here(entry["parent"]) if entry.get("parent") else None,
                    owner=entry.get("owned_by") or "",
                )
                for entry in answer.json()["data"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PolicyError(
                f"{self.base_url}/v1/models is no list of models as OpenAI's API has it; is this an inference server?"
            ) from error

    async def check_health(self, timeout_s: float | None = None) -> None:
        """Raise `PolicyError` where the server says that its engine is dead; one that has no `/health` passes."""
        answer = await self._send("GET", "/health", timeout_s=timeout_s)
        if answer.is_server_error:
            raise PolicyError(f"{self.base_url}/health says {answer.status_code}: its engine is dead; see its log")

    async def version(self, timeout_s: float | None = None) -> str:
        """The server's version as it says it; empty where it says none."""
        answer = await self._call("GET", "/version", timeout_s=timeout_s)
        try:
            return str(answer.json()["version"])
        except (ValueError, KeyError, TypeError):
            return ""

    def name_there(self, model: str) -> str:
        """The server's name for `model`."""
        return self.base_name if model == BASE else model

    def _name_here(self, model: str) -> str:
        return BASE if model == self.base_name else model

    async def load_adapter(self, name: str, path: str) -> None:
        """Load the adapter in folder `path` under `name`, which must never have been used before."""
        await self._call("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})

    async def unload_adapter(self, name: str) -> None:
        await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name})


def _chat(model: str, messages: Sequence[Message], tools: Tools) -> dict[str, Any]:
    """The part of a request that is the chat. Servers refuse null in places where they accept that nothing stands."""
    chat: dict[str, Any] = {"model": model, "messages": list(map(_written, messages))}
    return chat | ({"tools": list(tools)} if tools else {})


def _written(message: Message) -> dict[str, Any]:
    fields = message.model_dump(mode="json", exclude_none=True)
    return fields if message.calls else {"content": ""} | fields


def _reply(model: str, choice: dict[str, Any]) -> Reply:
    told = (choice.get("logprobs") or {}).get("content") or ()
    return Reply(
        message=_replied(choice["message"]),
        model=model,
        finish_reason=choice["finish_reason"],
        logprobs=tuple(float(token["logprob"]) for token in told),
        tokens=tuple(str(token.get("token", "")) for token in told),
    )


def _replied(message: dict[str, Any]) -> Message:
    """The message of a choice. Raises `PolicyError` when it is not a message.

    vLLM writes no calls as an empty list, and calls what the model thought `reasoning`; so do newer APIs.
    """
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    fields = {name: value for name, value in message.items() if name != "reasoning" and value not in (None, [])}
    if fields.get("tool_calls") and not fields.get("content"):
        fields.pop("content", None)
    try:
        return MESSAGE.validate_python(fields | {"role": "assistant", "reasoning_content": reasoning or None})
    except ValidationError as error:
        raise PolicyError(
            f"the inference server replied with a message that is not one of the OpenAI API, {error.error_count()} of "
            "its fields are wrong: does the server's tool-call parser fit the model?"
        ) from error


def _likelihood(scored: _ScoredPrompt, begin: int, end: int) -> NegativeLogLikelihood:
    values = _logprobs(scored, begin, end)
    if not values:
        raise PolicyError("an observation has no tokens, so it has no likelihood")
    return NegativeLogLikelihood(nats=-sum(values) / len(values), tokens=len(values))


def _logprobs(scored: _ScoredPrompt, begin: int, end: int) -> tuple[float, ...]:
    entries = zip(scored.prompt_token_ids[begin:end], scored.prompt_logprobs[begin:end], strict=False)
    values = tuple(entry[token].logprob for token, entry in entries if entry is not None and token in entry)
    if len(values) != end - begin:
        raise PolicyError(f"the inference server scored {len(values)} of the {end - begin} tokens of a message")
    return values
