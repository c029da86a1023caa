"""What an agent does while a canary runs: it asks for replies, and publishes episodes with their outcomes."""

import httpx

from ratchet_client.events import Actor, OutcomeEvent, StepEvent
from ratchet_client.messages import assistant, user
from tests.builders.episodes import task


async def ask(client: httpx.AsyncClient, episode: str, *more: dict[str, str]) -> str:
    """Ask for a reply in `episode`; the name of the adapter that gave it."""
    body = {"model": "assistant", "messages": [{"role": "user", "content": f"Do {episode}."}, *more], "max_tokens": 2}
    answer = await client.post("/v1/chat/completions", json=body, headers={"x-ratchet-episode": episode})
    assert answer.is_success, answer.text
    return str(answer.headers["x-ratchet-adapter"])


def judged(episode: str, adapter: str, success: bool) -> list[StepEvent | OutcomeEvent]:
    """The episode of one step that `adapter` answered, and its outcome."""
    step = StepEvent(
        event_id=f"{episode}-0",
        episode_id=episode,
        step=0,
        agent="agent",
        principal=episode,
        task=task(),
        messages=(user(f"Do {episode}."),),
        action=assistant("done"),
        observation=(),
        done=True,
        actor=Actor(kind="policy", adapter=adapter),
    )
    outcome = OutcomeEvent(
        event_id=f"{episode}-end", episode_id=episode, verifier="tests", success=success, score=float(success)
    )
    return [step, outcome]
