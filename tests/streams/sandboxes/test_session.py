"""Restored states are compared with their recording message by message, for real tool calls."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import Message, Messages, assistant, call, tool_result, user
from streams.environments.bfcl.environment import BFCL
from streams.environments.environment import Observation, Restore
from streams.errors import SandboxError
from streams.sandboxes.session import ReferenceTrajectory, ReplaySession

DIFF = Task(environment="bfcl", task_id="multi_turn/dev/13~base")

ACTIONS = (
    assistant(None, call("cd", '{"folder": "documents"}', "call_1"), call("ls", "{}", "call_0")),
    assistant(None, call("tail", '{"file_name": "report.txt", "lines": 1}', "call_2")),
    assistant("There."),
)


@pytest.fixture
def session() -> Iterator[ReplaySession]:
    opened = ReplaySession(BFCL(), 60)
    yield opened
    opened.close()


def recorded() -> list[Messages]:
    played = BFCL()
    return [played.reset(DIFF).messages, *(played.step(action).messages for action in ACTIONS)]


@pytest.mark.parametrize("way", BFCL.capabilities.restores)
def test_states_between_tool_calls_come_back_and_continue_as_before(session: ReplaySession, way: Restore) -> None:
    shown = recorded()
    followed = session.follow(ReferenceTrajectory(DIFF, ACTIONS, tuple(shown)), way)
    assert (len(followed.states), followed.divergence) == (4, "")
    for step in (2, 0, 1, 2):
        session.restore(step)
        assert session.step(ACTIONS[step]).messages == shown[step + 1]


def test_results_of_parallel_calls_may_have_been_recorded_in_another_order(session: ReplaySession) -> None:
    first, both, *others = recorded()
    followed = session.follow(ReferenceTrajectory(DIFF, ACTIONS, (first, both[::-1], *others)))
    assert followed.divergence == ""


def as_parts(message: Message) -> Message:
    return Message.model_validate(
        {**message.model_dump(), "content": [{"type": "text", "text": message.text}], "annotations": []}
    )


def test_another_spelling_of_the_same_messages_is_no_divergence(session: ReplaySession) -> None:
    spelled = tuple(tuple(map(as_parts, messages)) for messages in recorded())
    assert session.follow(ReferenceTrajectory(DIFF, ACTIONS, spelled)).divergence == ""


@pytest.mark.parametrize(
    "wrong",
    [
        lambda shown: (shown[0], replaced(shown[1], tool_call_id="call_9")),
        lambda shown: (shown[0], replaced(shown[1], content="{}")),
        lambda shown: (replaced(shown[0], tool_call_id="call_0"), replaced(shown[1], tool_call_id="call_1")),
        lambda shown: (shown[0],),
        lambda shown: (*shown, user("And now?")),
        lambda shown: (user(shown[0].text), shown[1]),
        lambda shown: (),
    ],
)
def test_messages_that_say_something_else_are_a_divergence(
    session: ReplaySession, wrong: Callable[[Messages], Messages]
) -> None:
    first, both, *others = recorded()
    followed = session.follow(ReferenceTrajectory(DIFF, ACTIONS, (first, wrong(both), *others)))
    assert len(followed.states) == 1
    assert "after action 1: " in followed.divergence


def replaced(message: Message, **changes: str) -> Message:
    return message.model_copy(update=changes)


def test_a_divergence_of_ids_alone_shows_them(session: ReplaySession) -> None:
    first, both, *others = recorded()
    renamed = tuple(tool_result(each.text, f"{each.tool_call_id}_") for each in both)
    assert "call_1" in session.follow(ReferenceTrajectory(DIFF, ACTIONS, (first, renamed, *others))).divergence


def test_calls_without_ids_are_compared_in_their_order(session: ReplaySession) -> None:
    nameless = assistant(None, call("cd", '{"folder": "documents"}'), call("ls", "{}"))
    first, both, *_ = recorded()
    answers = tuple(Message(role="tool", content=each.text, tool_call_id="") for each in both)
    followed = session.follow(ReferenceTrajectory(DIFF, (nameless,), (first, answers)))
    assert followed.divergence == ""
    wrong = session.follow(ReferenceTrajectory(DIFF, (nameless,), (first, answers[::-1])))
    assert wrong.divergence


class Ventriloquist(BFCL):
    def step(self, action: Message) -> Observation:
        return replace(super().step(action), messages=(assistant("I have done it."),))


def test_an_environment_that_speaks_for_the_assistant_is_refused() -> None:
    session = ReplaySession(Ventriloquist(), 60)
    session.reset(DIFF)
    with pytest.raises(SandboxError, match=r"assistant's message.*\. Let it"):
        session.step(ACTIONS[0])
    session.close()
