"""The support desk's agent: works on tickets with any OpenAI-compatible endpoint, and says afterwards how it went.

    python -m examples.helpdesk.agent --base-url http://127.0.0.1:8420/v1 --tasks helpdesk/train/1,helpdesk/train/2

Of Ratchet it knows the base URL and one call, `POST …/feedback`, with the receipt that came in a header of the last
reply. It also says in a header which ticket it works on: then a ticket that training must not see stays unseen, and a
sandbox can be put into the state that the ticket began in. Prints how it went as JSON, in one line.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
from openai import APIStatusError, AsyncOpenAI, OpenAIError
from openai.lib.streaming.chat import ChatCompletionStreamState

from examples.helpdesk.check import judge
from examples.helpdesk.desk import Desk, Document, desk, opening, tasks

MOST_STEPS = 8
MOST_TOKENS = 96
# The reply cannot be repaired by asking again: the conversation has become too long, for example.
_REFUSED = (400, 422)


@dataclass(slots=True)
class Summary:
    """`models` counts replies by the model that gave them, `feedback` the verdicts that were taken."""

    episodes: int = 0
    successes: int = 0
    calls: int = 0
    refused: int = 0
    feedback: int = 0
    models: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Agent:
    """Asks `model` of `client`; `post` takes feedback to the same server."""

    client: AsyncOpenAI
    post: httpx.AsyncClient
    model: str
    summary: Summary = field(default_factory=Summary)

    async def work(self, at: Desk, ticket: Document) -> bool:
        """Work on one ticket until there is an answer to the customer; whether it is solved."""
        at.tidy()
        messages, receipt = opening(ticket), None
        for _ in range(MOST_STEPS):
            try:
                reply, given = await self._ask(messages, at.tools, ticket["task_id"])
            except APIStatusError as error:
                if error.status_code not in _REFUSED:
                    raise
                self.summary.refused += 1
                break
            receipt = given or receipt
            messages.append(reply)
            calls = reply.get("tool_calls", ())
            # Calls of one message do not wait for each other, but they are made in their order.
            messages += [await at.answer(call) for call in calls]
            if not calls:
                break
        verdict = judge(at.folder, ticket, messages)
        self.summary.episodes += 1
        self.summary.successes += bool(verdict["success"])
        if receipt is not None:
            await self._say(receipt, verdict)
        return bool(verdict["success"])

    async def _ask(self, messages: list[Document], tools: list[Document], ticket: str) -> tuple[Document, str | None]:
        """The model's message, and the receipt for it."""
        response = await self.client.chat.completions.with_raw_response.create(
            model=self.model,
            messages=_any(messages),
            tools=_any(tools),
            parallel_tool_calls=True,
            temperature=0,
            max_tokens=MOST_TOKENS,
            stream=True,
            extra_headers={"x-ratchet-environment": "toolbox", "x-ratchet-task": ticket},
        )
        state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
        async for chunk in response.parse():
            state.handle_chunk(chunk)
        completion = state.current_completion_snapshot
        self.summary.calls += 1
        models = self.summary.models
        models[completion.model] = models.get(completion.model, 0) + 1
        said = completion.choices[0].message
        message: Document = {"role": "assistant", "content": said.content}
        if said.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
                for call in said.tool_calls
            ]
        return message, response.headers.get("x-ratchet-receipt")

    async def _say(self, receipt: str, verdict: dict[str, object]) -> None:
        """The one call that is Ratchet's own. An agent does not fail because nobody listens."""
        said = {"receipt": receipt, "verifier": "helpdesk", **verdict}
        try:
            answer = await self.post.post("feedback", json=said)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            print(f"agent: feedback was not taken: {error!r}", file=sys.stderr)
        else:
            self.summary.feedback += 1


async def work_all(base_url: str, model: str, task_ids: list[str], seats: int) -> Summary:
    """Work on the tickets, at `seats` desks side by side."""
    known = tasks()
    tickets = iter([known[task_id] for task_id in task_ids])
    base_url = base_url.rstrip("/") + "/"
    async with (
        AsyncOpenAI(base_url=base_url, api_key="none", timeout=600) as client,
        httpx.AsyncClient(base_url=base_url, timeout=60) as post,
    ):
        agent = Agent(client, post, model)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(seats, len(task_ids))):
                group.create_task(_sit(agent, tickets))
        return agent.summary


async def _sit(agent: Agent, tickets: Iterator[Document]) -> None:
    async with desk() as at:
        for ticket in tickets:
            await agent.work(at, ticket)


def _any(value: Any) -> Any:
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", required=True, help="ids of tickets, separated by commas")
    parser.add_argument("--base-url", default="http://127.0.0.1:8420/v1", help="the endpoint (%(default)s)")
    parser.add_argument("--model", default="assistant", help="the model's name there (%(default)s)")
    parser.add_argument("--seats", type=int, default=8, help="tickets at the same time (%(default)s)")
    options = parser.parse_args()
    problem = ""
    try:
        working = work_all(options.base_url, options.model, options.tasks.split(","), options.seats)
        print(json.dumps(asdict(asyncio.run(working))))
    except* OpenAIError as failed:
        problem = f"the model at {options.base_url} failed: {failed.exceptions[0]!r}"
    if problem:
        print(f"agent: {problem}", file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
