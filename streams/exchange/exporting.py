"""Production episodes out of the store, as files of conversations: `ratchet export` calls it.

Like every reading of the store it is as of a sequence, and without principals that revoked consent since.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC
from itertools import groupby
from operator import itemgetter
from typing import Any, BinaryIO, TypeAlias

from ratchet_client.settings import FrozenModel
from streams.exchange.conversation import Conversation, Facts
from streams.exchange.formats import FORMATS, FormatName
from streams.store.client import StoreClient
from streams.store.export import Moment
from streams.store.queries.conversations import (
    COUNT_OF_EPISODES,
    EPISODES_AFTER,
    OUTCOMES_OF_EPISODES,
    STEPS_OF_EPISODES,
)
from streams.trust.holdout import Split
from streams.trust.rules import StoredStep, branch_request

_PAGE = 5_000
# A step has all messages before it, so that the steps of an episode grow with the square of its length.
_EPISODES_AT_ONCE = 20

Row: TypeAlias = Mapping[str, Any]
Watch: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice of episodes to export: all, or those that were `trusted`; those of one split, or of every."""

    trusted: bool = True
    split: Split | None = None


class ExportReport(FrozenModel):
    """The result of an export. `left_out` counts episodes that are not one conversation, by the reason.

    `withdrawn` counts those of principals that revoked consent.
    """

    as_of: int
    conversations: int
    left_out: dict[str, int]
    withdrawn: int


async def export_conversations(
    store: StoreClient, moment: Moment, selection: Selection, name: FormatName, file: BinaryIO, watch: Watch
) -> ExportReport:
    """Write the episodes of a moment into `file`, a line each, in the order of their beginning.

    `watch` is told how many episodes of how many are done. Raises `StoreError` when the store does not answer, and
    `OSError` when the file cannot be written.
    """
    parameters = moment.parameters | {"trusted": selection.trusted, "split": selection.split}
    del parameters["origin"]
    (counts,) = (await store.query(COUNT_OF_EPISODES, parameters)).to_pylist()
    done = written = 0
    left_out: Counter[str] = Counter()
    async with aclosing(_episodes(store, parameters)) as pages:
        async for episodes in pages:
            for conversation in await _conversations(store, episodes, moment.as_of):
                if isinstance(conversation, str):
                    left_out[conversation] += 1
                else:
                    file.write(FORMATS[name].write(conversation) + b"\n")
                    written += 1
                done += 1
            watch(done, counts["episodes"])
    return ExportReport(as_of=moment.as_of, conversations=written, left_out=dict(left_out), withdrawn=counts["revoked"])


async def _episodes(store: StoreClient, parameters: Mapping[str, Any]) -> AsyncGenerator[Sequence[Row]]:
    last = -1
    while page := (await store.query(EPISODES_AFTER, {**parameters, "after": last, "limit": _PAGE})).to_pylist():
        for start in range(0, len(page), _EPISODES_AT_ONCE):
            yield page[start : start + _EPISODES_AT_ONCE]
        last = page[-1]["first"]


async def _conversations(store: StoreClient, episodes: Sequence[Row], as_of: int) -> list[Conversation | str]:
    """The conversations of the episodes, or the reasons for which they are none, in their order."""
    names = [episode["episode_id"] for episode in episodes]
    place = {"first": min(row["first"] for row in episodes), "last": max(row["last"] for row in episodes)}
    steps = (await store.query(STEPS_OF_EPISODES, {"episode_ids": names, **place})).to_pylist()
    of_episode = {name: list(rows) for name, rows in groupby(steps, key=itemgetter("episode_id"))}
    told = (await store.query(OUTCOMES_OF_EPISODES, {"episode_ids": names, "as_of": as_of})).to_pylist()
    outcomes = {row["episode_id"]: row for row in told}
    return [
        _conversation(episode, of_episode[episode["episode_id"]], outcomes.get(episode["episode_id"], {}))
        for episode in episodes
    ]


def _conversation(episode: Row, rows: Sequence[Row], outcome: Row) -> Conversation | str:
    judged_at = episode["judged_at"]
    judged = [row for row in rows if judged_at is None or row["sequence"] < judged_at]
    steps = [StoredStep.of(row) for row in judged]
    if [step.step for step in steps] != list(range(len(steps))):
        return "a step is missing"
    request = branch_request(episode["episode_id"], steps, "trusted")
    if request is None:
        return "not an append-only conversation of one task and principal"
    return Conversation(
        opening=request.opening,
        steps=request.steps,
        facts=_facts(episode, judged[0], outcome),
        recorded_at=tuple(row["recorded_at"] and row["recorded_at"].replace(tzinfo=UTC) for row in judged),
    )


def _facts(episode: Row, first: Row, outcome: Row) -> Facts:
    return Facts(
        episode_id=first["episode_id"],
        agent=first["agent"],
        environment=first["environment"],
        task_id=first["task_id"],
        seed=first["seed"],
        state=first["state"],
        actor=first["actor_kind"],
        adapter=first["adapter"],
        split=episode["split"],
        success=outcome.get("success"),
        score=outcome.get("score"),
    )
