"""What the learner tells for each group of agents and tenants: one account in each of their homes."""

import asyncio
from collections.abc import Mapping

from daemon.config import Settings
from daemon.learning.telling import Telling
from daemon.registry.learner_status import LearnerPhase, LearnerStatus, read_learner_status
from streams.trust.groups import DEFAULT_GROUP


class Tellings:
    """The accounts by group, and in `earlier` what the learner before this one told last. `begin` has them beat."""

    def __init__(self, settings: Settings) -> None:
        homes = {name: settings.of_group(name).home for name in (DEFAULT_GROUP, *settings.adapters.groups)}
        self.earlier: Mapping[str, LearnerStatus | None] = {
            name: read_learner_status(home) for name, home in homes.items()
        }
        self.of: Mapping[str, Telling] = {name: Telling(home) for name, home in homes.items()}
        self._beating: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        self._beating = [asyncio.create_task(telling.keep_beating()) for telling in self.of.values()]

    def off(self) -> None:
        """Say that nothing is learned."""
        for telling in self.of.values():
            telling.tell(LearnerPhase.OFF)

    def finish(self) -> None:
        """Say that the one cycle that was asked for has ended, or that none was due."""
        self._stop_beating()
        for telling in self.of.values():
            telling.tell(LearnerPhase.FINISHED)

    def end(self, reason: str) -> None:
        """Say that the learner stops, because of an error where there is a `reason`.

        The next one pauses then before it tries again; after an orderly stop it does not.
        """
        self._stop_beating()
        for telling in self.of.values():
            died = telling.status.phase is LearnerPhase.TRAINING
            failures = telling.status.failures + died if reason else 0
            telling.tell(LearnerPhase.STOPPED, error=reason, failures=failures)

    def _stop_beating(self) -> None:
        for task in self._beating:
            task.cancel()
