"""Trajectories with alternatives, a rationale that breaks no rule, and the states that they are about."""

from dataclasses import replace

from learners.objectives.reflection import GROUNDED, MODEL
from learners.reflections.records import Reflection
from learners.reflections.states import ReflectedState, reflected_states
from learners.trajectories import Trajectory
from ratchet_client.messages import assistant, call, tool_result, user
from tests.builders.trained import branch, step, trajectory

KITCHEN = replace(
    trajectory(1),
    steps=(
        step("open fridge", "The fridge is open. It holds a plate and some milk that is past its date."),
        step("take plate", "You take the plate out of the fridge and hold it in your left hand now."),
    ),
    branches=(
        branch(0, "sing", "You sing a song that nobody here has ever heard before, not even you."),
        branch(0, "Open fridge.", "The same as what was done."),
        branch(0, "dance", "Error: unknown action."),
        branch(0, "jump", "Error: unknown action."),
        branch(1, "take milk", "You take the milk."),
    ),
)
BOOKING = Trajectory(
    episode_id="booking",
    task_id="t",
    opening=(user("A room in Rome, please."),),
    steps=(
        step(assistant("Sure.", call("book", '{"city":"Rome"}', "call00001")), tool_result("Booked.", "call00001")),
        step("It is booked.", "Thanks."),
    ),
    branches=(branch(0, assistant(None, call("weather", '{"city":"Rome"}', "call00002")), tool_result("Blue.", "c")),),
)
GOOD = (
    "The goal is to put object 1 away, and for that it has to be reached first. Singing would most likely change "
    "nothing about where it lies, and dancing does not fit what can be done in a kitchen. The fridge is closed, so I "
    "expect that opening it shows what it holds, which the rest of the task builds on."
)


def state(one: Trajectory = KITCHEN, number: int = 0) -> ReflectedState:
    return reflected_states([one], 3, 100, 0)[number]


def written(number: int, dropped: str = "", text: str = GOOD) -> Reflection:
    """A rationale of an episode, kept or dropped."""
    return Reflection(
        episode_id=f"episode-{number}",
        step=0,
        writer=MODEL if dropped else GROUNDED,
        text=text,
        dropped=dropped,
        state="You are in the kitchen.",
        action="take",
        alternatives=("sing",),
    )
