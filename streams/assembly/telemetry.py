"""From spans and log records to calls and verdicts. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from ratchet_client.event_fields import state_reference
from ratchet_client.ids import content_id
from streams.assembly.chains import Call
from streams.assembly.verdicts import Verdict
from streams.otlp.dialects import DIALECTS, dialect_of
from streams.otlp.model_calls import SpanCall, model_calls
from streams.otlp.records import AnyRecord, Attributes, LogRecord, Span
from streams.otlp.unrecognised import unrecognised

ENVIRONMENT = "otlp"
EVALUATION = "gen_ai.evaluation.result"
ABSENT = "content of a model call in its trace is missing"
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


@dataclass(frozen=True, slots=True)
class Reading:
    """The calls and verdicts in records. The rest counts what could not be read."""

    calls: Sequence[Call]
    verdicts: Sequence[Verdict]
    absences: Mapping[str, int] = field(default_factory=dict)
    unrecognised: Mapping[str, int] = field(default_factory=dict)


def conversation_of(record: AnyRecord) -> str | None:
    """The id of the conversation that the record says it belongs to."""
    dialect = dialect_of(record) if isinstance(record, Span) else None
    names = (DIALECTS[-1].conversation, *((dialect.conversation,) if dialect else ()))
    return next((found for name in names if (found := _text(record.attributes.get(name)))), None)


def read_telemetry(records: Sequence[AnyRecord], evaluations: Sequence[str] = (), environment: str = "") -> Reading:
    """Read what has come of a trace or conversation. `evaluations` names those that count; empty counts all.

    `environment` is that of traces that name none.

    Where content of a call was hidden or cut off, what is left of the conversations of its trace is not all of them.
    """
    spans = [record for record in records if isinstance(record, Span)]
    logs = [record for record in records if isinstance(record, LogRecord)]
    found, absent = model_calls(spans, [record for record in logs if record.name != EVALUATION])
    context = _Context(spans)
    broken = {call.span.trace_key: call.reason for call in absent if call.reason.breaks_episodes}
    flags = {trace: f"{ABSENT}: {reason.value}" for trace, reason in broken.items()}
    return Reading(
        [_call(call, context, flags.get(call.span.trace_key), environment or ENVIRONMENT) for call in found],
        [verdict for name, verdict in _evaluations(spans, logs) if not evaluations or name in evaluations],
        Counter(call.reason.value for call in absent),
        unrecognised(spans, [call.span for call in found]),
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


def _call(call: SpanCall, context: _Context, flag: str | None, environment: str) -> Call:
    span = call.span
    return Call(
        place=(span.trace_key, span.span_id),
        name=span.span_id,
        event_id=span.record_id,
        began_ns=span.start_ns,
        ended_ns=span.end_ns,
        chat=call.chat,
        agent=context.find(span, _AGENT) or ENVIRONMENT,
        principal=span.principal or context.find(span, _PRINCIPAL) or ENVIRONMENT,
        environment=context.find(span, ("ratchet.task.environment",)) or environment,
        task_id=context.find(span, ("ratchet.task.id",)),
        seed=_seed(context.find(span, ("ratchet.task.seed",))),
        state=state_reference(context.find(span, ("ratchet.task.state",))),
        signer=span.principal,
        flag=flag,
    )


def _seed(text: str | None) -> int:
    try:
        seed = int(text or 0)
    except ValueError:
        return 0
    return seed if -(2**63) <= seed < 2**63 else 0


def _evaluations(spans: Iterable[Span], logs: Iterable[LogRecord]) -> Iterator[tuple[JsonValue, Verdict]]:
    """The evaluations, each with its name."""
    for record in logs:
        if record.name == EVALUATION:
            fields = record.attributes | record.body if isinstance(record.body, dict) else record.attributes
            yield fields.get("gen_ai.evaluation.name"), _verdict(record, record.time_ns, fields, record.record_id)
    for span in spans:
        for number, event in enumerate(span.events):
            if event.name == EVALUATION:
                identity = content_id(span.record_id, str(number))
                yield (
                    event.attributes.get("gen_ai.evaluation.name"),
                    _verdict(span, event.time_ns, event.attributes, identity),
                )


def _verdict(record: AnyRecord, time_ns: int, attributes: Attributes, identity: str) -> Verdict:
    success = _passed(attributes)
    score = attributes.get("gen_ai.evaluation.score.value")
    explanation = _text(attributes.get("gen_ai.evaluation.explanation"))
    evidence = {"label": _text(attributes.get("gen_ai.evaluation.score.label")), "explanation": explanation}
    return Verdict(
        place=(record.trace_key, record.span_id),
        event_id=identity,
        verifier=_text(attributes.get("gen_ai.evaluation.name")) or ENVIRONMENT,
        success=success,
        score=float(score) if isinstance(score, int | float) else float(bool(success)),
        given_ns=time_ns,
        evidence={key: text for key, text in evidence.items() if text},
        signer=record.principal,
        anywhere=True,
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
