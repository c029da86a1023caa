"""The engine: a thread that has every loaded model with work do a step, and the adapters that come and go meanwhile.

The HTTP server submits sequences to it and hears of their progress through their listeners.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
from transformers import PreTrainedModel

from daemon.inference.check import check_served
from daemon.inference.grammar import Grammars
from daemon.inference.grammar_words import grammar_tokenizer
from daemon.inference.runner import Counters, Runner
from daemon.inference.sequence import Sequence
from daemon.inference.settings import InferenceSettings
from daemon.inference.stepping import Stepping
from daemon.inference.weights import load_weights, return_memory
from learners.architecture import longest_exact
from learners.chat import ChatTokenizer
from learners.precision import compute_dtype
from ratchet_client.errors import ConfigurationError
from streams.errors import RequestRefusedError
from streams.runtime.tracebacks import where_raised

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that answers to `name`; `root` is its folder and `parent` its base model's name, None for the base."""

    name: str
    root: Path
    parent: str | None
    runner: Runner


@dataclass(frozen=True, slots=True)
class Load:
    """The engine's work since its start, in tokens, and its present queue, in replies."""

    prefilled: int
    reused: int
    decoded: int
    drafted: int
    accepted: int
    active: int
    waiting: int


class Engine:
    """Loads the base model at once; `start` begins to serve it. `on_failure` is called when its thread cannot go on.

    Raises:
        ConfigurationError: the folder holds no model that can be served.
    """

    def __init__(self, settings: InferenceSettings) -> None:
        self._settings = settings
        self._dtype = compute_dtype(settings.dtype)
        model = self._weights(None)
        self.chat = ChatTokenizer(settings.model)
        self.tokenizer = self.chat.tokenizer
        self.vocabulary = int(model.config.get_text_config().vocab_size)
        self.max_length = min(settings.max_length, longest_exact(model.config) or settings.max_length)
        self.stop_tokens = self.chat.stop_tokens
        added = self.tokenizer.backend_tokenizer.get_added_tokens_decoder()
        self.special_tokens = {token.content: number for number, token in added.items() if token.special}
        self.grammars = Grammars(lambda: grammar_tokenizer(self.tokenizer, self.vocabulary, self.stop_tokens))
        check_served(model, self.chat, self._dtype)
        self._unloaded = Counters()
        base = LoadedModel(settings.served_name, settings.model, None, self._runner(model))
        self._models = {base.name: base}
        self._base = base
        self._names_used = {base.name}
        self._closing: set[str] = set()
        self._changed = threading.Condition()
        self._loading = threading.Lock()
        self._arrived: list[tuple[Runner, Sequence]] = []
        self._stopping = False
        self._stepping = Stepping(settings.threads)
        self.failed = False
        self.on_failure: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="inference-engine", daemon=True)

    def chat_of(self, effort: str | None) -> ChatTokenizer:
        """The tokenizer of chats with this effort of reasoning; None is the one that adapters are trained with."""
        return self.chat if effort is None else self.chat.with_effort(effort)

    def start(self) -> None:
        self._thread.start()
        log.info("inference engine started", model=str(self._base.root), dtype=str(self._dtype))

    def close(self) -> None:
        """End the thread after its current forward pass; every unfinished sequence hears that it is cancelled."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        self._stepping.close()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def models(self) -> list[LoadedModel]:
        with self._changed:
            return [model for model in self._models.values() if model.name not in self._closing]

    def load(self) -> Load:
        with self._changed:
            runners = [model.runner for model in self._models.values()]
            done = sum((runner.counters for runner in runners), self._unloaded)
            return Load(
                prefilled=done.prefilled,
                reused=done.reused,
                decoded=done.decoded,
                drafted=done.drafted,
                accepted=done.accepted,
                active=sum(runner.active_count for runner in runners),
                waiting=len(self._arrived) + sum(runner.waiting_count for runner in runners),
            )

    def submit(self, name: str, sequences: Iterable[Sequence]) -> None:
        """Have `sequences` computed by the model called `name`.

        Raises:
            RequestRefusedError: no such model, too much waits already, or the engine has ended.
        """
        added = list(sequences)
        with self._changed:
            if self._stopping or not self.alive:
                raise RequestRefusedError(503, "unavailable", "the server is stopping; try another or try again later")
            model = self._models.get(name)
            if model is None or name in self._closing:
                raise RequestRefusedError(
                    404, "model_not_found", f"the model {name!r} is not loaded; see GET /v1/models"
                )
            waiting = len(self._arrived) + sum(
                other.runner.waiting_count + other.runner.active_count for other in self._models.values()
            )
            if waiting + len(added) > self._settings.max_waiting:
                raise RequestRefusedError(
                    429, "overloaded", f"{waiting} replies are under way or waiting already; try again later"
                )
            self._arrived += [(model.runner, sequence) for sequence in added]
            self._changed.notify_all()

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load the adapter in `folder` under `name`. Takes seconds, while the engine serves on.

        Raises:
            RequestRefusedError: the name was used before, or the folder holds no adapter of the base model.
        """
        with self._changed:
            if name in self._names_used:
                raise RequestRefusedError(
                    400, "name_used", f"the name {name!r} is or was in use, and a name is never used twice"
                )
            self._names_used.add(name)
        try:
            with self._loading:
                model = self._weights(folder)
        except BaseException as error:
            with self._changed:
                self._names_used.discard(name)  # nothing was ever served under it
            if isinstance(error, ConfigurationError):
                raise RequestRefusedError(400, "bad_adapter", str(error)) from error
            raise
        with self._changed:
            self._models[name] = LoadedModel(name, folder, self._base.name, self._runner(model))
        return_memory()
        log.info("adapter loaded", adapter=name, folder=str(folder))

    def unload_adapter(self, name: str) -> None:
        """Refuse new requests to the adapter, wait until those in flight are answered, and free its memory.

        Raises:
            RequestRefusedError: no adapter of that name is loaded.
        """
        self._drain(name)
        return_memory()
        log.info("adapter unloaded", adapter=name)

    def _drain(self, name: str) -> None:
        with self._changed:
            model = self._models.get(name)
            if model is None or model is self._base or name in self._closing:
                raise RequestRefusedError(404, "adapter_not_found", f"no adapter called {name!r} is loaded")
            self._closing.add(name)
            self._changed.wait_for(lambda: self._stopping or self._idle(model.runner))
            del self._models[name]
            self._unloaded += model.runner.counters
            self._closing.remove(name)

    def _weights(self, adapter: Path | None) -> PreTrainedModel:
        torch.set_num_threads(1)  # here and from now on in this thread: the engine's own alone has more (`stepping.py`)
        return load_weights(self._settings.model, adapter, self._dtype)

    def _runner(self, model: PreTrainedModel) -> Runner:
        return Runner(
            model,
            slots=self._settings.slots,
            max_length=self.max_length,
            prefill_budget=self._settings.prefill_budget,
        )

    def _run(self) -> None:
        try:
            while self._step():
                pass
        # Whatever failed, the process must end with it and be started again.
        except Exception as error:  # noqa: BLE001
            log.error("the inference engine failed", exception=where_raised(error))
            self.failed = True
            self.on_failure()
        finally:
            # Whatever ended the thread, no client is left waiting for an answer.
            with self._changed:
                self._stopping = True
                for runner, sequence in self._arrived:
                    runner.add(sequence)
                self._arrived.clear()
                for model in self._models.values():
                    model.runner.cancel_all()
                self._changed.notify_all()

    def _step(self) -> bool:
        # A frame of its own: while the thread waits for work it must not hold on to a model that is unloaded.
        runners = self._next_runners()
        if runners is None:
            return False
        self._stepping.step(runners)
        return True

    def _next_runners(self) -> list[Runner] | None:
        """Hand what has arrived to its runners and return those with work; waits for some, None at the end."""
        with self._changed:
            while True:
                if self._stopping:
                    return None
                for runner, sequence in self._arrived:
                    runner.add(sequence)
                self._arrived.clear()
                if self._closing:
                    self._changed.notify_all()
                runners = [model.runner for model in self._models.values() if not model.runner.idle]
                if runners:
                    return runners
                self._changed.wait()

    def _idle(self, runner: Runner) -> bool:
        return runner.idle and all(other is not runner for other, _ in self._arrived)
