"""A desk to work at: the support desk's MCP server on a copy of the shop. The agent and the expert each sit at some."""

import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mcp import ClientSession, StdioServerParameters, stdio_client

HERE = Path(__file__).parent
INSTRUCTIONS = (
    "You work at the help desk of a shop. Find the customer of the right city, look at the orders, then act. "
    "If it cannot be done, change nothing, say sorry and why."
)

# A message, a tool or a task as JSON has it.
Document: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Desk:
    """The shop is in `folder`; `tools` are as the OpenAI API takes them."""

    folder: Path
    tools: list[Document]
    _session: ClientSession

    def tidy(self) -> None:
        """Put the shop back as it was: the next ticket is another day."""
        shutil.copytree(HERE / "state", self.folder, dirs_exist_ok=True)

    async def answer(self, call: Document) -> Document:
        """The message that answers a tool call. What goes wrong is an answer too: the model may call again."""
        function = call["function"]
        try:
            arguments = json.loads(function["arguments"] or "{}")
        except ValueError as error:
            text = f"Error: The arguments of {function['name']} are not valid JSON: {error}"
        else:
            text = await self._use(function["name"], arguments)
        return {"role": "tool", "tool_call_id": call["id"], "content": text}

    async def _use(self, name: str, arguments: object) -> str:
        if not isinstance(arguments, dict):
            return f"Error: The arguments of {name} are not a JSON object."
        if name not in (tool["function"]["name"] for tool in self.tools):
            return f"Error: There is no tool {name!r}."
        result = await self._session.call_tool(name, arguments)
        return "\n".join(part.text for part in result.content if part.type == "text")


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    """Start a server on a copy of the shop, and end it."""
    with tempfile.TemporaryDirectory(prefix="helpdesk-") as folder:
        server = StdioServerParameters(command=sys.executable, args=[str(HERE / "server.py")], cwd=folder)
        async with stdio_client(server) as streams, ClientSession(*streams) as session:
            await session.initialize()
            tools = [_function(tool) for tool in (await session.list_tools()).tools]
            opened = Desk(Path(folder), tools, session)
            opened.tidy()
            yield opened


def tasks() -> dict[str, Document]:
    """The tickets that can be worked on, by id."""
    lines = (HERE / "tasks.jsonl").read_text().splitlines()
    return {task["task_id"]: task for task in map(json.loads, lines) if task.get("solvable", True)}


def opening(task: Document) -> list[Document]:
    return [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": task["opening"]}]


def _function(tool: Any) -> Document:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description or "",
            "parameters": tool.input_schema,
        },
    }
