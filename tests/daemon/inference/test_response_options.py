"""Options of responses that change what is read and what is told: truncation, and log-probabilities."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.recorded import ALIAS, RecordedGateway

LOGPROBS = "message.output_text.logprobs"


@pytest.fixture
def client(house: RecordedGateway) -> Iterator[openai.OpenAI]:
    house.calls()
    with openai.OpenAI(base_url=f"{house.address}/v1", api_key="none", max_retries=0) as client:
        yield client


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": ALIAS, "input": "It is dark.", "max_output_tokens": 12, "temperature": 0, **fields}


def turns(count: int, tools: bool = False) -> list[dict[str, Any]]:
    """A conversation of so many questions, each answered, by way of a tool if so."""
    items: list[dict[str, Any]] = []
    for number in range(count):
        items.append({"role": "user", "content": f"Question {number}: " + "and so on " * 10})
        if tools:
            called = {"call_id": f"c{number}", "name": "look", "arguments": "{}"}
            items.append({"type": "function_call", **called})
            items.append({"type": "function_call_output", "call_id": f"c{number}", "output": "dark " * 5})
        items.append({"role": "assistant", "content": f"Answer {number}."})
    return [*items, {"role": "user", "content": "And now?"}]


def test_a_response_has_the_log_probabilities_of_its_text(client: openai.OpenAI) -> None:
    reply = client.responses.create(**asked(include=[LOGPROBS], top_logprobs=2))
    chat = client.chat.completions.create(
        model=ALIAS,
        messages=[{"role": "user", "content": "It is dark."}],
        max_tokens=12,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
    )
    [item] = reply.output
    assert item.type == "message"
    [part] = item.content
    assert part.type == "output_text"
    assert chat.choices[0].logprobs is not None
    told, wanted = part.logprobs or [], chat.choices[0].logprobs.content or []
    assert [(each.token, each.bytes) for each in told] == [(each.token, each.bytes) for each in wanted]
    assert [each.logprob for each in told] == pytest.approx([each.logprob for each in wanted], abs=1e-4)
    assert (reply.top_logprobs, len(told), len(told[0].top_logprobs)) == (2, 12, 2)
    Response.model_validate(reply.model_dump())


def test_a_streamed_response_tells_them_with_its_text(client: openai.OpenAI) -> None:
    with client.responses.stream(**asked(include=[LOGPROBS], top_logprobs=1)) as stream:
        events = list(stream)
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert all("".join(each.token for each in event.logprobs) == event.delta for event in deltas)
    done = next(event for event in events if event.type == "response.output_text.done")
    told = [each.model_dump(exclude={"bytes"}) for event in deltas for each in event.logprobs]
    assert [each.model_dump() for each in done.logprobs] == told
    final: Any = next(event for event in events if event.type == "response.incomplete")
    whole = final.response.output[0].content[0].logprobs
    assert [(each.token, each.logprob) for each in whole] == [(each["token"], each["logprob"]) for each in told]
    assert bytes(letter for each in whole for letter in each.bytes).decode() == done.text


def test_without_include_there_are_none(client: openai.OpenAI) -> None:
    reply: Any = client.responses.create(**asked(top_logprobs=3))
    assert reply.output[0].content[0].logprobs == []


def test_the_tokens_of_calls_are_not_those_of_a_text(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
    fields = asked(tools=[tool], tool_choice="required", max_output_tokens=200, include=[LOGPROBS])
    with client.responses.stream(**fields) as stream:
        final = stream.get_final_response()
    assert {item.type for item in final.output} == {"function_call"}


@pytest.mark.nightly
@pytest.mark.parametrize("tools", [False, True])
@pytest.mark.parametrize("as_item", [False, True])
def test_of_an_input_that_is_too_long_the_oldest_items_are_dropped(
    tools: bool, as_item: bool, client: openai.OpenAI
) -> None:
    items, system = turns(80, tools), "You tend a house."
    told: dict[str, Any] = {"input": [{"role": "system", "content": system}, *items]} if as_item else {}
    fields = asked(input=items, instructions=None if as_item else system, max_output_tokens=300) | told
    with pytest.raises(openai.BadRequestError, match="raise the setting"):
        client.responses.create(**fields)
    reply = client.responses.create(**fields, truncation="auto")
    assert reply.truncation == "auto"
    assert reply.usage is not None
    assert 1500 < reply.usage.input_tokens <= 2048 - 300
    # It is the newest items, with the instructions, that were read.
    starts = [at for at, item in enumerate(items) if item.get("type") != "function_call_output"]
    kept = items[starts[bisect_left(starts, -(2048 - 300), key=lambda at: -length(client, system, items[at:]))] :]
    again = client.responses.create(**asked(instructions=system, input=kept, max_output_tokens=300))
    assert again.usage is not None
    assert (again.output_text, again.usage.input_tokens) == (reply.output_text, reply.usage.input_tokens)
    followed = client.responses.create(**asked(previous_response_id=reply.id, truncation="auto"))
    assert followed.usage is not None
    assert followed.usage.input_tokens < 2048


def test_an_input_that_fits_is_left_as_it_is_and_one_that_cannot_is_refused(client: openai.OpenAI) -> None:
    plain, auto = (client.responses.create(**asked(truncation=each)) for each in ("disabled", "auto"))
    assert auto.usage is not None
    assert plain.usage is not None
    assert (auto.output_text, auto.usage.input_tokens) == (plain.output_text, plain.usage.input_tokens)
    with pytest.raises(openai.BadRequestError, match="raise the setting"):
        client.responses.create(**asked(input="and so on " * 3000, truncation="auto"))


def length(client: openai.OpenAI, system: str, items: list[dict[str, Any]]) -> int:
    """The tokens of the prompt of these items; more than there is room for, where they do not fit."""
    try:
        reply: Response = client.responses.create(**asked(input=items, instructions=system, max_output_tokens=1))
    except openai.BadRequestError:
        return 10**6
    assert reply.usage is not None
    return reply.usage.input_tokens
