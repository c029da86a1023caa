"""What a text model cannot read is kept as a part, the same in every dialect, and breaks no conversation."""

import json
from typing import Any

import pytest

from ratchet_client.events import EVENT, StepEvent
from ratchet_client.messages import ContentPart, Message, assistant, call, tool_result, user
from streams.assembly.assembly import assemble
from streams.otlp.dialects import Chat, read_chat
from streams.otlp.records import Attributes
from tests.builders.spans import conventions, openinference, openllmetry, root, span

SEEN = [("user", "Go.")]
URL = "https://a.example/cat.png"
IMAGE: Any = {"type": "image_url", "image_url": {"url": URL}}
BYTES: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}


def asked(content: Any) -> Chat:
    seen = [{"role": "user", "content": [{"type": "text", "text": "What?"}, content]}]
    found = read_chat(span(1, conventions(SEEN, "A cat.") | {"gen_ai.input.messages": json.dumps(seen)}), ())
    assert found is not None
    return found


def parts(*found: Any) -> Message:
    return Message.model_validate({"role": "user", "content": found})


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        (IMAGE, IMAGE),
        ({"type": "input_image", "image_url": URL}, IMAGE),
        ({"type": "uri", "modality": "image", "uri": URL}, IMAGE),
        ({"type": "uri", "mime_type": "image/png", "uri": URL}, IMAGE),
        ({"type": "image-url", "url": URL}, IMAGE),
        ({"type": "image", "source": {"type": "url", "url": URL}}, IMAGE),
        ({"type": "image", "image": URL}, IMAGE),
        ({"file_data": {"mime_type": "image/png", "file_uri": URL}}, IMAGE),
        ({"type": "blob", "modality": "image", "mime_type": "image/png", "content": "eA=="}, BYTES),
        ({"type": "binary", "media_type": "image/png", "content": "eA=="}, BYTES),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}}, BYTES),
        ({"inline_data": {"mime_type": "image/png", "data": "eA=="}}, BYTES),
        ({"image": {"format": "png", "source": {"bytes": "eA=="}}}, BYTES),
        ({"type": "image", "image": "eA==", "mediaType": "image/png"}, BYTES),
        (
            {"type": "blob", "mime_type": "audio/wav", "content": "eA=="},
            {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}},
        ),
        (
            {"type": "file", "modality": "image", "file_id": "f-1"},
            {"type": "file", "file": {"file_id": "f-1"}},
        ),
        (
            {"type": "file", "file": {"file_id": "f-1", "filename": "a.pdf"}},
            {"type": "file", "file": {"file_id": "f-1", "filename": "a.pdf"}},
        ),
        (
            {"type": "input_file", "file_data": "data:application/pdf;base64,eA==", "filename": "a.pdf"},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,eA==", "filename": "a.pdf"}},
        ),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hi."}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hi."}},
        ),
        ({"type": "video", "source": {}}, {"type": "video", "source": {}}),
        ({"type": "odd", "what": [1, {"a": None}]}, {"type": "odd", "what": [1, {"a": None}]}),
    ],
)
def test_images_audio_and_files_are_the_parts_of_the_openai_api(part: Any, kept: Any) -> None:
    expected = parts({"type": "text", "text": "What?"}, kept)
    assert asked(part).messages == (expected,)
    assert not expected.is_readable


def test_an_image_in_openinference_and_in_an_answer_is_the_same() -> None:
    prefix = "llm.input_messages.0.message.contents.{}.message_content.{}".format
    told: Attributes = {"openinference.span.kind": "LLM", "llm.input_messages.0.message.role": "user"}
    told |= {prefix(0, "type"): "text", prefix(0, "text"): "What?"}
    told |= {prefix(1, "type"): "image", prefix(1, "image.image.url"): URL}
    told |= {key: value for key, value in openinference(SEEN, "A cat.").items() if "output" in key}
    chat = read_chat(span(1, told), ())
    assert chat is not None
    assert chat.messages == (parts({"type": "text", "text": "What?"}, IMAGE),)
    blocks = [{"type": "text", "text": "See:"}, {"type": "image", "source": {"type": "url", "url": URL}}]
    results = [{"type": "tool_result", "tool_use_id": "1", "content": blocks}]
    seen = [("user", "Go."), ("assistant", json.dumps([{"type": "tool_use", "id": "1", "name": "look", "input": {}}]))]
    chat = read_chat(span(1, openllmetry([*seen, ("user", json.dumps(results))], "A cat.")), ())
    assert chat is not None
    content = (ContentPart(type="text", text="See:"), ContentPart.model_validate(IMAGE))
    assert chat.messages[2] == Message(role="tool", content=content, tool_call_id="1")


SERVED: list[tuple[str, list[Any]]] = [
    (
        "the conventions",
        [
            {"type": "server_tool_call", "id": "s", "name": "web_search", "server_tool_call": {"query": "x"}},
            {"type": "server_tool_call_response", "id": "s", "server_tool_call_response": {"results": []}},
        ],
    ),
    (
        "Anthropic",
        [
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result"}]},
        ],
    ),
    (
        "pydantic-ai",
        [
            {"type": "tool_call", "id": "s", "name": "web_search", "arguments": {"query": "x"}, "builtin": True},
            {"type": "tool_call_response", "id": "s", "name": "web_search", "result": {"n": 1}, "builtin": True},
        ],
    ),
    (
        "a reply that answers itself",
        [
            {"type": "tool_call", "id": "s", "name": "web_search", "arguments": {"query": "x"}},
            {"type": "tool_call_response", "id": "s", "response": "y"},
        ],
    ),
]


@pytest.mark.parametrize(("_", "served"), SERVED)
def test_calls_of_a_providers_own_tools_are_parts_of_the_reply(_: str, served: list[Any]) -> None:
    reply = {"role": "assistant", "parts": [*served, {"type": "text", "content": "Found."}]}
    first = [{"role": "user", "content": "Go."}]
    second = [*first, reply, {"role": "user", "content": "And?"}]
    spans = [
        span(n + 1, conventions(SEEN, "Done.") | {"gen_ai.input.messages": json.dumps(seen)})
        for n, seen in enumerate((first, second))
    ]
    spans[0].attributes["gen_ai.output.messages"] = json.dumps([reply])
    one, two = (event for event in assemble("run", [*spans, root()], {}).events if isinstance(event, StepEvent))
    assert (one.episode_id, two.episode_id) == ("run", "run")
    assert two.messages == (*one.messages, one.action, user("And?"))
    assert one.action.calls == ()
    assert isinstance(one.action.content, tuple)
    assert [part.text for part in one.action.content] == [None, None, "Found."]
    assert not one.action.is_readable
    assert EVENT.validate_json(one.to_json()) == one


def test_items_of_the_responses_api_that_are_no_functions_are_kept() -> None:
    said: list[Any] = [
        {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "mcp_call", "id": "m", "name": "f", "server_label": "s", "arguments": "{}", "output": "1"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I click."}]},
        {"type": "computer_call", "call_id": "c", "id": "cc", "action": {"type": "click", "x": 1}},
    ]
    heard: Any = {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot"}}
    items = [{"role": "user", "content": "Go."}, *said, heard]
    told = conventions(SEEN, "") | {
        "gen_ai.input.messages": json.dumps(items),
        "gen_ai.output.messages": json.dumps(said),
    }
    chat = read_chat(span(1, told), ())
    assert chat is not None
    opening, reply, result = chat.messages
    assert reply == chat.action
    assert isinstance(reply.content, tuple)
    assert [part.type for part in reply.content] == ["web_search_call", "mcp_call", "text"]
    ((made,), answered) = (reply.calls, result.tool_call_id)
    assert (opening, made.id, made.type, made.function, answered) == (user("Go."), "c", "computer_call", None, "c")


def items_of_openai_agents(*, hole: bool) -> Attributes:
    """A call whose item number 2, reasoning that was kept secret, has no attributes; numbers of calls have holes."""
    items = [
        {"role": "user", "content": "Go."},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"room": "kitchen"}'},
        {"type": "function_call_output", "call_id": "c", "output": "A fridge."},
    ]
    told: Attributes = {"openinference.span.kind": "LLM", "llm.output_messages.0.message.content": "Done."}
    told |= {"llm.output_messages.0.message.role": "assistant", "input.value": json.dumps(items)}
    told |= {"llm.input_messages.0.message.role": "system", "llm.input_messages.0.message.content": "You play."}
    message, number = "llm.input_messages.{}.message.{}".format, 3 if hole else 2
    told |= {message(1, "role"): "user", message(1, "content"): "Go.", message(number, "role"): "assistant"}
    within = message(number, "tool_calls.4.tool_call")
    told |= {f"{within}.id": "c", f"{within}.function.name": "look"}
    told[f"{within}.function.arguments"] = '{"room": "kitchen"}'
    told |= {message(number + 1, "role"): "tool", message(number + 1, "content"): "A fridge."}
    return told | {message(number + 1, "tool_call_id"): "c"}


@pytest.mark.parametrize("hole", [False, True])
def test_an_item_without_attributes_is_read_from_the_request(hole: bool) -> None:
    told = items_of_openai_agents(hole=hole)
    chat = read_chat(span(1, told), ())
    assert chat is not None
    expected = (
        Message(role="system", content="You play."),
        user("Go."),
        assistant(None, call("look", '{"room": "kitchen"}', "c")),
        tool_result("A fridge.", "c"),
    )
    assert chat.messages == expected
    assert read_chat(span(1, told, dropped_attributes=1), ()) is None
    if hole:
        assert read_chat(span(1, told | {"input.value": "__REDACTED__"}), ()) is None


def test_a_text_that_openai_agents_tells_twice_is_one() -> None:
    told = openinference(SEEN, "Done.")
    prefix = "llm.output_messages.0.message.contents.0.message_content"
    chat = read_chat(span(1, told | {f"{prefix}.type": "text", f"{prefix}.text": "Done."}), ())
    assert chat is not None
    assert chat.action == assistant("Done.")


def test_a_reply_that_openai_agents_streamed_is_in_the_output_value() -> None:
    told = {key: value for key, value in openinference(SEEN, "").items() if "output" not in key}
    item = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}", "id": "__fake_id__"}
    response = {"object": "response", "output": [item]}
    chat = read_chat(span(1, told | {"output.value": json.dumps([response])}), ())
    assert chat is not None
    assert chat.action == assistant(None, call("look", "{}", "c"))
