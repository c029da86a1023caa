"""An inference server that says what a script has it say, and what was asked of it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from tests.served import served


@dataclass
class ScriptedServer:
    """Serves `models`. The reply to a chat is what `say` makes of the model, the chat and the turn, counted from 0.

    A number in the place of a text is the status of a refusal. `asked` are the model and the first message of the
    user, for each chat that began.
    """

    say: Callable[[str, str, int], str | int]
    models: list[str] = field(default_factory=lambda: ["base", "champion", "candidate"])
    asked: list[tuple[str, str]] = field(default_factory=list)
    is_down: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[str]:
        """The address of the server meanwhile."""
        app = FastAPI()

        @app.get("/v1/models")
        def models() -> Any:
            down = JSONResponse({"error": {"message": "down"}}, 503)
            return down if self.is_down.is_set() else {"data": [{"id": name} for name in self.models]}

        @app.post("/v1/load_lora_adapter")
        def load(body: dict[str, str]) -> None:
            self.models.append(body["lora_name"])

        @app.post("/v1/unload_lora_adapter")
        def unload(body: dict[str, str]) -> None:
            self.models.remove(body["lora_name"])

        @app.post("/v1/chat/completions")
        def chat(body: dict[str, Any]) -> Any:
            first = next(message["content"] for message in body["messages"] if message["role"] == "user")
            turn = sum(message["role"] == "assistant" for message in body["messages"])
            if turn == 0:
                self.asked.append((body["model"], first))
            said = 503 if self.is_down.is_set() else self.say(body["model"], first, turn)
            if isinstance(said, int):
                return JSONResponse({"error": {"message": f"refused with {said}"}}, said)
            # JSON in ASCII, as many servers write it: half of a surrogate pair passes.
            message = {"role": "assistant", "content": said}
            return _Ascii({"model": body["model"], "choices": [{"message": message, "finish_reason": "stop"}]})

        with served(app) as address:
            yield address


class _Ascii(JSONResponse):
    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()
