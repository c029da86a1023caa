"""One running MCP server, spoken to over its standard input and output from synchronous code.

The client of the official SDK is asynchronous: it runs in a thread of its own, which all servers of a process share.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Literal, TextIO

import anyio
from anyio.from_thread import BlockingPortal
from mcp import ClientSession, MCPError, StdioServerParameters, stdio_client
from mcp.types import CONNECTION_CLOSED, CallToolResult, PaginatedRequestParams, TextContent
from mcp.types import Tool as McpTool
from pydantic_core import to_json

from ratchet_client.messages import ToolDefinition
from streams.environments.tool_calls import Call
from streams.environments.tool_definitions import Tool
from streams.errors import SandboxError, ToolCallError

_TAIL = 1000
_START_TIMEOUT_S = 30.0

Results = Literal["text", "structured"]


class McpServer:
    """A server, from its start to its `close`. Raises `SandboxError`, with what it last said, when it does not start.

    `folder` is what it works in, `log` the file that its standard error goes to.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], folder: Path, log: Path) -> None:
        self._command = " ".join(command)
        self._log = log
        self._open = ExitStack()
        program, *arguments = command
        parameters = StdioServerParameters(command=program, args=arguments, env=dict(variables), cwd=folder)
        try:
            said = self._open.enter_context(log.open("w"))
            connection = _portal().wrap_async_context_manager(_connected(parameters, said))
            self._session, self.tools = self._open.enter_context(connection)
        except (OSError, MCPError, TimeoutError, ValueError, ToolCallError, ExceptionGroup) as error:
            self.close()
            raise SandboxError(
                f"the MCP server {self._command!r} did not start: {_reason(error)}. {self._last_words()}"
            ) from error

    def call(self, call: Call, results: Results) -> str:
        """The server's answer; its errors are answers too. Raises `SandboxError` when it is gone."""
        try:
            answer = _portal().call(self._session.call_tool, call.name, dict(call.arguments))
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise SandboxError(
                    f"the MCP server {self._command!r} ended during {call.name}. {self._last_words()}"
                ) from error
            return error.message
        except RuntimeError as error:
            return str(error)  # a result that is not as the tool's own schema has it
        return _text(answer, results)

    def close(self) -> None:
        """End the server: its standard input is closed, and it is killed if it does not end by itself."""
        self._open.close()

    def _last_words(self) -> str:
        said = self._log.read_text(errors="replace").strip()[-_TAIL:] if self._log.exists() else ""
        return f"It last said: {said or 'nothing'}"


@cache
def _portal() -> BlockingPortal:
    """The way into the client's thread, which lasts as long as the process and does not keep it from ending."""
    ready: Future[BlockingPortal] = Future()

    async def run() -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    Thread(target=anyio.run, args=(run,), name="mcp", daemon=True).start()
    return ready.result()


@asynccontextmanager
async def _connected(
    parameters: StdioServerParameters, log: TextIO
) -> AsyncIterator[tuple[ClientSession, tuple[Tool, ...]]]:
    """A session with the server, and its tools."""
    async with stdio_client(parameters, log) as streams, ClientSession(*streams) as session:
        with anyio.fail_after(_START_TIMEOUT_S):
            await session.initialize()
            page = await session.list_tools()
            tools = [*page.tools]
            while page.next_cursor:
                page = await session.list_tools(params=PaginatedRequestParams(cursor=page.next_cursor))
                tools += page.tools
        yield session, tuple(map(_tool, tools))


def _tool(tool: McpTool) -> Tool:
    """Raises `ToolCallError` for a definition that models could make nothing of."""
    described: ToolDefinition = {
        "name": tool.name,
        "description": tool.description or "",
        "parameters": tool.input_schema,
    }
    return Tool.of({"type": "function", "function": described})


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or f"it did not answer within {_START_TIMEOUT_S:g} s"


def _text(answer: CallToolResult, results: Results) -> str:
    if results == "structured" and answer.structured_content is not None and not answer.is_error:
        return to_json(answer.structured_content).decode()
    return "\n".join(
        part.text if isinstance(part, TextContent) else part.model_dump_json(exclude_none=True, by_alias=True)
        for part in answer.content
    )
