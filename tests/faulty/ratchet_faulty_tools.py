"""Environments with tools that a third party might install: one for each promise of theirs that can be broken."""

from dataclasses import replace

from pydantic import JsonValue

from examples.tool_environment import OrderDesk
from ratchet_client.events import Task
from ratchet_client.messages import Message, ToolDefinition, Tools, assistant, call, tool_result, user
from streams.environments.environment import Observation
from streams.environments.harness import ChatHarness
from streams.errors import SandboxError


def _function(name: str, parameters: JsonValue) -> ToolDefinition:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


class Mute(OrderDesk):
    """Leaves the second of two calls unanswered."""

    def step(self, action: Message) -> Observation:
        answer = super().step(action)
        return replace(answer, messages=answer.messages[:1])


class Repetitive(OrderDesk):
    """Answers each call twice."""

    def step(self, action: Message) -> Observation:
        answer = super().step(action)
        return replace(answer, messages=answer.messages * 2) if action.calls else answer


class Mislabelling(OrderDesk):
    """Numbers its answers itself."""

    def step(self, action: Message) -> Observation:
        answer = super().step(action)
        if not action.calls:
            return answer
        return replace(
            answer, messages=tuple(tool_result(each.text, f"call_{n}") for n, each in enumerate(answer.messages))
        )


class Chatty(OrderDesk):
    """Lets the user speak before the tools have answered."""

    def step(self, action: Message) -> Observation:
        answer = super().step(action)
        return replace(answer, messages=(user("And?"), *answer.messages)) if action.calls else answer


class Unasked(OrderDesk):
    """Answers a text with the result of a tool."""

    def step(self, action: Message) -> Observation:
        answer = super().step(action)
        return answer if action.calls else replace(answer, messages=(tool_result("Thank you.", "call_1"),))


class Silent(OrderDesk):
    """Begins with nothing said."""

    def reset(self, task: Task) -> Observation:
        return replace(super().reset(task), messages=())


class Ventriloquist(OrderDesk):
    """Speaks for the assistant."""

    def step(self, action: Message) -> Observation:
        answer = super().step(action)
        return replace(answer, messages=(*answer.messages, assistant("I am glad to help.")))


class Startled(OrderDesk):
    """Raises at a tool that it does not have."""

    def step(self, action: Message) -> Observation:
        answer = super().step(action)
        if action.calls and not answer.understood:
            raise SandboxError("no such tool. Call another.")
        return answer


class Feigning(OrderDesk):
    """Says that it understood whatever was called."""

    def step(self, action: Message) -> Observation:
        return replace(super().step(action), understood=True)


class Dialect(OrderDesk):
    """Its schemas have types that JSON Schema has not."""

    tools: Tools = (_function("find_orders", {"type": "dict", "properties": {"email": {"type": "str"}}}),)

    def reset(self, task: Task) -> Observation:
        return replace(super().reset(task), tools=self.tools)


class Mistyped(Dialect):
    """Of an inner type of its schema there is no such thing."""

    tools = (_function("find_orders", {"type": "object", "properties": {"email": {"type": "float"}}}),)


class Bare(Dialect):
    """Its tools are without the envelope that says that they are functions."""

    tools = ({"name": "find_orders", "parameters": {"type": "object"}},)


class Spaced(Dialect):
    """The name of its tool has a space, which servers refuse."""

    tools = (_function("find orders", {"type": "object"}),)


class Doubled(Dialect):
    """Two of its tools have one name."""

    tools = (_function("find_orders", {"type": "object"}),) * 2


class Dangling(Dialect):
    """A schema refers to what it does not define."""

    tools = (_function("find_orders", {"type": "object", "properties": {"email": {"$ref": "#/$defs/Email"}}}),)


class Curt(OrderDesk):
    """Offers tools, and its harness reads a line of a reply only."""

    harness = ChatHarness()


class Anonymous(OrderDesk):
    """The calls of its demonstrations have no ids."""

    def demonstration(self, task: Task) -> list[Message]:
        return [
            assistant(
                action.content if isinstance(action.content, str) else None,
                *(call(each.function.name, each.function.arguments) for each in action.calls if each.function),
            )
            for action in super().demonstration(task)
        ]
