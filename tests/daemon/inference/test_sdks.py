"""The real SDKs on gateway and engine, each API whole or streamed; the record tells what they sent and got."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import openai
import pytest
from pydantic import BaseModel, ConfigDict

from ratchet_client.messages import MESSAGES, Message, Messages, assistant, call, same_message, tool_result, user
from streams.calls.faces import read_call
from tests.recorded import ALIAS, RecordedGateway

SCHEMA = {
    "type": "object",
    "properties": {"room": {"enum": ["hall", "Küche"]}, "lamps": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["room", "lamps"],
    "additionalProperties": False,
}
FUNCTION = {"name": "light", "description": "Lights lamps.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
FLAT_TOOL: Any = {"type": "function", **FUNCTION, "strict": True}
ANTHROPIC_TOOL: Any = {"name": "light", "description": "Lights lamps.", "input_schema": SCHEMA}
SYSTEM = Message(role="system", content="You tend a house.")
ASK = user("It is dark.")


class Plan(BaseModel):
    model_config = ConfigDict(extra="forbid")
    room: Literal["hall", "Küche"]
    lamps: bool


@pytest.fixture
def client(house: RecordedGateway) -> Iterator[openai.OpenAI]:
    house.calls()
    with openai.OpenAI(base_url=f"{house.address}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(house: RecordedGateway) -> Iterator[anthropic.Anthropic]:
    house.calls()
    with anthropic.Anthropic(base_url=house.address, api_key="none", max_retries=0) as client:
        yield client


def same(seen: Messages, *wanted: Message) -> bool:
    return len(seen) == len(wanted) and all(map(same_message, seen, wanted))


# --- Responses


def response_fields(**fields: Any) -> dict[str, Any]:
    return {"model": ALIAS, "instructions": SYSTEM.text, "input": ASK.text, "max_output_tokens": 12, **fields}


def test_a_response_is_what_was_said(house: RecordedGateway, client: openai.OpenAI) -> None:
    reply = client.responses.create(**response_fields(temperature=0))
    openai.types.responses.Response.model_validate(reply.model_dump())
    assert reply.status == "incomplete"
    assert reply.incomplete_details is not None
    assert reply.incomplete_details.reason == "max_output_tokens"
    assert reply.usage is not None
    assert reply.usage.output_tokens == 12
    chat = house.chat()
    assert chat.messages == (SYSTEM, ASK)
    assert chat.action == assistant(reply.output_text)
    whole = client.chat.completions.create(
        model=ALIAS,
        messages=json.loads(MESSAGES.dump_json((SYSTEM, ASK), exclude_none=True)),
        max_tokens=12,
        temperature=0,
    )
    assert whole.choices[0].message.content == reply.output_text


def test_a_streamed_response_is_the_same(house: RecordedGateway, client: openai.OpenAI) -> None:
    whole = client.responses.create(**response_fields(temperature=0))
    with client.responses.stream(**response_fields(temperature=0)) as stream:
        events = list(stream)
    assert events[-1].type == "response.incomplete"
    final = events[-1].response
    assert final.output_text == whole.output_text
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == final.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    first, second = house.chats()
    assert first == second


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_a_response_are_answered_in_the_next_request(
    house: RecordedGateway, client: openai.OpenAI, stream: bool
) -> None:
    fields = response_fields(
        tools=[FLAT_TOOL], tool_choice={"type": "function", "name": "light"}, max_output_tokens=200, seed=1
    )
    fields = fields | {"extra_body": {"seed": fields.pop("seed")}}
    if stream:
        with client.responses.stream(**fields) as streamed:
            reply: Any = streamed.get_final_response()
    else:
        reply = client.responses.create(**fields)
    [made] = reply.output
    assert (made.type, made.name, reply.status) == ("function_call", "light", "completed")
    assert json.loads(made.arguments).keys() == {"room", "lamps"}
    answer = {"type": "function_call_output", "call_id": made.call_id, "output": "Lit."}
    items = [{"role": "user", "content": ASK.text}, made.to_dict(), answer]
    client.responses.create(**response_fields(input=items, tools=[FLAT_TOOL]))
    client.responses.create(**response_fields(input=[answer], previous_response_id=reply.id, tools=[FLAT_TOOL]))
    calls = house.calls()
    [first], [second] = map(read_call, calls[:2])
    assert first.action == assistant(None, call("light", made.arguments, made.call_id))
    assert first.tools == ({"type": "function", "function": {**FUNCTION, "strict": True}},)
    assert second.messages == (*first.messages, first.action, tool_result("Lit.", made.call_id))
    continued = json.loads(calls[2].reply)["usage"]["input_tokens"]
    assert json.loads(calls[1].reply)["usage"]["input_tokens"] == continued


def test_a_response_in_a_format_is_parsed(house: RecordedGateway, client: openai.OpenAI) -> None:
    reply = client.responses.parse(**response_fields(text_format=Plan, max_output_tokens=300))
    assert reply.output_parsed is not None
    assert house.chat().action.text == reply.output_text
    with client.responses.stream(**response_fields(text_format=Plan, max_output_tokens=300)) as stream:
        assert stream.get_final_response().output_parsed is not None


def test_what_responses_do_not_serve_is_refused_by_its_name(client: openai.OpenAI) -> None:
    for fields, named in (
        ({"background": True}, "background"),
        ({"reasoning": {"effort": "wild"}}, "reasoning.effort"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"truncation": "first"}, "truncation"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://a/b"}]}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"previous_response_id": "resp_unknown"}, "previous_response_id"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 9}, "temperature"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
    ):
        with pytest.raises(openai.BadRequestError, match=named):
            client.responses.create(**response_fields(**fields))


# --- Anthropic


def message_fields(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": ASK.text}]
    # Anthropic's own client knows no temperature any more.
    body = {"temperature": fields.pop("temperature", 0)}
    return {
        "model": ALIAS,
        "system": SYSTEM.text,
        "messages": messages,
        "max_tokens": 12,
        "extra_body": body | fields.pop("extra_body", {}),
        **fields,
    }


def test_a_message_is_what_was_said(house: RecordedGateway, claude: anthropic.Anthropic) -> None:
    reply = claude.messages.create(**message_fields(temperature=0))
    [block] = reply.content
    assert block.type == "text"
    assert (reply.stop_reason, reply.usage.output_tokens) == ("max_tokens", 12)
    chat = house.chat()
    assert (chat.messages, chat.action) == ((SYSTEM, ASK), assistant(block.text))
    count = claude.messages.count_tokens(
        **{k: v for k, v in message_fields().items() if k not in ("max_tokens", "extra_body")}
    )
    assert count.input_tokens == reply.usage.input_tokens


def test_a_streamed_message_is_the_same(house: RecordedGateway, claude: anthropic.Anthropic) -> None:
    whole = claude.messages.create(**message_fields(temperature=0))
    with claude.messages.stream(**message_fields(temperature=0)) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == getattr(whole.content[0], "text", None)
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    first, second = house.chats()
    assert first == second


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_used_and_its_result_sent_back(
    house: RecordedGateway, claude: anthropic.Anthropic, stream: bool
) -> None:
    fields = message_fields(tools=[ANTHROPIC_TOOL], tool_choice={"type": "tool", "name": "light"}, max_tokens=200)
    if stream:
        with claude.messages.stream(**fields) as streamed:
            reply: Any = streamed.get_final_message()
    else:
        reply = claude.messages.create(**fields)
    [used] = reply.content
    assert (used.type, used.name, reply.stop_reason) == ("tool_use", "light", "tool_use")
    assert used.input.keys() == {"room", "lamps"}
    result = {"type": "tool_result", "tool_use_id": used.id, "content": "Lit."}
    messages = [*fields["messages"], {"role": "assistant", "content": reply.content}]
    messages.append({"role": "user", "content": [result, {"type": "text", "text": "Well?"}]})
    claude.messages.create(**fields | {"messages": messages, "tool_choice": {"type": "auto"}, "max_tokens": 8})
    first, second = house.chats()
    assert first.tools == (TOOL,)
    made = call("light", json.dumps(used.input), used.id)
    assert same((first.action,), assistant(None, made))
    assert same(second.messages, SYSTEM, ASK, first.action, tool_result("Lit.", used.id), user("Well?"))


def test_a_stop_sequence_is_told(claude: anthropic.Anthropic) -> None:
    whole = claude.messages.create(**message_fields(temperature=0, max_tokens=40)).content[0]
    assert whole.type == "text"
    stop = whole.text[5:8]
    reply = claude.messages.create(**message_fields(temperature=0, max_tokens=40, stop_sequences=[stop]))
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", stop)
    with claude.messages.stream(**message_fields(temperature=0, max_tokens=40, stop_sequences=[stop])) as stream:
        assert stream.get_final_message().stop_sequence == stop


def test_what_messages_ask_for_without_effect_is_taken(claude: anthropic.Anthropic) -> None:
    claude.messages.create(
        **message_fields(
            max_tokens=20_000,
            stop_sequences=["\n"],
            metadata={"user_id": "anna"},
            thinking={"type": "adaptive"},
            cache_control={"type": "ephemeral"},
        )
    )


def test_errors_of_messages_are_anthropics(claude: anthropic.Anthropic, house: RecordedGateway) -> None:
    for fields, named in (
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search"),
        ({"tool_choice": {"type": "tool", "name": "x"}, "tools": [ANTHROPIC_TOOL]}, "tool_choice"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
        ({"temperature": 9}, "temperature"),
        ({"stop_sequences": [1]}, "stop_sequences"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
        ({"extra_body": {"max_tokens": 0}}, "max_tokens"),
    ):
        with pytest.raises(anthropic.BadRequestError, match=named) as raised:
            claude.messages.create(**message_fields(**fields))
        assert raised.value.body["type"] == "error"  # type: ignore[index]
    with pytest.raises(anthropic.NotFoundError) as missing:
        claude.messages.create(**message_fields(model="gpt"))
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]


# --- completions and chat completions


@pytest.mark.parametrize("fields", [{}, {"n": 3}, {"logprobs": 2}, {"stop": [" the"]}])
def test_a_streamed_completion_is_the_same(
    house: RecordedGateway, client: openai.OpenAI, fields: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {"model": ALIAS, "prompt": "It was", "max_tokens": 20, "temperature": 0.8, "seed": 4}
    whole = client.completions.create(**asked, **fields)
    chunks = list(client.completions.create(**asked, **fields, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    for choice in whole.choices:
        pieces = [each for chunk in chunks for each in chunk.choices if each.index == choice.index]
        assert "".join(piece.text for piece in pieces) == choice.text
        assert pieces[-1].finish_reason == choice.finish_reason
        if choice.logprobs is not None:
            told = [piece.logprobs for piece in pieces if piece.logprobs is not None]
            for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
                assert [item for each in told for item in getattr(each, name)] == getattr(choice.logprobs, name)
    chats = house.chats()
    assert chats[: len(chats) // 2] == chats[len(chats) // 2 :]
    assert [chat.action.text for chat in chats] == [choice.text for choice in whole.choices] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_parallel_calls_of_several_choices_are_read_whole(
    house: RecordedGateway, client: openai.OpenAI, stream: bool
) -> None:
    asked: dict[str, Any] = {
        "model": ALIAS,
        "messages": [{"role": "user", "content": ASK.text}],
        "tools": [TOOL],
        "tool_choice": "required",
        "max_tokens": 200,
        "seed": 3,
        "n": 6,
    }
    if stream:
        with client.chat.completions.stream(**asked) as streamed:
            reply: Any = streamed.get_final_completion()
    else:
        reply = client.chat.completions.create(**asked)
    chats = house.chats()
    assert len(chats) == 6
    assert any(len(chat.action.calls) > 1 for chat in chats)
    for choice, chat in zip(reply.choices, chats, strict=True):
        made = [call(each.function.name, each.function.arguments, each.id) for each in choice.message.tool_calls]
        assert chat.action == assistant(None, *made)
