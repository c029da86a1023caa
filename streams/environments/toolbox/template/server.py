"""The tools as an MCP server on standard input and output. Production runs the same, in a folder of its own."""

from mcp.server.mcpserver import MCPServer
from tools import add_todo, finish_todo, list_todos

server = MCPServer("todos")
for tool in (list_todos, add_todo, finish_todo):
    server.tool()(tool)

if __name__ == "__main__":
    server.run()
