"""Plays one task in one session, turn by turn. The arena runs many of these side by side."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from evaluation.rollouts import Rollout
from ratchet_client.events import Task
from ratchet_client.messages import Message, Messages, Tools, escaped
from streams.environments.harness import ChatHarness
from streams.errors import ContextLengthError
from streams.policy.client import PolicyClient, Reply, Sampling
from streams.sandboxes.pool import SandboxSession

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn as it was played: what the model saw, what it did, and what came back.

    `log_probabilities` are those of the action's tokens, in nats, the end of turn included; none where they were not
    asked for, or are of another text than the action.
    """

    messages: Messages
    tools: Tools
    action: Message
    observation: Messages
    log_probabilities: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Player:
    """The served `model` as it plays: asked through `harness`, with `sampling` within the harness's limits.

    With `logprobs`, the log-probabilities of its tokens are asked for.
    """

    policy: PolicyClient
    model: str
    harness: ChatHarness
    sampling: Sampling
    logprobs: bool = False

    async def play(
        self, session: SandboxSession, task: Task, on_turn: Callable[[Turn], None] = lambda turn: None
    ) -> Rollout:
        """Play `task` to its end: until it is done, out of steps or of patience, or longer than the server takes.

        `on_turn` is told each turn when it is over.

        Raises `PolicyError` and `SandboxError`; `ContextLengthError` where there is no room for a first action.
        """
        last = await session.reset(task)
        messages, tools = self.harness.opening(last.messages), last.tools or ()
        actions: list[Message] = []
        invalid = escapes = 0
        sampling = self.sampling.within(self.harness.max_tokens, self.harness.stop)
        while len(actions) < self.harness.max_steps and not last.done and not self.harness.gives_up(messages):
            try:
                (reply,) = await self.policy.chat(self.model, messages, sampling, tools=tools, logprobs=self.logprobs)
            except ContextLengthError as error:
                if not actions:
                    raise
                log.warning("an episode has no room left", model=self.model, task=task.task_id, reason=str(error))
                break
            said = self.harness.parse(reply.message)
            action = escaped(said)
            last = await session.step(action)
            actions.append(action)
            invalid += not last.understood
            escapes += action is not said
            before, messages = messages, self.harness.extend(messages, action, last.messages)
            on_turn(
                Turn(before, tools, action, messages[len(before) + 1 :], _sampled(reply, action, sampling.stop or ()))
            )
            tools = tools if last.tools is None else last.tools
        return Rollout(
            task_id=task.task_id,
            success=last.success,
            score=last.score,
            steps=len(actions),
            invalid_actions=invalid,
            actions=tuple(actions),
            messages=messages,
            escaped_actions=escapes,
            tools=tools,
        )


def _sampled(reply: Reply, action: Message, stop: tuple[str, ...]) -> tuple[float, ...]:
    """The log-probabilities of a reply's tokens where these are the action's; none where they are of another text."""
    whole = action.text == reply.message.text and action.calls == reply.message.calls
    return reply.logprobs if whole and reply.ends_itself(stop) else ()
