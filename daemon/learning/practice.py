"""Practice between cycles: what serves plays train tasks in sandboxes, and the episodes go into the log like any other.

The learn role runs one round after the other while no cycle is due. Practice is of the lowest priority: it begins no
episode while agents' calls are in flight.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import structlog

from daemon.learning.loop import Loop
from daemon.registry.canaries import running_canary
from daemon.registry.schemas import StatusReport
from evaluation.episode import Player
from evaluation.frontier import Attempts, choose
from evaluation.practice import Budget, Practised, Round
from learners.settings import PracticeSettings
from ratchet_client.errors import RatchetError
from ratchet_client.events import Task
from ratchet_client.kafka.signatures import SIGNATURE_HEADER, sign
from streams.kafka.operator_key import read_operator_key
from streams.kafka.publisher import Publisher
from streams.kafka.records import Outgoing
from streams.policy.client import Sampling
from streams.store.queries.practice import ATTEMPTS_BY_TASK, ATTEMPTS_BY_TASK_OF_GROUP
from streams.trust.groups import DEFAULT_GROUP
from streams.trust.practice import agent_of, practisable

log = structlog.get_logger()

_PUBLISH_TIMEOUT_S = 30.0
_ASK_EVERY_S = 2.0


class Practice:
    """The practice of one learner. `is_wanted` says whether a round may begin."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._settings: PracticeSettings = loop.settings.learner.practice
        self._publisher: Publisher | None = None
        self._all_tasks: tuple[Task, ...] | None = None
        self._not_before = 0.0
        self._status: StatusReport | None = None
        self._asked_at = float("-inf")

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The listed tasks that may be practised: none that anything is judged by."""
        return self._practisable(self._loop.tasks)

    async def all_tasks(self) -> tuple[Task, ...]:
        """Those, and the generated ones that may be practised. Gates are given generated tasks of other splits alone.

        Raises `SandboxError` where none can be generated.
        """
        if self._all_tasks is None:
            (suite, fold), count = self._loop.generated, self._settings.generated
            made = await self._loop.pool.generate(suite, fold, 0, count) if suite and count else ()
            self._all_tasks = self._practisable((*self._loop.tasks, *made))
        return self._all_tasks

    def _practisable(self, tasks: Iterable[Task]) -> tuple[Task, ...]:
        loop = self._loop
        kept = (*loop.held_out, *loop.confirmation, *loop.golden, *loop.out_of_domain, *loop.unsolvable)
        return practisable(tasks, loop.settings.holdout, kept)

    def is_wanted(self) -> bool:
        """Return whether practice is enabled, has tasks, has rested, and no canary is about to decide who serves."""
        settings, loop = self._settings, self._loop
        if not settings.enabled or time.monotonic() < self._not_before or not self.tasks:
            return False
        return not loop.settings.serving.canary.share or running_canary(loop.registry) is None

    async def play_round_until(self, is_due: Callable[[], Awaitable[bool]], poll_s: float) -> None:
        """Practise a round, and stop at once when `is_due`, which is asked every `poll_s` seconds.

        A round that fails is logged. Raises what `is_due` raises.
        """
        playing = asyncio.create_task(self.play_round())
        try:
            while not playing.done():
                await asyncio.wait((playing,), timeout=poll_s)
                if not playing.done() and await is_due():
                    log.info("practice stops, for a cycle is due")
                    return
            if (error := playing.exception()) is not None:
                if not isinstance(error, RatchetError):
                    raise error
                log.error("practice failed", error=str(error))
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)

    async def play_round(self) -> Round | None:
        """Practise a round; None where nothing is loaded: practice unloads no adapter. Raises `RatchetError`."""
        loop, settings = self._loop, self._settings
        self._not_before = time.monotonic() + settings.rest_s
        self._status = await loop.control.status()
        served = self._status.served
        if served is None:
            return None
        environment = loop.pool.environment
        table = await loop.practice_of_members(ATTEMPTS_BY_TASK, ATTEMPTS_BY_TASK_OF_GROUP, environment=environment)
        rows = table.to_pylist()
        known = {row["task_id"]: Attempts(row["attempts"], row["successes"]) for row in rows}
        # Another draw each round, and the same one if the same store is asked again.
        seed = loop.settings.seed + max((row["last"] for row in rows), default=0)
        tasks = choose(await self.all_tasks(), known, settings.tasks, settings.explore, settings.revisit, seed)
        key = await asyncio.to_thread(self._key)
        sampling = Sampling(temperature=settings.temperature)
        harness = (await loop.pool.describe()).harness
        played = Round(
            player=Player(loop.policy, served, harness, sampling, logprobs=True),
            pool=loop.pool,
            budget=Budget(settings.most_seconds, settings.most_steps, settings.concurrency),
            may_begin=partial(self._may_go_on, served),
            keep=lambda practised: self._publish(practised, key),
            second_attempts=settings.second_attempts,
            agent=agent_of(DEFAULT_GROUP if loop.members is None else loop.members.name),
        )
        log.info("practice begins", tasks=len(tasks), samples=settings.samples, model=served)
        try:
            await played.play(tasks, settings.samples)
        finally:
            self._not_before = time.monotonic() + settings.rest_s
            if self._status.served != served:
                log.info("practice stops, for what practised is not served any more", model=served)
            log.info(
                "practised",
                episodes=played.episodes,
                successes=played.successes,
                steps=played.steps,
                advised=played.advised,
                helped=played.helped,
                failed=len(played.failures),
            )
        return played

    def close(self) -> None:
        """End the connection to the log."""
        if self._publisher is not None:
            self._publisher.close()

    async def _may_go_on(self, served: str) -> bool:
        """Wait while agents are served: whatever is computed for practice, they wait for.

        False when `served` does not serve any more: it is replaced, or unloaded to make room for another group's.
        """
        while True:
            if self._status is None or time.monotonic() - self._asked_at > _ASK_EVERY_S:
                self._asked_at = time.monotonic()
                self._status = await self._loop.control.status()
            status = self._status
            if status.served != served:
                return False
            # Those of all groups: they share the servers.
            if max(status.in_flight, sum(group.in_flight for group in status.groups)) <= self._settings.most_in_flight:
                return True
            await asyncio.sleep(_ASK_EVERY_S)

    def _key(self) -> bytes:
        settings = self._loop.settings
        configured = settings.admission.operator_key.get_secret_value()
        return configured.encode() if configured else read_operator_key(settings.store.path.parent)

    async def _publish(self, practised: Practised, key: bytes) -> None:
        settings = self._loop.settings
        if self._publisher is None:
            self._publisher = Publisher(settings.kafka, _PUBLISH_TIMEOUT_S, settings.admission.max_bytes, "practice")
        messages = []
        for event in practised.events:
            value = event.to_json()
            signature = ((SIGNATURE_HEADER, sign(key, value).encode()),)
            messages.append(Outgoing(settings.kafka.events_topic, event.episode_id.encode(), value, signature))
        await asyncio.to_thread(self._publisher.publish, messages)
