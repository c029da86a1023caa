"""One conversation with tools, as the instrumentations and APIs of each dialect write the calls of its model."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from ratchet_client.messages import Message, Messages, ToolCall, ToolDefinition, assistant, call, tool_result, user
from streams.otlp.records import Attributes

CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: tuple[ToolDefinition, ...] = (
    {"type": "function", "function": {"name": "weather", "description": "Weather of a city.", "parameters": CITY}},
    {"type": "function", "function": {"name": "book", "description": "Book a room.", "parameters": CITY}},
)
CHAT: Messages = (
    Message(role="system", content="You plan journeys."),
    user("Rome or Oslo?"),
    assistant("I look.", call("weather", '{"city":"Rome"}', "a"), call("weather", '{"city":"Oslo"}', "b")),
    tool_result('{"sky":"blue","degrees":21}', "a"),
    tool_result('Snow, "deep"', "b"),
    assistant(None, call("book", '{"city":"Rome"}', "c")),
    tool_result("Booked.", "c"),
    assistant("Rome it is."),
    user("Thanks. Any museum?"),
    assistant("The Borghese."),
)
REPLIES = tuple(place for place, message in enumerate(CHAT) if message.role == "assistant")
Dialect = Callable[[Messages, Message], Attributes]


def openai(message: Message) -> dict[str, Any]:
    return message.model_dump(mode="json", exclude_none=True)


def _arguments(made: ToolCall) -> Any:
    assert made.function is not None
    return json.loads(made.function.arguments)


def _name(made: ToolCall) -> str:
    assert made.function is not None
    return made.function.name


def _parts(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        part = {"type": "tool_call_response", "id": message.tool_call_id, "response": message.text}
        return {"role": "tool", "parts": [part]}
    parts: list[Any] = [{"type": "text", "content": message.text}] if message.text else []
    parts += [
        {"type": "tool_call", "id": made.id, "name": _name(made), "arguments": _arguments(made)}
        for made in message.calls
    ]
    return {"role": message.role, "parts": parts}


def _flat(tool: ToolDefinition) -> Any:
    return {"type": "function"} | _function(tool)


def _function(tool: ToolDefinition) -> dict[str, Any]:
    function = tool["function"]
    assert isinstance(function, dict)
    return function


def conventions(seen: Messages, said: Message) -> Attributes:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": json.dumps([_parts(message) for message in seen]),
        "gen_ai.output.messages": json.dumps([_parts(said)]),
        "gen_ai.tool.definitions": json.dumps([_flat(tool) for tool in TOOLS]),
    }


def conventions_in_objects(seen: Messages, said: Message) -> Attributes:
    """Structured attributes, and the instructions in one of their own."""
    told: Attributes = {
        key: value if key == "gen_ai.operation.name" else json.loads(str(value))
        for key, value in conventions(seen[1:], said).items()
    }
    return told | {"gen_ai.system_instructions": [{"type": "text", "content": seen[0].text}]}


def pydantic_ai(seen: Messages, said: Message) -> Attributes:
    """As its version 4 writes it: results in a user's message, arguments as the text that came."""

    def parts(message: Message) -> dict[str, Any]:
        if message.role == "tool":
            part = {"type": "tool_call_response", "id": message.tool_call_id, "name": "x", "result": message.text}
            return {"role": "user", "parts": [part]}
        told = _parts(message)
        for part in told["parts"]:
            if part["type"] == "tool_call":
                part["arguments"] = json.dumps(part["arguments"], separators=(",", ":"))
        return told

    functions = [_function(tool) for tool in TOOLS]
    tools = [{**tool, "parameters_json_schema": tool["parameters"], "strict": None} for tool in functions]
    for tool in tools:
        del tool["parameters"]
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": json.dumps([parts(message) for message in seen]),
        "gen_ai.output.messages": json.dumps([parts(said)]),
        "model_request_parameters": json.dumps({"function_tools": tools, "output_tools": []}),
    }


def openllmetry(seen: Messages, said: Message) -> Attributes:
    told: Attributes = {"llm.request.type": "chat"}
    for number, tool in enumerate(TOOLS):
        prefix = f"llm.request.functions.{number}"
        told |= {f"{prefix}.name": _function(tool)["name"], f"{prefix}.description": _function(tool)["description"]}
        told[f"{prefix}.parameters"] = json.dumps(_function(tool)["parameters"])
    for prefix, message in _numbered("gen_ai.prompt", "gen_ai.completion", seen, said):
        told[f"{prefix}.role"] = message.role
        if message.content is not None:
            told[f"{prefix}.content"] = message.text
        if message.tool_call_id:
            told[f"{prefix}.tool_call_id"] = message.tool_call_id
        for number, made in enumerate(message.calls):
            told |= {f"{prefix}.tool_calls.{number}.id": made.id, f"{prefix}.tool_calls.{number}.name": _name(made)}
            told[f"{prefix}.tool_calls.{number}.arguments"] = made.function.arguments if made.function else None
    return told


def openllmetry_without_ids(seen: Messages, said: Message) -> Attributes:
    lost = (".id", ".tool_call_id")
    return {key: value for key, value in openllmetry(seen, said).items() if not key.endswith(lost)}


def anthropic(seen: Messages, said: Message) -> Attributes:
    """Content blocks in OpenLLMetry's attributes; all results of one reply, and what the user adds, in one message."""
    told: Attributes = {"gen_ai.operation.name": "chat", "gen_ai.system": "anthropic"}
    for number, tool in enumerate(TOOLS):
        prefix = f"llm.request.functions.{number}"
        told |= {f"{prefix}.name": _function(tool)["name"], f"{prefix}.description": _function(tool)["description"]}
        told[f"{prefix}.input_schema"] = json.dumps(_function(tool)["parameters"])
    for number, (role, content) in enumerate(_blocks(seen)):
        told |= {f"gen_ai.prompt.{number}.role": role, f"gen_ai.prompt.{number}.content": content}
    ((role, content),) = _blocks((said,))
    return told | {"gen_ai.completion.0.role": role, "gen_ai.completion.0.content": content}


def _blocks(messages: Sequence[Message]) -> list[tuple[str, str]]:
    found: list[tuple[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            block = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.text}
            if found[-1][0] == "user" and isinstance(found[-1][1], list):
                found[-1][1].append(block)
            else:
                found.append(("user", [block]))
        elif message.calls:
            blocks: list[Any] = [{"type": "text", "text": message.text}] if message.text else []
            uses = [
                {"type": "tool_use", "id": made.id, "name": _name(made), "input": _arguments(made)}
                for made in message.calls
            ]
            found.append(("assistant", blocks + uses))
        else:
            found.append((message.role, message.text))
    return [(role, said if isinstance(said, str) else json.dumps(said)) for role, said in found]


def openinference(seen: Messages, said: Message) -> Attributes:
    told: Attributes = {"openinference.span.kind": "LLM"}
    told |= {f"llm.tools.{number}.tool.json_schema": json.dumps(tool) for number, tool in enumerate(TOOLS)}
    for prefix, message in _numbered("llm.input_messages", "llm.output_messages", seen, said):
        told |= _openinference(f"{prefix}.message", message)
    return told


def _openinference(prefix: str, message: Message, first: int = 0) -> Attributes:
    told: Attributes = {f"{prefix}.role": message.role}
    if message.text:
        told[f"{prefix}.content"] = message.text
    if message.tool_call_id:
        told[f"{prefix}.tool_call_id"] = message.tool_call_id
    for number, made in enumerate(message.calls, first):
        within = f"{prefix}.tool_calls.{number}.tool_call"
        told |= {f"{within}.id": made.id, f"{within}.function.name": _name(made)}
        told[f"{within}.function.arguments"] = made.function.arguments if made.function else None
    return told


def openinference_without_ids(seen: Messages, said: Message) -> Attributes:
    lost = ("tool_call.id", ".tool_call_id")
    return {key: value for key, value in openinference(seen, said).items() if not key.endswith(lost)}


def openai_agents(seen: Messages, said: Message) -> Attributes:
    """Items of the Responses API in OpenInference's attributes: each call a message, numbered from 1, with holes."""
    told: Attributes = {"openinference.span.kind": "LLM"}
    told |= {f"llm.tools.{number}.tool.json_schema": json.dumps(_flat(tool)) for number, tool in enumerate(TOOLS)}
    instructions, *rest = seen
    told |= _openinference("llm.input_messages.0.message", instructions)
    items = [item for message in rest for item in _items(message)]
    for number, item in enumerate(items, 1):
        told |= _openinference(f"llm.input_messages.{number}.message", item)
    for number, item in enumerate(_items(said)):
        told |= _openinference(f"llm.output_messages.{number}.message", item, number)
    return told


def _items(message: Message) -> list[Message]:
    if not message.calls:
        return [message]
    text = [assistant(message.text)] if message.text else []
    return text + [assistant(None, made) for made in message.calls]


def responses(seen: Messages, said: Message) -> Attributes:
    """Items of the Responses API as the conventions' messages."""
    return conventions(seen, said) | {
        "gen_ai.input.messages": json.dumps([item for message in seen for item in _response_items(message)]),
        "gen_ai.output.messages": json.dumps(_response_items(said)),
    }


def _response_items(message: Message) -> list[Any]:
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": message.text}]
    kind = "output_text" if message.role == "assistant" else "input_text"
    content = [{"type": kind, "text": message.text}]
    items: list[Any] = [{"type": "message", "role": message.role, "content": content}] if message.text else []
    return items + [
        {"type": "function_call", "id": f"fc_{made.id}", "call_id": made.id, **made.function.model_dump()}
        for made in message.calls
        if made.function is not None
    ]


def vercel(seen: Messages, said: Message) -> Attributes:
    def message(one: Message) -> dict[str, Any]:
        if one.role == "tool":
            output = {"type": "text", "value": one.text}
            part = {"type": "tool-result", "toolCallId": one.tool_call_id, "toolName": "x", "output": output}
            return {"role": "tool", "content": [part]}
        if one.role == "system":
            return {"role": "system", "content": one.text}
        parts: list[Any] = [{"type": "text", "text": one.text}] if one.text else []
        parts += [
            {"type": "tool-call", "toolCallId": made.id, "toolName": _name(made), "input": _arguments(made)}
            for made in one.calls
        ]
        return {"role": one.role, "content": parts}

    told: Attributes = {"ai.operationId": "ai.streamText.doStream", "ai.response.text": said.text}
    if said.calls:
        calls = [
            {"toolCallType": "function", "toolCallId": made.id, "toolName": _name(made)}
            | {"input": json.dumps(_arguments(made))}
            for made in said.calls
        ]
        told["ai.response.toolCalls"] = json.dumps(calls)
    tools = [{key: value for key, value in _flat(tool).items() if key != "parameters"} for tool in TOOLS]
    told["ai.prompt.tools"] = [
        json.dumps(tool | {"inputSchema": _function(whole)["parameters"]})
        for tool, whole in zip(tools, TOOLS, strict=True)
    ]
    return told | {"ai.prompt.messages": json.dumps([message(one) for one in seen])}


def gemini(seen: Messages, said: Message) -> Attributes:
    """Parts of Gemini: no ids, answers in a user's message, several tools in one declaration."""

    def content(message: Message) -> dict[str, Any]:
        if message.role == "tool":
            name = "book" if message.tool_call_id == "c" else "weather"
            part = {"function_response": {"name": name, "response": {"result": message.text}}}
            return {"role": "user", "parts": [part]}
        parts: list[Any] = [{"text": message.text}] if message.text else []
        parts += [{"function_call": {"name": _name(made), "args": _arguments(made)}} for made in message.calls]
        return {"role": "model" if message.role == "assistant" else message.role, "parts": parts}

    declared = {"function_declarations": [_function(tool) for tool in TOOLS]}
    return conventions(seen, said) | {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.input.messages": json.dumps([content(message) for message in seen]),
        "gen_ai.output.messages": json.dumps([content(said)]),
        "gen_ai.tool.definitions": json.dumps([declared]),
    }


def bedrock(seen: Messages, said: Message) -> Attributes:
    """Content of Bedrock's Converse."""

    def content(message: Message) -> dict[str, Any]:
        if message.role == "tool":
            result = {"toolUseId": message.tool_call_id, "content": [{"text": message.text}]}
            return {"role": "user", "content": [{"toolResult": result}]}
        parts: list[Any] = [{"text": message.text}] if message.text else []
        parts += [
            {"toolUse": {"toolUseId": made.id, "name": _name(made), "input": _arguments(made)}}
            for made in message.calls
        ]
        return {"role": message.role, "content": parts}

    tools = [_function(tool) for tool in TOOLS]
    specs = [{"toolSpec": {**tool, "parameters": None, "inputSchema": {"json": tool["parameters"]}}} for tool in tools]
    return conventions(seen, said) | {
        "gen_ai.input.messages": json.dumps([content(message) for message in seen]),
        "gen_ai.output.messages": json.dumps([content(said)]),
        "gen_ai.tool.definitions": json.dumps(specs),
    }


def _numbered(seen_at: str, said_at: str, seen: Messages, said: Message) -> list[tuple[str, Message]]:
    return [*((f"{seen_at}.{number}", message) for number, message in enumerate(seen)), (f"{said_at}.0", said)]


DIALECTS: tuple[Dialect, ...] = (
    *(conventions, conventions_in_objects, pydantic_ai, openllmetry, openllmetry_without_ids, anthropic),
    *(openinference, openinference_without_ids, openai_agents, responses, vercel, gemini, bedrock),
)
