"""OpenEnv's own code in a process of its own: `serve PORT SESSIONS` is its server with a tiny game, `play URL …` its
client.

`sell PORT` is its server with a till whose actions are calls of tools: it answers OpenEnv's `list_tools` and
`call_tool`, as an environment of the Model Context Protocol does. `pose PORT` has questions as what OpenEnv's importers
make of others' environments: a split and an index name them, and the prompt is messages in the metadata. `draw PORT` is
a lottery that takes neither task nor seed.

Its import wants packages for MCP, which nothing here uses; where they are missing, empty modules stand in for them.
"""

import json
import random
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

if find_spec("fastmcp") is None:
    for name, wanted in {
        "fastmcp": ("FastMCP", "Client"),
        "fastmcp.client": (),
        "fastmcp.client.client": ("CallToolResult",),
        "mcp": (),
        "mcp.types": ("TextContent",),
    }.items():
        sys.modules[name] = ModuleType(name)
        for attribute in wanted:
            setattr(sys.modules[name], attribute, object)

import uvicorn
from openenv.core.env_server.http_server import create_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.mcp_types import (
    CallToolAction,
    CallToolObservation,
    ListToolsAction,
    ListToolsObservation,
    Tool,
    ToolError,
)
from openenv.core.env_server.types import Action, Observation, State
from openenv.core.generic_client import GenericEnvClient


class Guess(Action):  # type: ignore[misc]  # the package has no types
    letter: str


class Heard(Observation):  # type: ignore[misc]  # the package has no types
    message: str


class Lock(Environment[Guess, Heard, State]):  # type: ignore[misc]  # the package has no types
    """Opens at two letters, which the seed decides, said one after the other."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, **other: Any) -> Heard:
        self._left = random.Random(seed).sample("abc", 2)
        return Heard(message=f"A lock, for {other.get('task_id')}.")

    def step(self, action: Guess, timeout_s: float | None = None, **other: Any) -> Heard:
        if not self._left:
            return Heard(message="It is open.", reward=0.0, done=True)
        if self._left[0] != action.letter:
            return Heard(message="Nothing.", reward=0.0)
        self._left.pop(0)
        return Heard(message="Click.", reward=0.5, done=not self._left)

    @property
    def state(self) -> State:
        return State()


ADD = Tool(
    name="add",
    description="Adds an amount.",
    input_schema={"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]},
)
PAY = Tool(name="pay", description="Ends the purchase.", input_schema={"type": "object", "properties": {}})


class Till(Environment[Action, Observation, State]):  # type: ignore[misc]  # the package has no types
    """To be paid at ten."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, **other: Any) -> Observation:
        self._sum = 0
        return Observation(metadata={"task": other.get("task_id")})

    def step(self, action: Action, timeout_s: float | None = None, **other: Any) -> Observation:
        match action:
            case ListToolsAction():
                return ListToolsObservation(tools=[ADD, PAY])
            case CallToolAction(tool_name="add", arguments={"amount": int(amount)}):
                self._sum += amount
                said = {"content": [{"type": "text", "text": f"The sum is {self._sum}."}], "is_error": False}
                return CallToolObservation(tool_name="add", result=said)
            case CallToolAction(tool_name="pay"):
                right = self._sum == 10
                return CallToolObservation(tool_name="pay", result={"paid": right}, reward=float(right), done=True)
            case CallToolAction(tool_name="add"):
                return _failed("add", "invalid_args", "An amount is missing.")
        return _failed(action.tool_name, "tool_not_found", f"Unknown tool: {action.tool_name}")

    @property
    def state(self) -> State:
        return State()


class Quiz(Till):
    """Questions by their split and index."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        split: str = "",
        index: int | None = None,
        **other: Any,
    ) -> Observation:
        if split != "train" or index is None:
            raise ValueError("split and index must be provided together")
        prompt = [{"role": "system", "content": "Add."}, {"role": "user", "content": f"{index} and {index}?"}]
        self._sum = 0
        return Observation(metadata={"prompt": prompt})


class Lottery(Lock):
    """Another lock at each reset."""

    def reset(self, seed: int | None = None, episode_id: str | None = None, **other: Any) -> Heard:
        super().reset(seed=None)
        return Heard(message=f"Lock {random.random()}.")


def _failed(name: str, kind: str, message: str) -> CallToolObservation:
    return CallToolObservation(tool_name=name, error=ToolError(error_type=kind, message=message))


def play(url: str, task_id: str, actions: list[str]) -> None:
    with GenericEnvClient(base_url=url).sync() as client:
        results = [client.reset(task_id=task_id), *(client.step({"text": action}) for action in actions)]
        said = [{"text": one.observation["text"], "reward": one.reward, "done": one.done} for one in results]
        print(json.dumps({"said": said, "state": client.state()}))


def served(
    environment: type[Environment[Any, Any, State]],
    action: type[Action],
    observation: type[Observation],
    port: str,
    sessions: int = 2,
) -> None:
    application = create_app(environment, action, observation, max_concurrent_envs=sessions)
    uvicorn.run(application, port=int(port), log_level="error")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port, sessions]:
            served(Lock, Guess, Heard, port, int(sessions))
        case ["draw", port]:
            served(Lottery, Guess, Heard, port)
        case ["sell", port]:
            served(Till, Action, Observation, port)
        case ["pose", port]:
            served(Quiz, Action, Observation, port)
        case ["play", url, task_id, *actions]:
            play(url, task_id, actions)
