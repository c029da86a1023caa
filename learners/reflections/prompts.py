"""The question by which a model is asked for a rationale. Slots have no numbers, and nothing is called the expert's."""

import random

from learners.reflections.filters import CONCLUSION
from learners.reflections.states import ReflectedState, shown
from learners.transcripts import transcript
from ratchet_client.messages import Message, Messages, user

_INSTRUCTION = (
    "You are the agent in the conversation below, and about to act. Think aloud in the first person, in one paragraph "
    "of 50 to 125 words: what the goal is, what is known, what each of the listed actions would do, and why the one to "
    "be taken serves the goal best. Rest your reasons on the notes, but speak of outcomes as what you expect, not as "
    "what you have seen: before you act you have seen none of them, and there are no notes and no list. Do not number "
    f'the actions. End with a last line "{CONCLUSION} " and the action to be taken, exactly as it is written.'
)


def question(state: ReflectedState, seed: int) -> Messages:
    """The chat that asks for the rationale of a state; `seed` draws the order in which the actions are listed."""
    trusted = state.trajectory.steps[state.step]
    listed = [(trusted.action, trusted.observation), *((one.action, one.observation) for one in state.alternatives)]
    random.Random(f"{seed}/{state.key}").shuffle(listed)
    notes = "\n\n".join(f"- {shown(action)}\n  would be answered:\n{transcript(after)}" for action, after in listed)
    asked = (
        f"The conversation so far:\n{transcript(state.before)}\n\nActions that are possible now, with notes:\n{notes}"
        f"\n\nThe action to be taken:\n{shown(state.action)}"
    )
    return Message(role="system", content=_INSTRUCTION), user(asked)
