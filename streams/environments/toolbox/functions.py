"""Python functions as tools: schemas from their signatures, descriptions from their docstrings. See `tools.py`."""

import asyncio
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs, to_jsonable_python

from ratchet_client.errors import RatchetError
from streams.environments.tool_calls import Call
from streams.environments.tool_definitions import Tool
from streams.environments.toolbox.programs import Place, at, load_functions
from streams.environments.toolbox.tools import ToolResult
from streams.errors import SandboxError, ToolCallError


class FunctionTools:
    """The public functions of one Python file. They run in this process, in the state folder of the session."""

    def __init__(self, path: Path) -> None:
        self._functions: dict[str, TypeAdapter[Any]] = {}
        self._tools: list[Tool] = []
        for name, function in load_functions(path).items():
            try:
                # It calls the function with arguments that it has read by the signature.
                self._functions[name] = adapter = TypeAdapter(cast(Any, function))
                self._tools.append(_tool(name, function, adapter))
            except (TypeError, ValueError, RuntimeError, ToolCallError) as error:
                raise SandboxError(
                    f"the function {name} of {path} cannot be a tool: {error}. Give each of its parameters a type."
                ) from error
        if not self._tools:
            raise SandboxError(f"{path} defines no public function, so there are no tools. Write one.")

    def offered(self, place: Place) -> tuple[Tool, ...]:
        return tuple(self._tools)

    def call(self, call: Call, place: Place) -> ToolResult:
        with at(place):
            try:
                answer = self._functions[call.name].validate_python(ArgsKwargs((), dict(call.arguments)))
                if inspect.isawaitable(answer):
                    answer = asyncio.run(_awaited(answer))
            except ValidationError as error:
                return ToolResult(_as_text({"error": _reason(error)}), understood=False)
            except RatchetError:
                raise  # its time is over
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a tool raises is its answer
                return ToolResult(_as_text({"error": str(error) or type(error).__name__}))
        try:
            return ToolResult(_as_text(answer))
        except (TypeError, ValueError) as error:
            return ToolResult(_as_text({"error": f"the result of {call.name} is not JSON: {error}"}))

    def release(self, place: Place) -> None:
        """Nothing works on it between calls."""


async def _awaited(answer: Any) -> Any:
    return await answer


def _tool(name: str, function: Callable[..., Any], adapter: TypeAdapter[Any]) -> Tool:
    schema = adapter.json_schema()
    description = inspect.cleandoc(function.__doc__ or "")
    return Tool.of({"type": "function", "function": {"name": name, "description": description, "parameters": schema}})


def _as_text(answer: object) -> str:
    return answer if isinstance(answer, str) else json.dumps(to_jsonable_python(answer), ensure_ascii=False)


def _reason(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
