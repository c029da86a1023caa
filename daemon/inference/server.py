"""The HTTP server of the engine: OpenAI's API, Anthropic's Messages and vLLM's adapter endpoints.

`__main__` runs `serve`; `faces` has the APIs that are translated into chat completions.

The reply's `model` is the name that was asked for: this server knows no aliases, the gateway does.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from daemon.inference.answers import chat_answer, completion_answer
from daemon.inference.delivery import finals, json_response, streamed
from daemon.inference.engine import Engine
from daemon.inference.faces.routes import add_faces
from daemon.inference.replies import chat_chunks, chat_reply, completion_chunks, completion_reply
from daemon.inference.requests import (
    ChatRequest,
    CompletionRequest,
    LoadAdapterRequest,
    StreamOptions,
    UnloadAdapterRequest,
)
from daemon.inference.schemas import ChatChunk, CompletionReply, ModelCard, ModelList, Stats
from daemon.inference.settings import InferenceSettings
from streams.errors import RequestRefusedError, SupervisorError
from streams.runtime.health import add_health
from streams.runtime.http_errors import ErrorReply, answer_errors
from streams.runtime.http_server import KEEP_ALIVE_S
from streams.runtime.logs import adopt_uvicorn

# Streams that are still open when the server is told to stop get this long.
_LAST_SECONDS = 1
_DONE = "data: [DONE]\n\n"


def serve(settings: InferenceSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises `ConfigurationError` if `settings.model` holds no model, and `SupervisorError` when the engine failed: the
    supervisor then starts the process again.
    """
    engine = Engine(settings)
    config = uvicorn.Config(
        create_app(engine),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_LAST_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_S,
        backlog=2048,
    )
    adopt_uvicorn()
    server = uvicorn.Server(config)

    def end() -> None:
        server.should_exit = True

    engine.on_failure = end
    server.run()
    if engine.failed:
        raise SupervisorError("the inference engine failed; the log says of what")


def create_app(engine: Engine) -> FastAPI:
    """The application; it starts `engine` and closes it at its end."""

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            await asyncio.to_thread(engine.close)

    app = FastAPI(title="Ratchet inference", lifespan=running, openapi_url=None)
    started = int(time.time())

    answer_errors(app, invalid=400)  # as OpenAI has it

    async def is_alive() -> str:
        return "" if engine.alive else "the engine failed, or has not started yet; the log says of what"

    add_health(app, {"engine": is_alive})

    @app.get("/health")
    async def health() -> Response:
        return Response(status_code=200 if engine.alive else 503)

    @app.get("/stats")
    async def stats() -> Stats:
        return Stats(**asdict(engine.load()))

    def cards() -> list[ModelCard]:
        return [
            ModelCard(
                id=model.name,
                created=started,
                root=str(model.root),
                parent=model.parent,
                max_model_len=engine.max_length,
            )
            for model in engine.models()
        ]

    @app.get("/v1/models")
    @app.get("/v1/models/")
    async def models() -> ModelList:
        return ModelList(data=cards())

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> ModelCard:
        loaded = {card.id: card for card in cards()}
        if name not in loaded:
            raise RequestRefusedError(
                404, "model_not_found", f"the model {name!r:.100} is not loaded; there are {', '.join(loaded)}"
            )
        return loaded[name]

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        answer = await chat_answer(engine, body)
        if body.stream:
            events = _events(chat_chunks(engine, body, answer), body.stream_options)
            return streamed(answer, events, _error_event, _DONE)
        updates = await finals(answer, request)
        return json_response(chat_reply(engine, body, answer, updates).model_dump_json())

    @app.post("/v1/completions", response_model=None)
    async def complete(body: CompletionRequest, request: Request) -> Response:
        answer = await completion_answer(engine, body)
        if body.stream:
            events = _events(completion_chunks(engine, body, answer), body.stream_options)
            return streamed(answer, events, _error_event, _DONE)
        updates = await finals(answer, request)
        return json_response(completion_reply(engine, body, answer, updates).model_dump_json())

    add_faces(app, engine)

    @app.post("/v1/load_lora_adapter")
    async def load_adapter(body: LoadAdapterRequest) -> PlainTextResponse:
        await asyncio.to_thread(engine.load_adapter, body.lora_name, Path(body.lora_path))
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload_adapter(body: UnloadAdapterRequest) -> PlainTextResponse:
        await asyncio.to_thread(engine.unload_adapter, body.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")

    return app


def _error_event(_: int, reply: ErrorReply) -> str:
    return f"data: {reply.model_dump_json()}\n\n"


async def _events(
    chunks: AsyncIterator[ChatChunk] | AsyncIterator[CompletionReply], options: StreamOptions
) -> AsyncIterator[str]:
    unwanted = None if options.include_usage else {"usage"}
    async for chunk in chunks:
        yield f"data: {chunk.model_dump_json(exclude=unwanted)}\n\n"
