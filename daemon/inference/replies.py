"""From a request to the sequences that answer it, and from their updates to the reply. The HTTP routes call it."""

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from collections.abc import Sequence as Items

import numpy as np
from transformers import PreTrainedTokenizerFast

from daemon.inference.engine import Engine
from daemon.inference.sampling import SMALLEST_TOP_P
from daemon.inference.schemas import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    ChatLogprobs,
    ChatReply,
    ChatRequest,
    CompletionChoice,
    CompletionLogprobs,
    CompletionReply,
    CompletionRequest,
    PromptDetails,
    PromptLogprob,
    ReplyMessage,
    TokenLogprob,
    Usage,
)
from daemon.inference.sequence import Sequence, Update
from daemon.inference.slots import Tokens
from learners.chat import ChatTokenizer
from streams.errors import ChatTemplateError, RequestRefusedError
from streams.events import Message
from streams.policy.client import Sampling


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
            RequestRefusedError: the engine ended meanwhile.
        """
        unfinished = len(self.sequences)
        while unfinished:
            index, update = await self._told.get()
            if update.finish_reason == "cancelled":
                raise RequestRefusedError(503, "unavailable", "the server stopped before the reply was complete")
            unfinished -= update.finish_reason is not None
            yield index, update

    async def finals(self) -> list[Update]:
        """The last update of each sequence, which is its only one unless it streams."""
        last = {index: update async for index, update in self.updates()}
        return [last[index] for index in range(len(self.sequences))]

    def cancel(self) -> None:
        for sequence in self.sequences:
            sequence.cancelled = True


def chat_answer(engine: Engine, request: ChatRequest) -> Answer:
    """Submit `request` to the engine.

    Raises:
        RequestRefusedError: the prompt is too long, the combination of fields is not served, or the engine refuses it.
    """
    prompt = _chat_tokens(engine.chat, request.messages, generation=request.add_generation_prompt)
    wanted = request.max_completion_tokens or request.max_tokens
    sampling = _sampling(request, _room(engine, prompt, wanted))
    if request.stream and (request.prompt_logprobs is not None or request.return_token_ids):
        raise RequestRefusedError(400, "unsupported", "prompt_logprobs and return_token_ids are not served with stream")
    scored_from = None if request.prompt_logprobs is None else _scored_from(engine.chat, request, prompt)
    return _submit(
        engine, request, prompt, sampling, scored_from=scored_from, stream=request.stream, logprobs=request.logprobs
    )


def completion_answer(engine: Engine, request: CompletionRequest) -> Answer:
    """Submit `request` to the engine.

    Raises:
        RequestRefusedError: the prompt is too long, the combination of fields is not served, or the engine refuses it.
    """
    prompt = _prompt_tokens(engine, request.prompt)
    if request.echo != (request.max_tokens == 0):
        raise RequestRefusedError(
            400, "unsupported", "echo is served with max_tokens 0, and max_tokens 0 with echo only"
        )
    if request.echo:
        _room(engine, prompt, 0)
        return _submit(engine, request, prompt, None, scored_from=1, stream=False, logprobs=False)
    sampling = _sampling(request, _room(engine, prompt, request.max_tokens))
    return _submit(engine, request, prompt, sampling, stream=False, logprobs=request.logprobs is not None)


def chat_reply(engine: Engine, request: ChatRequest, answer: Answer, updates: list[Update]) -> ChatReply:
    choices = [
        ChatChoice(
            index=index,
            message=ReplyMessage(content=update.text),
            logprobs=_chat_logprobs(engine.tokenizer, update) if request.logprobs else None,
            finish_reason=str(update.finish_reason),
            token_ids=list(update.tokens) if request.return_token_ids else None,
        )
        for index, update in enumerate(updates)
    ]
    prompt: list[int] = answer.sequences[0].prompt.tolist()
    return ChatReply(
        id=f"chatcmpl-{answer.id}",
        created=answer.created,
        model=request.model,
        choices=choices,
        usage=_usage(answer, _drawn(updates), updates[0].cached),
        prompt_logprobs=(
            _prompt_logprobs(engine.tokenizer, prompt, updates[0]) if request.prompt_logprobs is not None else None
        ),
        prompt_token_ids=prompt if request.return_token_ids else None,
    )


async def chat_chunks(engine: Engine, request: ChatRequest, answer: Answer) -> AsyncIterator[ChatChunk]:
    """The reply piece by piece; the first piece of each choice carries the role, the last its finish reason.

    The usage is a piece of its own at the end, if it was asked for.
    """

    def chunk(*choices: ChatChunkChoice, usage: Usage | None = None) -> ChatChunk:
        return ChatChunk(
            id=f"chatcmpl-{answer.id}", created=answer.created, model=request.model, choices=list(choices), usage=usage
        )

    for index in range(request.n):
        delta = ChatDelta(role="assistant", content="")
        yield chunk(ChatChunkChoice(index=index, delta=delta, logprobs=None, finish_reason=None))
    drawn = cached = 0
    async for index, update in answer.updates():
        drawn += len(update.tokens)
        cached = update.cached if index == 0 else cached
        logprobs = _chat_logprobs(engine.tokenizer, update) if request.logprobs else None
        delta = ChatDelta(content=update.text)
        yield chunk(ChatChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=update.finish_reason))
    if request.stream_options.include_usage:
        yield chunk(usage=_usage(answer, drawn, cached))


def completion_reply(
    engine: Engine, request: CompletionRequest, answer: Answer, updates: list[Update]
) -> CompletionReply:
    choices = []
    for index, update in enumerate(updates):
        tokens, values = list(update.tokens), list[float | None](update.logprobs)
        if request.echo:
            tokens, values = answer.sequences[index].prompt.tolist(), [None, *update.prompt_logprobs]
        words = [_word(engine.tokenizer, token) for token in tokens]
        offsets = itertools.accumulate((len(word) for word in words[:-1]), initial=0)
        logprobs = CompletionLogprobs(tokens=words, token_logprobs=values, text_offset=list(offsets))
        choices.append(
            CompletionChoice(
                index=index,
                text="".join(words) if request.echo else update.text,
                logprobs=logprobs if request.logprobs is not None else None,
                finish_reason=str(update.finish_reason),
            )
        )
    usage = _usage(answer, _drawn(updates), updates[0].cached)
    return CompletionReply(
        id=f"cmpl-{answer.id}", created=answer.created, model=request.model, choices=choices, usage=usage
    )


def _submit(
    engine: Engine,
    request: ChatRequest | CompletionRequest,
    prompt: Tokens,
    sampling: Sampling | None,
    *,
    scored_from: int | None = None,
    stream: bool,
    logprobs: bool,
) -> Answer:
    answer = Answer()
    for index in range(request.n):
        own = sampling
        if sampling is not None and sampling.seed is not None:
            # Samples of one request must differ, and each be drawn again by the same seed.
            own = sampling.model_copy(update={"seed": sampling.seed + index})
        answer.sequences.append(
            Sequence(
                prompt=prompt,
                sampling=own,
                stop_tokens=engine.stop_tokens,
                tokenizer=engine.tokenizer.backend_tokenizer,
                listen=answer.listener(index),
                # Samples of one request share their prompt, so it is scored once.
                scored_from=scored_from if index == 0 else None,
                stream=stream,
                logprobs=logprobs,
            )
        )
    engine.submit(request.model, answer.sequences)
    return answer


def _chat_tokens(chat: ChatTokenizer, messages: Items[Message], *, generation: bool) -> Tokens:
    try:
        return np.array(chat.prompt(messages, generation=generation), dtype=np.int32)
    except ChatTemplateError as error:
        raise RequestRefusedError(400, "invalid_request", f"messages: {error}") from error


def _scored_from(chat: ChatTokenizer, request: ChatRequest, prompt: Tokens) -> int:
    """The position of the first token to score: the message's own first one, but never the prompt's."""
    message = request.prompt_logprobs_from_message
    if message >= len(request.messages):
        raise RequestRefusedError(400, "invalid_request", f"prompt_logprobs_from_message: message {message} not found")
    if message == 0:
        return 1
    earlier = _chat_tokens(chat, request.messages[:message], generation=False)
    length = min(len(earlier), len(prompt))
    # Where the template writes these messages differently with others behind them, it is scored from there on.
    differs = np.flatnonzero(earlier[:length] != prompt[:length])
    return max(1, int(differs[0]) if differs.size else length)


def _prompt_tokens(engine: Engine, prompt: str | Items[int]) -> Tokens:
    if isinstance(prompt, str):
        return np.array(engine.tokenizer.backend_tokenizer.encode(prompt).ids, dtype=np.int32)
    return np.array(prompt, dtype=np.int32)


def _room(engine: Engine, prompt: Tokens, wanted: int | None) -> int:
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
    if room < (1 if wanted is None else wanted):
        raise RequestRefusedError(
            400,
            "context_length_exceeded",
            f"the prompt has {len(prompt)} tokens and its reply may have {wanted or 1}, "
            f"but the server holds {engine.max_length} for both: shorten the prompt or raise max-length",
        )
    return room if wanted is None else wanted


def _sampling(request: ChatRequest | CompletionRequest, max_tokens: int) -> Sampling:
    return Sampling(
        temperature=request.temperature,
        top_p=max(request.top_p, SMALLEST_TOP_P),
        max_tokens=max_tokens,
        stop=request.stop,
        seed=request.seed,
    )


def _chat_logprobs(tokenizer: PreTrainedTokenizerFast, update: Update) -> ChatLogprobs:
    words = [_word(tokenizer, token) for token in update.tokens]
    return ChatLogprobs(
        content=[
            TokenLogprob(token=word, logprob=logprob, bytes=list(word.encode()))
            for word, logprob in zip(words, update.logprobs, strict=True)
        ]
    )


def _prompt_logprobs(
    tokenizer: PreTrainedTokenizerFast, prompt: list[int], update: Update
) -> list[dict[int, PromptLogprob] | None]:
    unscored = len(prompt) - len(update.prompt_logprobs)
    scored = [
        {token: PromptLogprob(logprob=logprob, decoded_token=_word(tokenizer, token))}
        for token, logprob in zip(prompt[unscored:], update.prompt_logprobs, strict=True)
    ]
    return [*([None] * unscored), *scored]


def _word(tokenizer: PreTrainedTokenizerFast, token: int) -> str:
    word: str = tokenizer.backend_tokenizer.decode([token], skip_special_tokens=False)
    return word


def _drawn(updates: Iterable[Update]) -> int:
    return sum(len(update.tokens) for update in updates)


def _usage(answer: Answer, drawn: int, cached: int) -> Usage:
    prompt = len(answer.sequences[0].prompt)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=drawn,
        total_tokens=prompt + drawn,
        prompt_tokens_details=PromptDetails(cached_tokens=cached),
    )
