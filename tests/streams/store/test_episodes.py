"""Every episode has one state and a reason, the same in the list, in the status and in the judge's decisions."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ratchet_client.events import Event, OutcomeEvent, RetractionEvent, StepEvent
from streams.errors import StoreError
from streams.store.client import StoreClient
from streams.store.episode_state import EpisodeState
from streams.store.episodes import episode_report, newest_episodes
from streams.store.queries.episodes import ENDED_WITHOUT, LATER_STEPS, NO_OUTCOME
from streams.store.status import status
from streams.trust.holdout import Split
from tests.builders.episodes import TASKS, episode
from tests.builders.stored import Log, ServedStore, records, result, unrestored

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)


def cases() -> dict[str, tuple[str, str, list[Event]]]:
    """Events of episodes by name, with the state and the reason that they must have."""
    first, second, verdict = episode("x", actor="policy")
    assert isinstance(first, StepEvent)
    assert isinstance(second, StepEvent)
    rewritten = second.model_copy(update={"messages": second.messages[1:]})
    stranger = second.model_copy(update={"principal": "b"})
    failure = OutcomeEvent(event_id="fails", episode_id="x", verifier="thumbs", success=False, score=0.0)
    model = OutcomeEvent(event_id="model", episode_id="x", verifier="model:judge", success=True, score=1.0)
    held_out = episode("x", task_id=TASKS[Split.SELECTION][0])
    return {
        "open": ("open", NO_OUTCOME, [first]),
        "ended": ("open", ENDED_WITHOUT, [first, second]),
        "trusted": ("trusted", "", [first, second, verdict]),
        "going on": ("trusted", LATER_STEPS, [first, verdict, second.model_copy(update={"done": False})]),
        "failed": ("failed", "", [first, second, failure]),
        "demonstrated": ("undecided", "an outcome says that it failed", [*episode("x")[:2], failure]),
        "disputed": ("undecided", "another outcome says that it failed", [first, second, verdict, failure]),
        "rewritten": ("undecided", "not an append-only conversation", [first, rewritten, verdict]),
        "of two": ("undecided", "its steps are of several principals", [first, stranger, verdict]),
        "incomplete": ("undecided", "a step is missing", [second, verdict]),
        "nothing": ("undecided", "none of its steps is stored", [verdict]),
        "waiting": (
            "undecided",
            "steps came after its outcome, and wait for an outcome of their own",
            [verdict, first],
        ),
        "by a model": ("undecided", "only a model says that it succeeded", [first, second, model]),
        "held out": ("held-out", "trusted, and its task is kept for gates: selection", [*held_out]),
        "flagged": ("flagged", "told: by its producer", [first, second.model_copy(update={"flag": "told"}), verdict]),
        "lost": ("untrusted", "an outcome says that it failed", [first, second, verdict, failure]),
        "gone": ("revoked", "a principal that took part revoked consent", [first, second, verdict]),
    }


def fill(served: ServedStore) -> dict[str, tuple[str, str]]:
    """Store all cases; the state and the reason of each."""
    expected = {}
    for number, (name, (state, reason, events)) in enumerate(cases().items()):
        renamed = [e.model_copy(update={"episode_id": name, "event_id": f"{number} {e.event_id}"}) for e in events]
        if name == "gone":
            renamed = [e.model_copy(update={"principal": "gone"}) if isinstance(e, StepEvent) else e for e in renamed]
            renamed.append(RetractionEvent(principal="gone", reason="asked"))
        decoded = records(renamed, partition=number)
        if name == "flagged":
            decoded = [
                replace(each, flag="told: by its producer") if n == 1 else each for n, each in enumerate(decoded)
            ]
        # What came later may have been decided on before.
        batches = [decoded[:2], decoded[2:]] if name == "going on" else [decoded[:3], decoded[3:]]
        batches = [decoded] if name == "disputed" else batches
        for batch in batches:
            served.store.append(batch)
        expected[name] = (state, reason)
    return expected


async def test_each_episode_has_a_state_and_a_reason_which_the_status_counts(served_store: ServedStore) -> None:
    expected = fill(served_store)
    async with StoreClient(served_store.url) as client:
        listed = await newest_episodes(client, None, 100)
        assert {one.episode_id: (one.state.value, one.reason) for one in listed} == expected
        assert [one.touched for one in listed] == sorted((one.touched for one in listed), reverse=True)
        for state in EpisodeState:
            some = await newest_episodes(client, state, 100)
            assert {one.episode_id for one in some} == {name for name, (has, _) in expected.items() if has == state}
        for name, state_and_reason in expected.items():
            summary = (await episode_report(client, name)).summary
            assert (summary.state.value, summary.reason) == state_and_reason
        assert len(await newest_episodes(client, None, 2)) == 2
        told = await client.status()
    counted = told.episodes
    assert told.trusted == {"train": sum(counted["trusted"].values()), "selection": 1}
    assert Counter({state: sum(reasons.values()) for state, reasons in counted.items()}) == Counter(
        state for state, _ in expected.values()
    )
    assert counted["flagged"] == {"told": 1}
    assert counted["undecided"]["a step is missing"] == 1


async def test_a_report_has_the_steps_the_outcomes_that_count_and_where_a_conversation_parts(
    served_store: ServedStore,
) -> None:
    first, second, verdict = episode("a", actor="policy")
    assert isinstance(second, StepEvent)
    other = second.model_copy(update={"event_id": "other", "messages": second.messages[1:]})
    thumbs = [
        OutcomeEvent(
            episode_id="a", verifier="thumbs", success=success, score=0.0, recorded_at=BEGAN + timedelta(hours=hour)
        )
        for success, hour in ((True, 2), (False, 1))
    ]
    Log(served_store.store).publish(first, other, verdict, *thumbs)
    async with StoreClient(served_store.url) as client:
        report = await episode_report(client, "a")
    assert [(step.step, step.action, step.observation, step.messages) for step in report.steps] == [
        (0, "go 0", "Done 0.", 1),
        (1, "go 1", "Done 1.", 2),
    ]
    assert report.rewritten_at == 1
    assert [(each.verifier, each.success, each.counts) for each in report.outcomes] == [
        ("thumbs", False, False),
        ("thumbs", True, True),
        ("game", True, True),
    ]
    assert [decision.state for decision in report.decisions] == ["undecided"]


async def test_dropped_states_have_their_reason_in_the_report_and_are_counted_without_particulars(
    served_store: ServedStore,
) -> None:
    log = Log(served_store.store)
    log.publish(*episode("a"), *episode("b", action="run"))
    log.branched("a", TASKS[Split.TRAIN][0], step=0)
    for offset, (name, number) in enumerate((("a", 1), ("b", 12)), start=1):
        reason = f"the sandbox shows something else than was recorded after action {number}: 'A kitchen.'"
        served_store.store.append([result(unrestored(name, 1, reason), offset)])
    assert status(served_store.store).dropped == {
        "the sandbox shows something else than was recorded after action N": 2
    }
    async with StoreClient(served_store.url) as client:
        report = await episode_report(client, "a")
    assert [(state.step, state.executed, state.fidelity, state.reason) for state in report.branches] == [
        (0, 1, "sandbox_exact", ""),
        (1, 0, "dropped", "the sandbox shows something else than was recorded after action 1: 'A kitchen.'"),
    ]


async def test_an_episode_of_a_revoked_principal_shows_nothing_of_its_content(served_store: ServedStore) -> None:
    log = Log(served_store.store)
    log.publish(*episode("a"))
    log.publish(RetractionEvent(principal="a", reason="asked"))
    async with StoreClient(served_store.url) as client:
        report = await episode_report(client, "a")
    assert (report.steps, report.outcomes, report.branches) == ((), (), ())
    assert [decision.state for decision in report.decisions] == ["trusted"]


async def test_an_unknown_episode_is_an_error_that_says_where_to_look(served_store: ServedStore) -> None:
    async with StoreClient(served_store.url) as client:
        with pytest.raises(StoreError, match="ratchet episodes list"):
            await episode_report(client, "nobody")
