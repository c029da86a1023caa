"""States of production's trusted episodes on held-out tasks: what a candidate is judged by where there is no sandbox.

They are stored like all others, and never trained on. The learner reads them; the gate `recorded` asks at them.
"""

from dataclasses import dataclass

from learners.assembly import merged, of_split
from learners.stored_rows import read_held_out_steps
from ratchet_client.ids import content_id
from ratchet_client.messages import Message, Messages, Tools
from streams.store.client import StoreClient
from streams.trust.groups import Members
from streams.trust.holdout import HoldoutSettings, Split


@dataclass(frozen=True, slots=True)
class RecordedState:
    """The chat before step `step` of an episode, the tools offered there, and the action that was trusted.

    `adapter` is the name of the model that acted, None where it was a person or a program.
    """

    episode_id: str
    task_id: str
    step: int
    messages: Messages
    tools: Tools
    action: Message
    adapter: str | None = None


async def read_held_out_states(
    store: StoreClient, holdout: HoldoutSettings, most: int, most_per_principal: int, members: Members | None = None
) -> tuple[RecordedState, ...]:
    """At most so many states, in the order of a hash, of the newest trusted episodes on tasks of the selection split.

    With `members` they are of one group alone. Whose principal revoked consent is left out, and an episode that went
    the same way as another. Raises `StoreError` when the store does not answer.
    """
    rows = await read_held_out_steps(store, most, most_per_principal, members)
    states: list[RecordedState] = []
    for trajectory in merged(of_split(rows, holdout, Split.SELECTION), {}):
        chat = trajectory.opening
        for number, step in enumerate(trajectory.steps):
            states.append(
                RecordedState(
                    episode_id=trajectory.episode_id,
                    task_id=trajectory.task_id,
                    step=number,
                    messages=chat,
                    tools=trajectory.tools(number),
                    action=step.action,
                    adapter=trajectory.adapter,
                )
            )
            chat = (*chat, step.action.spoken(), *step.observation)
    states.sort(key=lambda state: content_id("state", state.episode_id, str(state.step)))
    return tuple(states[:most])
