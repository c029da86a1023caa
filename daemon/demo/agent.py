"""Runs the programs that play in the demo: its agent and its expert, each in a process of its own."""

import asyncio
import os

from pydantic import BaseModel

from daemon.demo.scenario import REPOSITORY, Command
from ratchet_client.errors import RatchetError


class AgentSummary(BaseModel):
    """The last line of the agent's output. `models` counts its replies by the model that gave them.

    `feedback` counts the episodes that it gave its verdict on, where it publishes no events.
    """

    # Not a `FrozenModel`: an agent says more than is shown here.

    episodes: int
    successes: int
    events: int = 0
    feedback: int | None = None
    models: dict[str, int] = {}

    @property
    def calls(self) -> int:
        return sum(self.models.values())

    @property
    def judged(self) -> int:
        return self.episodes if self.feedback is None else self.feedback


async def output_of(command: Command) -> bytes:
    """What the command printed. Raises `RatchetError` if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command.arguments,
        cwd=REPOSITORY,
        env={**os.environ, **command.variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RatchetError(f"the agent ended with status {process.returncode}; it said why above")
    return output
