"""The support desk's tools as an MCP server over stdio, on the shop's database.

    cd FOLDER; python server.py

The folder it is started in holds `shop.sqlite`. Every call opens the database, changes it in one transaction and closes
it: the server itself remembers nothing, so the folder may be copied, or replaced, between two calls.
"""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

DATABASE = "shop.sqlite"
_MOST = 2**63


class Refused(Exception):
    """What was asked for cannot be done; its text is the tool's answer."""


class Desk:
    """The tools. Every answer is one short text."""

    def __init__(self, folder: Path) -> None:
        self._database = (folder / DATABASE).resolve()

    def find_customer(self, name: str, city: str = "") -> str:
        with self._shop() as shop:
            found = shop.execute(
                "SELECT id, name, city FROM customers"
                " WHERE name = ? COLLATE NOCASE AND (? = '' OR city = ? COLLATE NOCASE) ORDER BY id",
                (name.strip(), city.strip(), city.strip()),
            ).fetchall()
        if not found:
            raise Refused(f"no customer {name.strip()}")
        number, named, lives = found[0]
        first = f"customer {number}: {named}, {lives}"
        return first if len(found) == 1 else f"{len(found)} have this name, the first is {first}"

    def list_orders(self, customer: int) -> str:
        with self._shop() as shop:
            orders = shop.execute(
                "SELECT id, item, state FROM orders WHERE customer = ? ORDER BY id", (customer,)
            ).fetchall()
        return "\n".join(f"{item}: order {number}, {state}" for number, item, state in orders) or "no orders"

    def refund_order(self, item: str, order: int) -> str:
        with self._shop() as shop:
            _set_state(shop, item, order, "delivered", "refunded")
            shop.execute("INSERT INTO refunds (order_id) VALUES (?)", (order,))
        return f"order {order} is refunded"

    def cancel_order(self, item: str, order: int) -> str:
        with self._shop() as shop:
            _set_state(shop, item, order, "open", "cancelled")
        return f"order {order} is cancelled"

    def change_address(self, customer: int, address: str) -> str:
        with self._shop() as shop:
            changed = shop.execute("UPDATE customers SET address = ? WHERE id = ?", (address.strip(), customer))
            if not changed.rowcount:
                raise Refused(f"no customer {customer}")
        return f"customer {customer} lives at {address.strip()}"

    @contextmanager
    def _shop(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(f"{self._database.as_uri()}?mode=rw", uri=True)) as shop, shop:
            yield shop


def _set_state(shop: sqlite3.Connection, item: str, order: int, before: str, after: str) -> None:
    found = shop.execute("SELECT item, state FROM orders WHERE id = ?", (order,)).fetchone()
    if found is None:
        raise Refused(f"no order {order}")
    ordered, state = found
    if ordered != item.strip().lower():
        raise Refused(f"order {order} is no {item.strip()}")
    if state != before:
        raise Refused(f"order {order} is {state}")
    shop.execute("UPDATE orders SET state = ? WHERE id = ?", (after, order))


def _tool(name: str, description: str, required: dict[str, str], optional: dict[str, str] | None = None) -> types.Tool:
    properties = {each: {"type": kind} for each, kind in (required | (optional or {})).items()}
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return types.Tool(name=name, description=description, input_schema=schema)


# As short as they can be: the model reads them in every prompt.
TOOLS = (
    _tool("find_customer", "Find a customer.", {"name": "string"}, {"city": "string"}),
    _tool("list_orders", "List the orders of a customer.", {"customer": "integer"}),
    _tool("refund_order", "Refund a delivered order.", {"item": "string", "order": "integer"}),
    _tool("cancel_order", "Cancel an open order.", {"item": "string", "order": "integer"}),
    _tool("change_address", "Change the address of a customer.", {"customer": "integer", "address": "string"}),
)
_SCHEMAS = {tool.name: tool.input_schema for tool in TOOLS}


def call(desk: Desk, name: str, arguments: dict[str, Any]) -> str:
    """The answer of a tool. Raises `Refused` for what cannot be done, unknown tools and wrong arguments among it."""
    if name not in _SCHEMAS:
        raise Refused(f"no tool {name}")
    properties, required = _SCHEMAS[name]["properties"], _SCHEMAS[name]["required"]
    if unknown := sorted(arguments.keys() - properties.keys()):
        raise Refused(f"{name} takes no {unknown[0]}")
    if missing := [each for each in required if each not in arguments]:
        raise Refused(f"{name} needs {missing[0]}")
    for each, value in arguments.items():
        if properties[each]["type"] == "string" and not isinstance(value, str):
            raise Refused(f"{each} must be a string")
        is_number = isinstance(value, int) and not isinstance(value, bool) and -_MOST <= value < _MOST
        if properties[each]["type"] == "integer" and not is_number:
            raise Refused(f"{each} must be an integer")
    answer: str = getattr(desk, name)(**arguments)
    return answer


async def serve(folder: Path) -> None:
    """Answer on stdin and stdout until stdin ends."""
    desk = Desk(folder)

    async def list_tools(_: Any, __: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=list(TOOLS))

    async def call_tool(_: Any, asked: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            text, refused = call(desk, asked.name, asked.arguments or {}), False
        except Refused as reason:
            text, refused = str(reason), True
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=refused)

    server: Server[Any] = Server("helpdesk", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(serve(Path.cwd()))
