"""The tools of an MCP server. It is started for each session's state, or shared by all if it keeps nothing in memory.

See `tools.py`. A server can be ended between any two calls and started again on the same folder: that is what the
restoring of states rests on. So only a few run at a time, however many sessions there are.
"""

import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ratchet_client.ids import content_id
from streams.environments.tool_calls import Call
from streams.environments.tool_definitions import Tool
from streams.environments.toolbox.definition import ToolboxDefinition
from streams.environments.toolbox.mcp_server import McpServer
from streams.environments.toolbox.programs import Place, command_line, variables_of_programs
from streams.environments.toolbox.tools import ToolResult
from streams.errors import SandboxError

_MOST_SERVERS = 6


class McpTools:
    """The tools of one toolbox's server; servers start when something is first asked of them."""

    def __init__(self, definition: ToolboxDefinition) -> None:
        self._definition = definition
        self._folder = Path(tempfile.mkdtemp(prefix="toolbox-server-"))
        self._servers: OrderedDict[Path, McpServer] = OrderedDict()

    def offered(self, place: Place) -> tuple[Tool, ...]:
        with self._running(place) as server:
            return server.tools

    def call(self, call: Call, place: Place) -> ToolResult:
        with self._running(place) as server:
            understood = any(tool.name == call.name and tool.takes(call.arguments) for tool in server.tools)
            # Also arguments that the schema forbids: what production's agent was told of them, the server says.
            return ToolResult(server.call(call, self._definition.file.results), understood)

    def release(self, place: Place) -> None:
        if place.state in self._servers:
            self._servers.pop(place.state).close()

    @contextmanager
    def _running(self, place: Place) -> Iterator[McpServer]:
        if not self._definition.file.stateless:
            with self._server(place) as server:
                yield server
            return
        # One for each set of variables: a process keeps those that it was started with.
        shared = Place(self._folder / content_id(*map(str, place.variables.items())), place.variables)
        shared.state.mkdir(exist_ok=True)
        _move(place.state, shared.state)
        try:
            with self._server(shared) as server:
                yield server
        finally:
            _move(shared.state, place.state)

    @contextmanager
    def _server(self, place: Place) -> Iterator[McpServer]:
        """The server that works in the place's folder. One that failed is started again the next time."""
        if place.state not in self._servers:
            while len(self._servers) >= _MOST_SERVERS:
                self._servers.popitem(last=False)[1].close()
            folder, file = self._definition.folder, self._definition.file
            assert file.mcp is not None
            self._servers[place.state] = McpServer(
                command_line(file.mcp, folder),
                variables_of_programs(folder, place.exported),
                place.state,
                self._folder / f"{content_id(str(place.state))}.log",
            )
        self._servers.move_to_end(place.state)
        try:
            yield self._servers[place.state]
        except SandboxError:
            self.release(place)
            raise


def _move(source: Path, target: Path) -> None:
    for entry in list(os.scandir(source)):
        os.rename(entry.path, target / entry.name)
