"""Episodes one by one, with what was decided on each and why. `ratchet episodes` asks for them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from ratchet_client.messages import MESSAGE, MESSAGES, Messages, text_of
from ratchet_client.settings import FrozenModel
from streams.errors import UnknownEpisodeError
from streams.store.client import StoreClient
from streams.store.database import Parameter
from streams.store.episode_state import EpisodeState
from streams.store.queries.episodes import (
    BRANCHES_OF_EPISODE,
    DECISIONS_ON_EPISODE,
    EPISODE,
    EPISODES_BY_PREFIX,
    NEWEST_EPISODES,
    OUTCOMES_OF_EPISODE,
    RECOVERIES_OF_EPISODE,
    RECOVERY_OF_EPISODE,
    STEPS_OF_EPISODE,
    TIMES_OF_EPISODES,
)
from streams.trust.rules import StoredStep, distinct, rewritten_at

_SHORT = 160
_MOST_MATCHES = 10


class EpisodeSummary(FrozenModel):
    """An episode with its state and why. What its steps tell is null where none is stored; `touched` is a sequence."""

    episode_id: str
    state: EpisodeState
    reason: str
    steps: int | None = 0
    outcomes: int = 0
    environment: str | None = None
    task_id: str | None = None
    principal: str | None = None
    agent: str | None = None
    actor_kind: str | None = None
    adapter: str | None = None
    touched: int
    last_at: datetime | None = None


class StepSummary(FrozenModel):
    """A stored step, shortened. `receipt` is that of the call it was captured from, if it was."""

    step: int
    sequence: int
    recorded_at: datetime | None
    actor_kind: str
    adapter: str | None
    messages: int = Field(description="How many messages the actor was shown.")
    action: str
    observation: str
    done: bool
    receipt: str | None = None


class OutcomeSummary(FrozenModel):
    """An outcome, and whether it counts: the latest of each verifier does."""

    sequence: int
    verifier: str
    success: bool
    score: float
    recorded_at: datetime | None
    counts: bool
    evidence: str = ""


class DecisionSummary(FrozenModel):
    """A decision on the episode; the newest holds."""

    sequence: int
    state: str
    reason: str = ""


class BranchedState(FrozenModel):
    """The result of one state; one that was dropped has a `reason`."""

    step: int
    requested: int
    executed: int
    fidelity: str
    reason: str = ""


class RecoveryOfEpisode(FrozenModel):
    """The result of resuming a failed episode; one that was dropped has a `reason`."""

    attempts: int
    recovered: int
    fidelity: str
    reason: str = ""


class EpisodeReport(FrozenModel):
    """All that the store has of an episode. Nothing of its content is told where consent was revoked.

    `rewritten_at` is the first step whose messages are not those of the step before with what followed.
    """

    summary: EpisodeSummary
    steps: tuple[StepSummary, ...] = ()
    rewritten_at: int | None = None
    outcomes: tuple[OutcomeSummary, ...] = ()
    decisions: tuple[DecisionSummary, ...] = ()
    branches: tuple[BranchedState, ...] = ()
    recovery: RecoveryOfEpisode | None = None
    recoveries: tuple[str, ...] = Field(default=(), description="What snapshots call its recoveries.")


async def newest_episodes(store: StoreClient, state: EpisodeState | None, limit: int) -> tuple[EpisodeSummary, ...]:
    """The episodes of a state, or all, of which something was stored last. Raises `StoreError`."""
    rows = await _rows(store, NEWEST_EPISODES, {"state": state, "limit": limit})
    return await _summaries(store, rows)


async def whole_id(store: StoreClient, prefix: str) -> str:
    """The id of the one episode whose id begins so; an id that is whole is that episode's, whatever others begin with.

    One of which nothing is stored comes back as it is. Raises `UnknownEpisodeError`, which has the ids, when several
    begin so.
    """
    rows = await _rows(store, EPISODES_BY_PREFIX, {"prefix": prefix, "limit": _MOST_MATCHES + 1})
    found = [row["episode_id"] for row in rows]
    # In order, a whole id comes before all that go on from it.
    if not found or found[0] == prefix or len(found) == 1:
        return found[0] if found else prefix
    more = ", …" if len(found) > _MOST_MATCHES else ""
    raise UnknownEpisodeError(
        f"the ids of several episodes begin with {prefix!r}: {', '.join(found[:_MOST_MATCHES])}{more}. "
        "Give more of the id"
    )


async def episode_report(store: StoreClient, episode_id: str) -> EpisodeReport:
    """All about one episode. Raises `UnknownEpisodeError` when nothing of it is stored."""
    this: dict[str, Parameter] = {"episode_id": episode_id}
    summaries = await _summaries(store, await _rows(store, EPISODE, this))
    if not summaries:
        raise UnknownEpisodeError(
            f"no step or outcome of an episode {episode_id!r} is stored: compare the id with `ratchet episodes list`, "
            "and look for refused records with `ratchet dead-letters list`"
        )
    (summary,) = summaries
    decisions = await _rows(store, DECISIONS_ON_EPISODE, this)
    if summary.state is EpisodeState.REVOKED:
        return EpisodeReport(summary=summary, decisions=tuple(map(DecisionSummary.model_validate, decisions)))
    steps = await _rows(store, STEPS_OF_EPISODE, this)
    recovery = await _rows(store, RECOVERY_OF_EPISODE, this)
    return EpisodeReport(
        summary=summary,
        steps=tuple(map(_step, steps)),
        rewritten_at=rewritten_at(distinct([StoredStep.of(step) for step in steps])),
        outcomes=tuple(map(_outcome, await _rows(store, OUTCOMES_OF_EPISODE, this))),
        decisions=tuple(map(DecisionSummary.model_validate, decisions)),
        branches=tuple(map(BranchedState.model_validate, await _rows(store, BRANCHES_OF_EPISODE, this))),
        recovery=RecoveryOfEpisode.model_validate(recovery[0]) if recovery else None,
        recoveries=tuple(row["recovery_id"] for row in await _rows(store, RECOVERIES_OF_EPISODE, this)),
    )


async def _summaries(store: StoreClient, rows: list[dict[str, Any]]) -> tuple[EpisodeSummary, ...]:
    ids = [row["episode_id"] for row in rows]
    times = {row["episode_id"]: row for row in await _rows(store, TIMES_OF_EPISODES, {"episode_ids": ids})}
    return tuple(EpisodeSummary.model_validate(row | times.get(row["episode_id"], {})) for row in rows)


async def _rows(store: StoreClient, sql: str, parameters: Mapping[str, Parameter]) -> list[dict[str, Any]]:
    return list((await store.query(sql, parameters)).to_pylist())


def _step(row: Mapping[str, Any]) -> StepSummary:
    action = MESSAGE.validate_json(row["action"])
    calls = [f"{each.function.name}({each.function.arguments})" for each in action.calls if each.function is not None]
    shown: Messages = MESSAGES.validate_json(row["observation"])
    return StepSummary(
        step=row["step"],
        sequence=row["sequence"],
        recorded_at=row["recorded_at"],
        actor_kind=row["actor_kind"],
        adapter=row["adapter"],
        messages=len(MESSAGES.validate_json(row["messages"])),
        action=_short(" ".join(filter(None, (action.text, *calls)))),
        observation=_short(text_of(shown)),
        done=row["done"],
        receipt=row.get("receipt"),
    )


def _outcome(row: Mapping[str, Any]) -> OutcomeSummary:
    return OutcomeSummary(
        **{name: row[name] for name in ("sequence", "verifier", "success", "score", "recorded_at", "counts")},
        evidence="" if row["evidence"] in (None, "{}") else _short(row["evidence"]),
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else line[: _SHORT - 1] + "…"
