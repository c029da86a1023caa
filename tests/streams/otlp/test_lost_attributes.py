"""A model call that lost its oldest attributes to a limit is missed: no shortened episode passes for a whole one."""

from typing import Any

import pytest

from ratchet_client.events import StepEvent
from streams.assembly.assembly import Assembly, assemble
from streams.otlp.records import AnyRecord, Span
from tests.builders.spans import conventions, evaluation, game, openinference, openllmetry, root, span, states

CUT_OFF = "content of a model call in its trace is missing: cut off by a limit"


def newest(found: Span, kept: int) -> Span:
    """The span as the SDK leaves it at a limit of `kept` attributes."""
    lost = max(0, len(found.attributes) - kept)
    attributes = dict(list(found.attributes.items())[lost:])
    return found.model_copy(update={"attributes": attributes, "dropped_attributes": lost})


def steps_of(assembly: Assembly) -> list[StepEvent]:
    return [event for event in assembly.events if isinstance(event, StepEvent)]


@pytest.mark.parametrize("kept", range(1, 9))
@pytest.mark.parametrize("dialect", [openllmetry, openinference])
def test_calls_that_lost_their_oldest_attributes_flag_the_steps_that_are_left(dialect: Any, kept: int) -> None:
    first, *later = game(dialect=dialect)
    records: list[AnyRecord] = [first, *(newest(found, kept) for found in later), evaluation(99, score_label="pass")]
    assembly = assemble("run", records, {})
    assert {step.flag for step in steps_of(assembly)} == {CUT_OFF}
    assert dict(assembly.absences) == {"cut off by a limit": 2}


@pytest.mark.parametrize("kept", range(1, 5))
def test_a_call_of_the_conventions_that_lost_its_operation_flags_the_others(kept: int) -> None:
    first, second, _, end = game()
    (step,) = steps_of(assemble("run", [first, newest(second, kept), end], {}))
    assert step.flag == CUT_OFF


def test_a_span_around_calls_that_lost_its_operation_flags_nothing() -> None:
    agent = newest(root(conventions(*states()[2])), 3)
    steps = steps_of(assemble("run", [*game()[:3], agent], {}))
    assert [step.flag for step in steps] == [None] * 3


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.operation.name": "embeddings", "gen_ai.usage.input_tokens": 3},
        {"openinference.span.kind": "AGENT", "llm.input_messages.0.message.role": "user"},
        {"openinference.span.kind": "EMBEDDING", "gen_ai.usage.input_tokens": 3},
        {"gen_ai.prompt.name": "greeting", "gen_ai.tool.name": "look"},
        {"http.request.method": "POST"},
    ],
)
def test_other_spans_that_lost_attributes_flag_nothing(attributes: Any) -> None:
    assembly = assemble("run", [*game(), span(50, attributes, dropped_attributes=3)], {})
    assert [step.flag for step in steps_of(assembly)] == [None] * 3
    assert assembly.without_content == 0


def test_instructions_that_a_limit_dropped_are_missed_where_other_calls_have_them() -> None:
    told = {"gen_ai.system_instructions": '[{"type": "text", "content": "You play."}]'}
    calls = [span(n + 1, conventions(seen[1:], said) | told) for n, (seen, said) in enumerate(states())]
    assert [step.flag for step in steps_of(assemble("run", calls, {}))] == [None] * 3
    bare = span(3, conventions(states()[2][0][1:], "eat apple"), dropped_attributes=1)
    assembly = assemble("run", [*calls[:2], bare], {})
    assert [step.flag for step in steps_of(assembly)] == [CUT_OFF] * 2
    # Instructions among the messages are there.
    whole = span(3, conventions(*states()[2]), dropped_attributes=1)
    assert [step.flag for step in steps_of(assemble("run", [*calls[:2], whole], {}))] == [None] * 3
