"""From a request to the sequences that answer it. The HTTP routes call it; `replies.py` makes the reply of them."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from collections.abc import Sequence as Items
from dataclasses import replace

import numpy as np
from llguidance import LLMatcher

from daemon.inference.engine import Engine
from daemon.inference.formats import demanded_calls
from daemon.inference.grammar import AnswerRule, Calls, ReplyGrammar
from daemon.inference.reading import is_read
from daemon.inference.requests import ChatRequest, CompletionRequest
from daemon.inference.sampling import SMALLEST_TOP_P, SamplingParameters
from daemon.inference.sequence import Sequence, Update
from daemon.inference.slots import Tokens
from daemon.inference.steering import steering_of
from learners.chat import ChatTokenizer
from ratchet_client.messages import Message
from streams.errors import ChatTemplateError, RequestRefusedError


class Answer:
    """The sequences of one request and what they have told so far. Made and used on the event loop."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self.created = int(time.time())
        self.sequences: list[Sequence] = []
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[tuple[int, Update]] = asyncio.Queue()

    def listener(self, index: int) -> Callable[[Update], None]:
        def listen(update: Update) -> None:
            self._loop.call_soon_threadsafe(self._told.put_nowait, (index, update))

        return listen

    async def updates(self) -> AsyncIterator[tuple[int, Update]]:
        """The index of a sequence and its update, in the order they come, until every sequence has finished.

        Raises:
            RequestRefusedError: the engine ended meanwhile, or a grammar could not be followed to its end.
        """
        unfinished = len(self.sequences)
        while unfinished:
            index, update = await self._told.get()
            if update.finish_reason == "cancelled":
                raise RequestRefusedError(503, "unavailable", "the server stopped before the reply was complete")
            if update.finish_reason == "failed":
                raise RequestRefusedError(
                    400,
                    "invalid_grammar",
                    f"the reply could not be held to the schema any further: {update.failure}; simplify the schema",
                )
            unfinished -= update.finish_reason is not None
            yield index, update

    async def finals(self) -> list[Update]:
        """The last update of each sequence, which is its only one unless it streams."""
        last = {index: update async for index, update in self.updates()}
        return [last[index] for index in range(len(self.sequences))]

    def cancel(self) -> None:
        for sequence in self.sequences:
            sequence.cancelled = True


async def chat_answer(engine: Engine, request: ChatRequest, *, capped: bool = False) -> Answer:
    """Submit `request` to the engine. Where it is `capped`, the length of its reply is at most what there is room for.

    Raises:
        RequestRefusedError: the prompt is too long, the format of the reply is not served, or the engine refuses it.
    """
    chat = engine.chat_of(request.reasoning_effort)
    prompt = _chat_tokens(chat, request, request.messages, generation=request.add_generation_prompt)
    wanted = request.max_completion_tokens or request.max_tokens
    keep_special = not request.skip_special_tokens or is_read(request, chat.reply_format)
    sampling = _sampling(engine, request, _room(engine, prompt, wanted, capped=capped), keep_special=keep_special)
    scored_from = None if request.prompt_logprobs is None else _scored_from(chat, request, prompt)
    calls = demanded_calls(request.tools, request.tool_choice, parallel=request.parallel_tool_calls)
    return _submit(
        engine,
        request,
        prompt,
        sampling,
        matcher=await _matcher(engine, chat, calls, request.answer),
        scored_from=scored_from,
        stream=request.stream,
        logprobs=request.logprobs,
        likeliest=request.top_logprobs,
    )


def prompt_length(engine: Engine, request: ChatRequest) -> int:
    """The number of tokens of the request's prompt. Raises `RequestRefusedError` where it has none."""
    chat = engine.chat_of(request.reasoning_effort)
    return len(_chat_tokens(chat, request, request.messages, generation=request.add_generation_prompt))


async def completion_answer(engine: Engine, request: CompletionRequest) -> Answer:
    """Submit `request` to the engine.

    Raises:
        RequestRefusedError: the prompt is too long, the format of the reply is not served, or the engine refuses it.
    """
    prompt = _prompt_tokens(engine, request.prompt)
    room = _room(engine, prompt, request.max_tokens)
    if request.echo:
        return _submit(engine, request, prompt, None, scored_from=1)
    return _submit(
        engine,
        request,
        prompt,
        _sampling(engine, request, room, keep_special=not request.skip_special_tokens),
        matcher=await _matcher(engine, engine.chat, None, request.answer),
        stream=request.stream,
        logprobs=request.logprobs is not None,
        likeliest=request.logprobs or 0,
    )


def _submit(
    engine: Engine,
    request: ChatRequest | CompletionRequest,
    prompt: Tokens,
    sampling: SamplingParameters | None,
    *,
    matcher: LLMatcher | None = None,
    scored_from: int | None = None,
    stream: bool = False,
    logprobs: bool = False,
    likeliest: int = 0,
) -> Answer:
    answer = Answer()
    for index in range(request.n):
        own = sampling
        if own is not None and own.seed is not None:
            # Samples of one request must differ, and each be drawn again by the same seed.
            own = replace(own, seed=own.seed + index)
        answer.sequences.append(
            Sequence(
                prompt=prompt,
                sampling=own,
                tokenizer=engine.tokenizer.backend_tokenizer,
                listen=answer.listener(index),
                # Samples of one request share their prompt, so it is scored once.
                scored_from=scored_from if index == 0 else None,
                stream=stream,
                logprobs=logprobs,
                likeliest=likeliest,
                steering=None if own is None else steering_of(own, prompt, matcher.deep_copy() if matcher else None),
            )
        )
    engine.submit(request.model, answer.sequences)
    return answer


async def _matcher(
    engine: Engine, chat: ChatTokenizer, calls: Calls | None, answer: AnswerRule | None
) -> LLMatcher | None:
    if calls is None and answer is None:
        return None
    grammar = ReplyGrammar(chat.reply_format, engine.special_tokens).text(calls, answer)
    if grammar is None:
        return None
    rules = [*(calls.functions.values() if calls is not None else ()), *([answer] if answer is not None else ())]
    return await asyncio.to_thread(engine.grammars.matcher, grammar, rules)


def _chat_tokens(chat: ChatTokenizer, request: ChatRequest, messages: Items[Message], *, generation: bool) -> Tokens:
    try:
        return np.array(chat.prompt(messages, request.tools, generation=generation), dtype=np.int32)
    except ChatTemplateError as error:
        raise RequestRefusedError(400, "invalid_request", f"messages: {error}") from error


def _scored_from(chat: ChatTokenizer, request: ChatRequest, prompt: Tokens) -> int:
    """The position of the first token to score: the message's own first one, but never the prompt's."""
    message = request.prompt_logprobs_from_message
    if message >= len(request.messages):
        raise RequestRefusedError(400, "invalid_request", f"prompt_logprobs_from_message: message {message} not found")
    if message == 0:
        return 1
    earlier = _chat_tokens(chat, request, request.messages[:message], generation=False)
    length = min(len(earlier), len(prompt))
    # Where the template writes these messages differently with others behind them, it is scored from there on.
    differs = np.flatnonzero(earlier[:length] != prompt[:length])
    return max(1, int(differs[0]) if differs.size else length)


def _prompt_tokens(engine: Engine, prompt: str | Items[int]) -> Tokens:
    if isinstance(prompt, str):
        return np.array(engine.tokenizer.backend_tokenizer.encode(prompt).ids, dtype=np.int32)
    return np.array(prompt, dtype=np.int32)


def _room(engine: Engine, prompt: Tokens, wanted: int | None, *, capped: bool = False) -> int:
    """Return the largest number of tokens that the reply may have."""
    room = engine.max_length - len(prompt)
    if not len(prompt):
        raise RequestRefusedError(400, "invalid_request", "the prompt has no tokens: send some text")
    if int(prompt.max()) >= engine.vocabulary:
        raise RequestRefusedError(
            400,
            "invalid_request",
            f"the prompt holds token {int(prompt.max())}, and the model has {engine.vocabulary}: leave it out",
        )
    if room < (1 if wanted is None or capped else wanted):
        raise RequestRefusedError(
            400,
            "context_length_exceeded",
            f"the prompt has {len(prompt)} tokens and its reply may have {wanted or 1}, "
            f"but the server holds {engine.max_length} for both: shorten the prompt or raise the setting "
            "engine.max_length",
        )
    return room if wanted is None else min(room, wanted)


def _sampling(
    engine: Engine, request: ChatRequest | CompletionRequest, max_tokens: int, *, keep_special: bool
) -> SamplingParameters:
    stops = frozenset(request.stop_token_ids)
    # A reply that a grammar has brought to its end can only end.
    if not request.ignore_eos or request.answer is not None:
        stops |= engine.stop_tokens
    if request.min_tokens > max_tokens:
        raise RequestRefusedError(
            400, "invalid_request", f"min_tokens: {request.min_tokens} are more than the {max_tokens} that fit"
        )
    named = (*request.stop_token_ids, *request.logit_bias, *(request.allowed_token_ids or ()))
    beyond = [token for token in named if token >= engine.vocabulary]
    if beyond:
        raise RequestRefusedError(
            400,
            "invalid_request",
            f"stop_token_ids, logit_bias, allowed_token_ids: the model has {engine.vocabulary} tokens and no token "
            f"{beyond[0]}; leave it out",
        )
    return SamplingParameters(
        temperature=request.temperature,
        top_p=max(request.top_p, SMALLEST_TOP_P),
        top_k=max(request.top_k, 0),
        min_p=request.min_p,
        seed=request.seed,
        max_tokens=max_tokens,
        min_tokens=request.min_tokens,
        stop=request.stop,
        stop_tokens=stops,
        include_stop=request.include_stop_str_in_output,
        keep_special=keep_special,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        repetition_penalty=request.repetition_penalty,
        logit_bias=request.logit_bias,
        allowed_tokens=request.allowed_token_ids,
        bad_words=_bad_words(engine, request.bad_words),
    )


def _bad_words(engine: Engine, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """The tokens of each word, at the beginning of a text and, if they are as many, behind a space, as vLLM has it."""
    encode = engine.tokenizer.backend_tokenizer.encode
    found: list[tuple[int, ...]] = []
    for each in words:
        word = each.lstrip() or each
        bare = tuple(encode(word, add_special_tokens=False).ids)
        spaced = tuple(encode(f" {word}", add_special_tokens=False).ids)
        found += [bare] if bare else []
        found += [spaced] if spaced and len(spaced) == len(bare) and spaced[0] != bare[0] else []
    return tuple(found)
