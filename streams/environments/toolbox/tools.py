"""The tools of a toolbox, as its sessions call them: what they are, and the answer to a call on a state folder."""

from dataclasses import dataclass
from typing import Protocol

from streams.environments.tool_calls import Call
from streams.environments.tool_definitions import Tool
from streams.environments.toolbox.programs import Place


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The text that answers a call. `understood` is false where its arguments were not as the tool wants them."""

    text: str
    understood: bool = True


class Toolset(Protocol):
    """The tools of one toolbox. Sessions share it; each has its own place."""

    def offered(self, place: Place) -> tuple[Tool, ...]:
        """The tools. Raises `SandboxError` when they cannot be had."""
        ...

    def call(self, call: Call, place: Place) -> ToolResult:
        """Execute a call of one of the tools. Whatever a tool says, its errors too, is its answer."""
        ...

    def release(self, place: Place) -> None:
        """End what still works on the place: its state is looked at or replaced next."""
        ...
