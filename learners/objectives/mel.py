"""Meta-experience learning: internalise the lesson that a success and a failure of one task teach together.

A lesson is written for the step at which the two part, and kept only if the task, played again with it, succeeds
(`evaluation/second_attempts.py`). Then the likelihood is raised of the lesson, as the answer to a question about the
state where the two part, and of the actions that it led to, in the prompt without it:

    L = -sum log pi(lesson | question, s_i) - sum log pi(a_i | s_i).

The question has a system message of its own, so that the policy does not answer a game with a lesson. Source:
*Internalizing Meta-Experience into Memory for Guided Reinforcement Learning in Large Language Models* (arXiv
2602.10224).
"""

from collections.abc import Sequence
from dataclasses import replace

from learners.objectives.objective import Example, Likelihood
from learners.packed_tree import Tree
from learners.packing import TreePacker, Weights
from learners.trajectories import INSTRUCTED, LESSON, Rationale, Trajectory
from learners.transcripts import transcript
from ratchet_client.messages import Message, assistant, user
from streams.branch_events import RecordedStep

_QUESTION = "You review how a task was begun. Say in a few words what must be heeded to go on well."


class Mel(Likelihood):
    name = "mel"

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        found = []
        for one in trajectories:
            if one.actor_kind == INSTRUCTED and one.success and one.steps:
                found.append(Example(one))
                found += [Example(asked(one, lesson)) for lesson in one.rationales if lesson.writer == LESSON]
        return found

    def pack(self, example: Example, packer: TreePacker) -> Tree:
        return packer.pack(example.trajectory, Weights(actions=example.weight))


def asked(trajectory: Trajectory, lesson: Rationale) -> Trajectory:
    """The lesson as the answer to a question about the state that it is about: a chat of one step."""
    state = [*trajectory.opening]
    for step in trajectory.steps[: lesson.step]:
        state += [step.sent_back, *step.observation]
    return replace(
        trajectory,
        episode_id=f"{trajectory.episode_id}/lesson/{lesson.step}",
        opening=(Message(role="system", content=_QUESTION), user(transcript(tuple(state)))),
        steps=(RecordedStep(action=assistant(lesson.text), observation=()),),
        branches=(),
        rationales=(),
    )
