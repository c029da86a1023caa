"""From the spans and log records of a trace or conversation to events. Pure; the assembler calls it.

Every id follows from ids of the telemetry, so that what is assembled twice is recognised by the store.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from streams.assembly.chains import Chain, chains
from streams.calls.absence import Absence
from streams.events import Actor, OutcomeEvent, StepEvent, Task
from streams.ids import content_id
from streams.messages import Message
from streams.otlp.dialects import DIALECTS, dialect_of
from streams.otlp.model_calls import SpanCall, model_calls
from streams.otlp.records import AnyRecord, Attributes, LogRecord, Span
from streams.otlp.unrecognised import unrecognised

ENVIRONMENT = "otlp"
EVALUATION = "gen_ai.evaluation.result"
_ABSENT = "content of a model call in its trace is missing"
_TOO_LARGE = "another event of its episode is too large to publish"
_AGENT = ("gen_ai.agent.name", "agent.name", "service.name")
_PRINCIPAL = (
    "user.id",
    "enduser.id",
    "traceloop.association.properties.user_id",
    "service.namespace",
    "service.name",
)
_PASSED = frozenset({"pass", "passed", "true", "success", "correct", "yes"})
_FAILED = frozenset({"fail", "failed", "false", "failure", "incorrect", "no"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Place = tuple[str, str]  # a record's trace key and span id


@dataclass(frozen=True, slots=True)
class Assembly:
    """The events made of a trace or conversation.

    `episodes` says which episode the span at a place is a step of. The rest counts model calls without content, also by
    the reason for its absence; evaluations that belong to no episode or say neither pass nor fail; events too large to
    publish; and spans of dialects that are not understood, by name.
    """

    events: tuple[StepEvent | OutcomeEvent, ...]
    episodes: Mapping[Place, str]
    without_content: int = 0
    unusable_evaluations: int = 0
    too_large: int = 0
    absences: Mapping[str, int] = field(default_factory=dict)
    unrecognised: Mapping[str, int] = field(default_factory=dict)


def conversation_of(record: AnyRecord) -> str | None:
    """The id of the conversation that the record says it belongs to."""
    dialect = dialect_of(record) if isinstance(record, Span) else None
    names = (DIALECTS[-1].conversation, *((dialect.conversation,) if dialect else ()))
    return next((found for name in names if (found := _text(record.attributes.get(name)))), None)


def assemble(
    name: str,
    records: Sequence[AnyRecord],
    known: Mapping[Place, str],
    *,
    evaluations: Sequence[str] = (),
    max_event_bytes: int = 900_000,
) -> Assembly:
    """Assemble what has come of the trace or conversation `name`.

    `known` are the episodes that were assembled of it before, and are closed. The first append-only conversation is
    the episode `name`, each further one `name/SPAN` by its first span. An evaluation judges the episode that its span
    is a step of, else the first one of its trace. `evaluations` names those that count; empty counts all.

    Where content of a call was hidden or cut off, what is left of the conversations of its trace is not all of them:
    their steps are flagged, so that nothing is learned from them. So are those of an episode of which an event is too
    large.
    """
    spans = [record for record in records if isinstance(record, Span)]
    logs = [record for record in records if isinstance(record, LogRecord)]
    calls, absent = model_calls(spans, [record for record in logs if record.name != EVALUATION])
    context = _Context(spans)
    broken = {call.span.trace_key: call.reason for call in absent if call.reason.breaks_episodes}
    events: list[StepEvent | OutcomeEvent] = []
    episodes: dict[Place, str] = {}
    for chain in chains(calls):
        episode = f"{name}/{chain.calls[0].span.span_id}" if known or episodes else name
        reason = next((broken[trace] for call in chain.calls if (trace := call.span.trace_key) in broken), None)
        events += _steps(episode, chain, context, reason)
        episodes |= {(call.span.trace_key, call.span.span_id): episode for call in chain.calls}
    judged = dict(known) | episodes
    first_of_trace = {trace: episode for (trace, _), episode in reversed(judged.items())}
    verdicts = [
        _outcome(evaluation, judged.get(evaluation.place) or first_of_trace.get(evaluation.place[0]))
        for evaluation in _evaluations(spans, logs)
        if not evaluations or evaluation.attributes.get("gen_ai.evaluation.name") in evaluations
    ]
    events += [verdict for verdict in verdicts if verdict is not None]
    small = _publishable(events, max_event_bytes)
    return Assembly(
        small,
        episodes,
        without_content=len(absent),
        unusable_evaluations=verdicts.count(None),
        too_large=len(events) - len(small),
        absences=Counter(call.reason.value for call in absent),
        unrecognised=unrecognised(spans, [call.span for call in calls]),
    )


class _Context:
    """Finds what is said of a whole trace: on the span itself, else on any span of its trace, else on the resource."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._traces: dict[str, Attributes] = {}
        for span in sorted(spans, key=lambda span: (span.start_ns, span.span_id), reverse=True):
            self._traces.setdefault(span.trace_key, {}).update(span.attributes)

    def find(self, span: Span, names: Iterable[str]) -> str | None:
        places = (span.attributes, self._traces[span.trace_key], span.resource)
        return next((found for name in names for place in places if (found := _text(place.get(name)))), None)


def _steps(episode: str, chain: Chain, context: _Context, absence: Absence | None) -> Iterator[StepEvent]:
    first = chain.calls[0]
    task = Task(
        environment=context.find(first.span, ("ratchet.task.environment",)) or ENVIRONMENT,
        task_id=context.find(first.span, ("ratchet.task.id",)) or _task_id(first.chat.messages),
        seed=_seed(context.find(first.span, ("ratchet.task.seed",))),
    )
    flag = f"{_ABSENT}: {absence.value}" if absence is not None else None
    for number, call in enumerate(chain.calls):
        step = _step(episode, number, call, chain, task, context)
        yield step if flag is None else step.model_copy(update={"flag": flag})


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


def _step(episode: str, number: int, call: SpanCall, chain: Chain, task: Task, context: _Context) -> StepEvent:
    done = number == len(chain.calls) - 1
    return StepEvent(
        event_id=call.span.record_id,
        episode_id=episode,
        step=number,
        agent=context.find(call.span, _AGENT) or ENVIRONMENT,
        principal=call.span.principal or context.find(call.span, _PRINCIPAL) or ENVIRONMENT,
        recorded_at=_EPOCH + timedelta(microseconds=call.span.end_ns // 1000),
        task=task,
        tools=call.chat.tools or (),
        messages=call.chat.messages,
        action=call.chat.action,
        observation=() if done else chain.observations[number],
        done=done,
        actor=Actor(kind="policy", adapter=call.chat.model),
    )


def _task_id(messages: Sequence[Message]) -> str:
    """A hash of the messages up to the user's first: a chat and its continuation must fall into the same split."""
    parts: list[str] = []
    for message in messages:
        # The instructions are one message to some instrumentations, whichever of the two roles they have.
        parts += ("system" if message.role == "developer" else message.role, message.text)
        if not message.is_readable:
            parts.append(message.model_dump_json(include={"content"}))
        for call in message.calls:
            parts += (call.function.name, call.function.arguments) if call.function is not None else (call.type,)
        if message.role == "user":
            break
    return content_id("otlp-task", *parts)


def _seed(text: str | None) -> int:
    try:
        seed = int(text or 0)
    except ValueError:
        return 0
    return seed if -(2**63) <= seed < 2**63 else 0


@dataclass(frozen=True, slots=True)
class _Evaluation:
    place: Place
    time_ns: int
    attributes: Attributes
    record_id: str


def _evaluations(spans: Iterable[Span], logs: Iterable[LogRecord]) -> Iterator[_Evaluation]:
    for record in logs:
        if record.name == EVALUATION:
            fields = record.attributes | record.body if isinstance(record.body, dict) else record.attributes
            yield _Evaluation((record.trace_key, record.span_id), record.time_ns, fields, record.record_id)
    for span in spans:
        for number, event in enumerate(span.events):
            if event.name == EVALUATION:
                yield _Evaluation(
                    (span.trace_key, span.span_id),
                    event.time_ns,
                    event.attributes,
                    content_id(span.record_id, str(number)),
                )


def _outcome(evaluation: _Evaluation, episode: str | None) -> OutcomeEvent | None:
    success = _passed(evaluation.attributes)
    if episode is None or success is None:
        return None
    score = evaluation.attributes.get("gen_ai.evaluation.score.value")
    explanation = _text(evaluation.attributes.get("gen_ai.evaluation.explanation"))
    label = _text(evaluation.attributes.get("gen_ai.evaluation.score.label"))
    evidence = {"label": label, "explanation": explanation}
    return OutcomeEvent(
        event_id=evaluation.record_id,
        episode_id=episode,
        verifier=_text(evaluation.attributes.get("gen_ai.evaluation.name")) or ENVIRONMENT,
        success=success,
        score=float(score) if isinstance(score, int | float) else float(success),
        evidence={key: text for key, text in evidence.items() if text},
        recorded_at=_EPOCH + timedelta(microseconds=evaluation.time_ns // 1000),
    )


def _passed(attributes: Attributes) -> bool | None:
    """The decision of an evaluation. A score alone decides nothing: each evaluator has its own scale.

    `gen_ai.evaluation.passed` is not of the conventions: some vendors' evaluators write it, and mean it for this.
    """
    flag = attributes.get("gen_ai.evaluation.passed")
    if isinstance(flag, bool):
        return flag
    label = (_text(attributes.get("gen_ai.evaluation.score.label")) or "").lower()
    return True if label in _PASSED else False if label in _FAILED else None


def _text(value: JsonValue) -> str | None:
    if isinstance(value, bool) or value is None:
        return None
    return str(value) if isinstance(value, str | int | float) else None
