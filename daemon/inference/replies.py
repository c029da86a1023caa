"""From the updates of a request's sequences to its reply, whole or in pieces. The HTTP routes call it."""

import itertools
from collections.abc import AsyncIterator, Iterable

from transformers import PreTrainedTokenizerFast

from daemon.inference.answers import Answer
from daemon.inference.engine import Engine
from daemon.inference.reading import ReplyReader
from daemon.inference.requests import ChatRequest, CompletionRequest
from daemon.inference.schemas import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    ChatLogprobs,
    ChatReply,
    CompletionChoice,
    CompletionLogprobs,
    CompletionReply,
    LikelyToken,
    PromptDetails,
    PromptLogprob,
    ReplyMessage,
    TokenLogprob,
    Usage,
)
from daemon.inference.sequence import Update


def chat_reply(engine: Engine, request: ChatRequest, answer: Answer, updates: list[Update]) -> ChatReply:
    """The whole reply of the finished sequences."""
    choices = []
    for index, update in enumerate(updates):
        reader = _reader(engine, request)
        reader.add(update.text)
        message = reader.message(cut=update.finish_reason == "length")
        choices.append(
            ChatChoice(
                index=index,
                message=message,
                logprobs=_chat_logprobs(engine.tokenizer, request, update) if request.logprobs else None,
                finish_reason=_finish_reason(update, message),
                stop=update.stopped_by,
                token_ids=list(update.tokens) if request.return_token_ids else None,
            )
        )
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

    readers = [_reader(engine, request) for _ in range(request.n)]
    for index, reader in enumerate(readers):
        # A content that is null at the end must never have been a text.
        delta = ChatDelta(role="assistant", content=None if reader.reads else "")
        yield chunk(ChatChunkChoice(index=index, delta=delta, logprobs=None, finish_reason=None))
    drawn = cached = 0
    async for index, update in answer.updates():
        drawn += len(update.tokens)
        cached = update.cached if index == 0 else cached
        logprobs = _chat_logprobs(engine.tokenizer, request, update) if request.logprobs else None
        deltas, finish_reason = [readers[index].add(update.text)], None
        if update.finish_reason is not None:
            message = readers[index].message(cut=update.finish_reason == "length")
            finish_reason = _finish_reason(update, message)
            deltas += readers[index].rest(message)
        for place, delta in enumerate(deltas, start=1):
            last = finish_reason if place == len(deltas) else None
            stop = update.stopped_by if last else None
            yield chunk(ChatChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=last, stop=stop))
            logprobs = None
    if request.stream_options.include_usage:
        yield chunk(usage=_usage(answer, drawn, cached))


def completion_reply(
    engine: Engine, request: CompletionRequest, answer: Answer, updates: list[Update]
) -> CompletionReply:
    """The whole reply of the finished sequences."""
    choices = []
    for index, update in enumerate(updates):
        tokens, values, text = list(update.tokens), list[float | None](update.logprobs), update.text
        if request.echo:
            tokens, values = answer.sequences[index].prompt.tolist(), [None, *update.prompt_logprobs]
            text = "".join(_word(engine.tokenizer, token) for token in tokens)
        logprobs, _ = _completion_logprobs(engine.tokenizer, request, update, tokens, values)
        finish_reason = str(update.finish_reason)
        choices.append(CompletionChoice(index=index, text=text, logprobs=logprobs, finish_reason=finish_reason))
    usage = _usage(answer, _drawn(updates), updates[0].cached)
    return CompletionReply(
        id=f"cmpl-{answer.id}", created=answer.created, model=request.model, choices=choices, usage=usage
    )


async def completion_chunks(
    engine: Engine, request: CompletionRequest, answer: Answer
) -> AsyncIterator[CompletionReply]:
    """The reply piece by piece, at the end of each choice its finish reason; the usage as in `chat_chunks`."""

    def chunk(*choices: CompletionChoice, usage: Usage | None = None) -> CompletionReply:
        return CompletionReply(
            id=f"cmpl-{answer.id}", created=answer.created, model=request.model, choices=list(choices), usage=usage
        )

    drawn = cached = 0
    lengths = [0] * request.n
    async for index, update in answer.updates():
        drawn += len(update.tokens)
        cached = update.cached if index == 0 else cached
        logprobs, lengths[index] = _completion_logprobs(
            engine.tokenizer, request, update, list(update.tokens), list(update.logprobs), lengths[index]
        )
        if update.text or update.finish_reason is not None or logprobs is not None:
            yield chunk(
                CompletionChoice(index=index, text=update.text, logprobs=logprobs, finish_reason=update.finish_reason)
            )
    if request.stream_options.include_usage:
        yield chunk(usage=_usage(answer, drawn, cached))


def _completion_logprobs(
    tokenizer: PreTrainedTokenizerFast,
    request: CompletionRequest,
    update: Update,
    tokens: list[int],
    values: list[float | None],
    begin: int = 0,
) -> tuple[CompletionLogprobs | None, int]:
    """The log-probabilities of tokens whose text begins at `begin`, if they were asked for, and where it ends."""
    if request.logprobs is None:
        return None, begin
    likeliest = [
        {_shown(tokenizer, request, token): value for token, value in (*likely, (drawn, logprob))}
        for likely, drawn, logprob in zip(update.likeliest, update.tokens, update.logprobs, strict=False)
    ]
    words = [_shown(tokenizer, request, token) for token in tokens]
    *offsets, end = itertools.accumulate((len(word) for word in words), initial=begin)
    logprobs = CompletionLogprobs(
        tokens=words, token_logprobs=values, text_offset=offsets, top_logprobs=likeliest or None
    )
    return logprobs, end


def _reader(engine: Engine, request: ChatRequest) -> ReplyReader:
    return ReplyReader(request, engine.chat_of(request.reasoning_effort).reply_format, engine.special_tokens)


def _finish_reason(update: Update, message: ReplyMessage) -> str:
    return "tool_calls" if update.finish_reason == "stop" and message.tool_calls else str(update.finish_reason)


def _chat_logprobs(tokenizer: PreTrainedTokenizerFast, request: ChatRequest, update: Update) -> ChatLogprobs:
    def told(token: int, logprob: float) -> LikelyToken:
        return LikelyToken(
            token=_shown(tokenizer, request, token), logprob=logprob, bytes=list(_word(tokenizer, token).encode())
        )

    likeliest = update.likeliest or ((),) * len(update.tokens)
    return ChatLogprobs(
        content=[
            TokenLogprob(**dict(told(token, logprob)), top_logprobs=[told(*each) for each in likely])
            for token, logprob, likely in zip(update.tokens, update.logprobs, likeliest, strict=True)
        ]
    )


def _shown(tokenizer: PreTrainedTokenizerFast, request: ChatRequest | CompletionRequest, token: int) -> str:
    return f"token_id:{token}" if request.return_tokens_as_token_ids else _word(tokenizer, token)


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
