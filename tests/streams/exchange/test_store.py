"""Conversations become events, and the store's episodes conversations again."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ratchet_client.events import Event, OutcomeEvent, RetractionEvent, StepEvent
from ratchet_client.messages import assistant, user
from streams.errors import ExchangeError, UnnamedError
from streams.exchange.conversation import NOT_LEARNED, Conversation
from streams.exchange.documents import documents
from streams.exchange.episodes import Attribution, ImportedEpisode, Told, episode_of
from streams.exchange.exporting import ExportReport, Selection, export_conversations
from streams.exchange.formats import FORMATS, FormatName
from streams.exchange.importing import Import
from streams.intake.admission import Admission, AdmissionSettings
from streams.store.client import StoreClient
from streams.store.export import Origin, look_back
from streams.trust.holdout import Split
from tests.builders.episodes import TASKS, episode
from tests.builders.exchanged import conversations
from tests.builders.stored import Log, ServedStore

BY_ANN = Attribution("ann", "shop", "helpdesk", told=Told(True))
LINE = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def imported(conversation: Conversation, attribution: Attribution = BY_ANN, **line: Any) -> ImportedEpisode:
    return episode_of(conversation, line, attribution, {"file": "f", "place": "line 1"})


def importing(
    name: FormatName = FormatName.CHAT_JSONL, attribution: Attribution = BY_ANN, **options: Any
) -> tuple[Import, list[Event]]:
    published: list[Event] = []
    admission = Admission(options.pop("admission", AdmissionSettings()))
    return Import(name, attribution, admission, published.extend, **options), published


def taken(work: Import, *lines: dict[str, Any] | str) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    work.take("file", io.BytesIO("\n".join(texts).encode()), lambda _, __: None)


def messages(text: str, count: int = 1) -> dict[str, Any]:
    turn = [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]
    return {"messages": [dict(message) for message in turn * count]}


async def exported(
    served: ServedStore,
    name: FormatName = FormatName.CHAT_JSONL,
    selection: Selection = Selection(),  # noqa: B008
    as_of: int | None = None,
) -> tuple[list[Conversation], ExportReport]:
    file = io.BytesIO()
    async with StoreClient(served.url) as client:
        moment = await look_back(client, as_of, Origin.PRODUCTION)
        report = await export_conversations(client, moment, selection, name, file, lambda _, __: None)
    return [FORMATS[name].read(json.loads(line)) for line in file.getvalue().splitlines()], report


@pytest.fixture
def log(served_store: ServedStore) -> Log:
    return Log(served_store.store)


@pytest.mark.nightly
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], phases=[Phase.generate])
@given(several=st.lists(conversations(), min_size=10, max_size=10))
async def test_any_conversation_that_is_stored_is_exported_as_it_was(
    served_store: ServedStore, log: Log, several: list[Conversation]
) -> None:
    episodes = {imported(one).episode_id: (one, imported(one).events) for one in several}
    log.publish(*(event for _, events in episodes.values() for event in events))
    for name in FormatName:
        found, report = await exported(served_store, name, Selection(trusted=False))
        assert report.left_out == {}
        again = {one.facts.episode_id: one for one in found}
        for episode_id, (conversation, _) in episodes.items():
            assert again[episode_id].opening == conversation.opening
            assert again[episode_id].steps == conversation.steps


async def test_trusted_episodes_alone_are_exported_unless_all_are_wanted(served_store: ServedStore) -> None:
    log = Log(served_store.store)
    log.publish(*episode("good", TASKS[Split.TRAIN][0]))
    log.publish(*episode("held", TASKS[Split.SELECTION][0], action="look"))
    log.publish(*episode("bad", actor="policy", success=False, action="jump"))
    log.publish(*episode("open", action="sit")[:-1])
    names = {"good", "held"}
    assert {one.facts.episode_id for one in (await exported(served_store))[0]} == names
    every = (await exported(served_store, selection=Selection(trusted=False)))[0]
    assert [one.facts.episode_id for one in every] == ["good", "held", "bad", "open"]
    (train,) = (await exported(served_store, selection=Selection(split=Split.TRAIN)))[0]
    facts = train.facts
    assert (facts.episode_id, facts.split, facts.success, facts.score) == ("good", "train", True, 1.0)
    assert (facts.agent, facts.environment, facts.actor) == ("assistant", "textworld_express", "expert")
    assert [one.facts.success for one in every] == [True, True, False, None]


async def test_an_export_is_as_of_a_sequence_and_without_whoever_revoked_consent(served_store: ServedStore) -> None:
    log = Log(served_store.store)
    log.publish(*episode("ann"))
    before = served_store.store.sequence
    log.publish(*episode("bob", action="look"))
    then = await exported(served_store, as_of=before)
    assert [one.facts.episode_id for one in then[0]] == ["ann"]
    log.publish(RetractionEvent(principal="ann", reason="asked"))
    found, report = await exported(served_store)
    assert [one.facts.episode_id for one in found] == ["bob"]
    assert (report.conversations, report.withdrawn) == (1, 1)
    assert (await exported(served_store, as_of=before))[0] == []


async def test_what_was_judged_is_exported_and_not_what_came_later(served_store: ServedStore) -> None:
    log = Log(served_store.store)
    three = [event for event in episode("e", steps=3) if isinstance(event, StepEvent)]
    outcome = episode("e")[-1]
    log.publish(*three[:2], outcome)
    log.publish(three[2])
    assert [len(one.steps) for one in (await exported(served_store))[0]] == [2]
    every = await exported(served_store, selection=Selection(trusted=False))
    assert [len(one.steps) for one in every[0]] == [2]


async def test_what_is_no_conversation_is_left_out_and_counted(served_store: ServedStore) -> None:
    log = Log(served_store.store)
    first, second, _ = episode("e")
    log.publish(second)
    log.publish(first.model_copy(update={"episode_id": "f", "event_id": "f-0"}))
    log.publish(second.model_copy(update={"episode_id": "f", "event_id": "f-1", "messages": (user("Else."),)}))
    found, report = await exported(served_store, selection=Selection(trusted=False))
    assert found == []
    assert sorted(report.left_out.values()) == [1, 1]
    assert "a step is missing" in report.left_out


async def test_an_export_of_many_pages_is_whole_and_in_order(
    served_store: ServedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.exchange.exporting._PAGE", 4)
    monkeypatch.setattr("streams.exchange.exporting._EPISODES_AT_ONCE", 3)
    log = Log(served_store.store)
    for number in range(9):
        log.publish(*episode(str(number), action=f"go {number}"))
    found, report = await exported(served_store, selection=Selection(trusted=False))
    assert [one.facts.episode_id for one in found] == [str(number) for number in range(9)]
    assert report.conversations == 9


@given(conversation=conversations())
def test_the_same_conversation_has_the_same_ids_and_another_has_others(conversation: Conversation) -> None:
    once, again = imported(conversation), imported(conversation)
    assert [event.event_id for event in once.events] == [event.event_id for event in again.events]
    other = Conversation((user("Before."), *conversation.opening), conversation.steps)
    assert imported(other).episode_id != once.episode_id
    assert imported(conversation, Attribution("bob", "shop", "helpdesk")).episode_id != once.episode_id
    assert len({event.event_id for event in once.events}) == len(once.events)


def test_the_events_of_an_import_are_an_append_only_episode_with_its_outcome() -> None:
    work, published = importing(attribution=Attribution("ann", "shop", "helpdesk", "policy", told=Told(False)))
    taken(work, messages("Hi", 2))
    first, second, outcome = published
    assert isinstance(first, StepEvent)
    assert isinstance(second, StepEvent)
    assert isinstance(outcome, OutcomeEvent)
    assert second.messages == (*first.messages, first.action, *first.observation)
    assert (first.done, second.done, second.observation) == (False, True, ())
    assert (first.principal, first.agent, first.task.environment, first.actor.kind) == (
        "ann",
        "helpdesk",
        "shop",
        "policy",
    )
    assert (outcome.success, outcome.score, outcome.verifier) == (False, 0.0, "import")
    assert outcome.evidence == {"file": "file", "place": "line 1"}


@pytest.mark.parametrize(
    ("value", "success", "score"),
    [(True, True, 1.0), (False, False, 0.0), (1, True, 1.0), (0.5, True, 0.5), (0.4, False, 0.4), (None, None, None)],
)
def test_a_field_tells_the_outcome(value: object, success: bool | None, score: float | None) -> None:
    told = Told(field="result.reward", success_at=0.5)
    work, published = importing(attribution=Attribution("ann", "shop", "a", told=told))
    taken(work, messages("Hi") | {"result": {"reward": value}})
    outcomes = [event for event in published if isinstance(event, OutcomeEvent)]
    assert [(one.success, one.score) for one in outcomes] == ([] if success is None else [(success, score)])
    assert work.report().left_out == {}


def test_what_a_trajectory_says_of_its_end_is_its_outcome_unless_an_option_says_otherwise() -> None:
    document = {
        "schema_version": "ATIF-v1.8",
        "agent": {"name": "a", "version": "1"},
        "steps": [{"step_id": 1, "source": "user", "message": "x"}, {"step_id": 2, "source": "agent", "message": "y"}],
        "final_metrics": {"extra": {"reward": 1}},
    }
    for told, success in ((Told(), True), (Told(False), False), (Told(field="extra.absent"), None)):
        work, published = importing(FormatName.ATIF, Attribution("ann", "shop", told=told))
        taken(work, document)
        assert [event.success for event in published if isinstance(event, OutcomeEvent)] == (
            [] if success is None else [success]
        )


def test_a_task_is_named_by_a_field_or_by_how_the_conversation_begins() -> None:
    def tasks(attribution: Attribution, *lines: dict[str, Any]) -> list[str]:
        work, published = importing(attribution=attribution)
        taken(work, *lines)
        return [event.task.task_id for event in published if isinstance(event, StepEvent)]

    one, same, other = tasks(BY_ANN, messages("a"), messages("a") | {"id": "2"}, messages("b"))
    assert one == same != other
    named = Attribution("ann", "shop", "a", task_field="meta.task")
    assert tasks(named, messages("a") | {"meta": {"task": 7}}) == ["7"]
    with pytest.raises(ExchangeError, match=r"meta\.task: it is not the id of a task"):
        tasks(named, messages("a"))


def test_repeats_are_counted_and_published_once() -> None:
    work, published = importing()
    taken(work, LINE, LINE, LINE | {"id": 2})
    assert (work.report().conversations, work.report().repeated) == (3, 1)
    assert len({event.event_id for event in published}) == len(published) == 4


def test_what_cannot_be_read_ends_the_import_and_says_where_or_is_skipped_and_counted() -> None:
    lines: tuple[Any, ...] = (messages("a"), "{broken", "", {"messages": []}, "[1]", "3", messages("b"))
    work, published = importing()
    with pytest.raises(ExchangeError, match=r"file, line 2: it is not JSON: .*; the 1 conversations before it"):
        taken(work, *lines)
    assert len(published) == 2
    work, published = importing(skip_invalid=True)
    taken(work, *lines)
    report = work.report()
    assert (report.conversations, report.skipped, len(published)) == (2, 4, 4)
    assert [one.place for one in report.errors] == ["line 2", "line 4", "line 5", "line 6"]


def test_what_the_record_role_would_refuse_is_not_published() -> None:
    work, published = importing(skip_invalid=True, admission=AdmissionSettings(max_bytes=2_000, max_messages=3))
    taken(work, messages("a"), messages("b", 3), messages("c" * 3_000))
    assert {event.episode_id for event in published if isinstance(event, StepEvent)} == {published[0].episode_id}  # type: ignore[union-attr]  # a step
    assert [one.error.partition(":")[0] for one in work.report().errors] == ["the record role would refuse it"] * 2


def test_an_action_that_must_not_be_learned_from_flags_its_episode() -> None:
    work, published = importing()
    line = messages("a", 3)
    line["messages"][3]["weight"] = 0
    taken(work, line)
    assert {event.flag for event in published if isinstance(event, StepEvent)} == {NOT_LEARNED}
    assert work.report().flagged == 1


@pytest.mark.parametrize(
    ("attribution", "missing"),
    [(replace(BY_ANN, environment=None), "environment"), (replace(BY_ANN, agent=None), "agent")],
)
def test_a_name_that_is_missing_is_asked_for(attribution: Attribution, missing: str) -> None:
    work, _ = importing(attribution=attribution)
    with pytest.raises(UnnamedError, match=f"say --{missing}"):
        taken(work, LINE)


def test_a_name_that_the_first_conversation_lacks_is_no_fault_of_its_line() -> None:
    work, published = importing(attribution=replace(BY_ANN, environment=None), skip_invalid=True)
    with pytest.raises(UnnamedError):
        taken(work, "{broken", LINE)
    work, published = importing(attribution=replace(BY_ANN, environment=None), skip_invalid=True)
    taken(work, LINE | {"ratchet": {"environment": "shop"}}, LINE)
    assert (len(published), work.report().skipped) == (2, 1)


def test_conversations_without_an_outcome_are_counted_and_a_field_that_is_missing_hides_nothing() -> None:
    lines = [messages("a") | {"scores": {"reward": 1}}, messages("b") | {"scores": {"rank": 1}}, messages("c")]
    work, _ = importing(attribution=replace(BY_ANN, told=Told(field="scores.reward")))
    taken(work, *lines)
    report = work.report()
    assert (report.conversations, report.successes, report.without_outcome) == (3, 1, 2)
    assert report.left_out == {"scores": 1}
    work, _ = importing(attribution=replace(BY_ANN, told=Told(field="scores.rewrad")))
    taken(work, *lines)
    assert (work.report().without_outcome, work.report().left_out) == (3, {"scores": 2})


def places(text: bytes) -> Sequence[tuple[str, bool]]:
    return [(document.place, document.content is not None) for document in documents(io.BytesIO(text))]


def test_a_file_is_lines_or_one_document_or_a_list_of_them() -> None:
    assert places(b'{"a": 1}\n\n  {"b": 2}') == [("line 1", True), ("line 3", True)]
    assert places(b'\xef\xbb\xbf{"a": 1}\r\n{"b": 2}\r\n') == [("line 1", True), ("line 2", True)]
    assert places(json.dumps({"a": [1, {"b": 2}]}, indent=2).encode()) == [("line 1", True)]
    assert places(json.dumps([{"a": 1}, 3], indent=1).encode()) == [("document 1", True), ("document 2", False)]
    assert places(b'[{"a": 1},\n{"b": 2}]') == [("document 1", True), ("document 2", True)]
    assert places(b'{"a": NaN}\n{"a": "\\ud800"}\n\xff\n{"a": 1}') == [(f"line {n}", n == 4) for n in range(1, 5)]
    assert places(b"") == places(b"\n\n") == []


def test_lines_are_read_as_they_are_needed() -> None:
    class Endless(io.RawIOBase):
        def __next__(self) -> bytes:
            return json.dumps(messages("a")).encode() + b"\n"

    source = documents(Endless())  # type: ignore[arg-type]  # it is iterated over only
    assert [next(source).place for _ in range(3)] == ["line 1", "line 2", "line 3"]


def test_a_conversation_says_all_of_its_messages_in_order() -> None:
    work, published = importing()
    taken(work, messages("a", 2))
    last = published[1]
    assert isinstance(last, StepEvent)
    assert (*last.messages, last.action) == (user("a"), assistant("Yes."), user("a"), assistant("Yes."))


def test_the_name_of_a_model_is_kept_of_policies_alone_and_a_newer_version_is_warned_of() -> None:
    document = {
        "schema_version": "ATIF-v1.9",
        "agent": {"name": "a", "version": "1", "model_name": "qwen"},
        "steps": [{"step_id": 1, "source": "user", "message": "x"}, {"step_id": 2, "source": "agent", "message": "y"}],
    }
    for actor, left_out in (("policy", set()), ("expert", {"agent.model_name"})):
        work, published = importing(FormatName.ATIF, Attribution("ann", "shop", actor=actor))  # type: ignore[arg-type]  # it is one of them
        taken(work, document)
        assert set(work.report().left_out) == {"agent.version", *left_out}
        assert list(work.report().warnings.values()) == [1]
        assert isinstance(published[0], StepEvent)
        assert published[0].actor.adapter == ("qwen" if actor == "policy" else None)
