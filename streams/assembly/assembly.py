"""From the records of a trace or conversation to events. Pure; the assembler calls it.

Every id follows from ids of the records, so that what is assembled twice is recognised by the store.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from ratchet_client.events import Actor, OutcomeEvent, StepEvent, Task
from ratchet_client.ids import content_id
from streams.assembly.captured import ChatsOf, EarlierOf, continued_choices, read_captured
from streams.assembly.chains import Call, Chain, Place, chains
from streams.assembly.telemetry import read_telemetry
from streams.assembly.verdicts import Verdict
from streams.calls.records import CapturedCall, Feedback
from streams.otlp.records import LogRecord, Span
from streams.task_ids import task_of

_TOO_LARGE = "another event of its episode is too large to publish"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The longest id, and the longest name, that an event may have.
_LONGEST = 512

Assembled: TypeAlias = Span | LogRecord | CapturedCall | Feedback


@dataclass(frozen=True, slots=True)
class Assembly:
    """The events made of a trace or conversation.

    `episodes` says which episode the call at a place is a step of, `signers` whose token came with an event. The rest
    counts model calls without content, also by the reason for its absence; evaluations and feedback that belong to no
    episode or say neither pass nor fail; replies that were superseded by another to the same messages; events too large
    to publish; and spans of dialects that are not understood, by name.
    """

    events: tuple[StepEvent | OutcomeEvent, ...]
    episodes: Mapping[Place, str]
    signers: Mapping[str, str | None] = field(default_factory=dict)
    without_content: int = 0
    unusable_evaluations: int = 0
    unusable_feedback: int = 0
    superseded: int = 0
    too_large: int = 0
    absences: Mapping[str, int] = field(default_factory=dict)
    unrecognised: Mapping[str, int] = field(default_factory=dict)


def assemble(
    name: str,
    records: Sequence[Assembled],
    known: Mapping[Place, str],
    *,
    evaluations: Sequence[str] = (),
    max_event_bytes: int = 900_000,
    earlier: EarlierOf = lambda _: lambda _: None,
    chats: ChatsOf | None = None,
    environment: str = "",
) -> Assembly:
    """Assemble what has come of the trace or conversation `name`.

    `known` are the episodes that were assembled of it before, and are closed. The first append-only conversation that
    is not superseded is the episode `name`, each further one `name/CALL` by its first call. A verdict judges the
    episode that its call is a step of; an evaluation of no call the first one of its trace; feedback on the unit the
    episode `name`. `evaluations` names those that count; empty counts all. `earlier` gives the responses that a call
    may name, `chats` what is said in a call where it was read before. `environment` is that of episodes whose records
    name none.

    Where content of a call was hidden or cut off, the steps of what is left are flagged, so that nothing is learned
    from them. So are those of an episode of which an event is too large.
    """
    telemetry = read_telemetry(
        [each for each in records if isinstance(each, Span | LogRecord)], evaluations, environment
    )
    captured = read_captured(
        [each for each in records if isinstance(each, CapturedCall)],
        [each for each in records if isinstance(each, Feedback)],
        earlier,
        environment,
        chats,
    )
    name = _short(name)
    found = sorted(chains([*telemetry.calls, *captured.calls]), key=lambda chain: chain.superseded)
    events: list[StepEvent | OutcomeEvent] = []
    signers: dict[str, str | None] = {}
    episodes: dict[Place, str] = {}
    for chain in found:
        first = chain.calls[0]
        episode = _short(f"{name}/{first.name}") if known or episodes else name
        events += _steps(episode, chain)
        signers |= {call.event_id: call.signer for call in chain.calls}
        episodes |= {call.place: episode for call in chain.calls}
    gone_on = continued_choices(call for chain in found for call in chain.calls[:-1])
    episodes |= {(receipt, ""): episodes[call.place] for receipt, call in gone_on.items()}
    judged = dict(known) | episodes
    first_of_trace = {trace: episode for (trace, _), episode in reversed(judged.items())}

    def outcome(verdict: Verdict) -> OutcomeEvent | None:
        if verdict.place is None:
            return _outcome(verdict, name)
        other = first_of_trace.get(verdict.place[0]) if verdict.anywhere else None
        return _outcome(verdict, judged.get(verdict.place) or other)

    evaluated = [outcome(verdict) for verdict in telemetry.verdicts]
    fed_back = [outcome(verdict) for verdict in captured.verdicts]
    signers |= {verdict.event_id: verdict.signer for verdict in (*telemetry.verdicts, *captured.verdicts)}
    events += [each for each in (*evaluated, *fed_back) if each is not None]
    small = _publishable(events, max_event_bytes)
    absences = Counter(telemetry.absences) + Counter(captured.absences)
    return Assembly(
        small,
        episodes,
        signers,
        without_content=absences.total(),
        unusable_evaluations=evaluated.count(None),
        unusable_feedback=fed_back.count(None),
        superseded=sum(chain.superseded for chain in found),
        too_large=len(events) - len(small),
        absences=absences,
        unrecognised=telemetry.unrecognised,
    )


def _steps(episode: str, chain: Chain) -> Iterator[StepEvent]:
    first = chain.calls[0]
    task = Task(
        environment=_short(first.environment),
        task_id=_short(first.task_id or task_of(first.chat.messages)),
        seed=first.seed,
        state=first.state,
    )
    flag = next((call.flag for call in chain.calls if call.flag is not None), None)
    for number, call in enumerate(chain.calls):
        yield _step(episode, number, call, chain, task, flag)


def _step(episode: str, number: int, call: Call, chain: Chain, task: Task, flag: str | None) -> StepEvent:
    done = number == len(chain.calls) - 1
    return StepEvent(
        event_id=call.event_id,
        episode_id=episode,
        step=number,
        agent=_short(call.agent),
        principal=_short(call.principal),
        recorded_at=_time(call.ended_ns),
        task=task,
        tools=call.chat.tools or (),
        messages=call.chat.messages,
        action=call.chat.action,
        observation=() if done else chain.observations[number],
        done=done,
        actor=Actor(kind="policy", adapter=None if call.chat.model is None else _short(call.chat.model)),
        flag=flag,
        receipt=call.receipt,
    )


def _outcome(verdict: Verdict, episode: str | None) -> OutcomeEvent | None:
    if episode is None or verdict.success is None:
        return None
    return OutcomeEvent(
        event_id=verdict.event_id,
        episode_id=episode,
        verifier=_short(verdict.verifier),
        success=verdict.success,
        score=verdict.score,
        evidence=dict(verdict.evidence),
        recorded_at=_time(verdict.given_ns),
    )


def _publishable(events: Sequence[StepEvent | OutcomeEvent], most: int) -> tuple[StepEvent | OutcomeEvent, ...]:
    """The events of at most `most` bytes. The steps of an episode that lost one of its events are flagged."""

    def fits(event: StepEvent | OutcomeEvent) -> bool:
        return len(event.to_json()) <= most

    small = [event for event in events if fits(event)]
    shortened = {event.episode_id for event in events if not fits(event)}
    flagged = (
        event.model_copy(update={"flag": _TOO_LARGE})
        if isinstance(event, StepEvent) and event.flag is None and event.episode_id in shortened
        else event
        for event in small
    )
    return tuple(event for event in flagged if fits(event))  # the flag itself makes an event larger


def _time(nanoseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def _short(text: str) -> str:
    """The text as an id or a name, which has a greatest length: a longer one is known by its hash."""
    return text if len(text) <= _LONGEST else content_id(text)
