"""Inverse dynamics, an auxiliary task: tell the action that led from one state to the next.

L = -sum log pi(a | question, s, s') over trusted steps, practised ones and alternatives. The question has a system
message of its own and the answer is a text, even of tool calls, so that telling is not confused with acting. An error,
or an observation that says nothing new, does not tell what was done, and is left out. Source: *Learning to Poke by
Poking* (arXiv 1606.07419), the inverse model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from learners.comparisons import Outcome, outcome_of
from learners.objectives.objective import Example, Likelihood
from learners.packed_tree import Tree
from learners.packing import TreePacker, Weights, can_be_imitated
from learners.trajectories import Branch, Trajectory
from learners.transcripts import said, transcript
from ratchet_client.messages import Message, Messages, assistant, user
from streams.branch_events import RecordedStep

_QUESTION = "You review a task. Say which action led from what was known before to what came back."
_UNTOLD = (Outcome.ERROR, Outcome.NOTHING_NEW)


class InverseDynamics(Likelihood):
    name = "inverse_dynamics"

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        return [Example(asked) for trajectory in trajectories for asked in _asked(trajectory)]

    def pack(self, example: Example, packer: TreePacker) -> Tree:
        return packer.pack(example.trajectory, Weights(actions=example.weight))


def _asked(trajectory: Trajectory) -> Iterator[Trajectory]:
    """A chat of one step for each transition of a trajectory: its action answers a question about two states."""
    state: list[Message] = [*trajectory.opening]
    for number, step in enumerate(trajectory.steps):
        taken = Branch(number, step.action, step.observation, "", "")
        alternatives = (branch for branch in trajectory.branches if branch.step == number)
        for place, branch in enumerate((taken, *alternatives)):
            if can_be_imitated(branch.action) and outcome_of(branch, trajectory) not in _UNTOLD:
                yield replace(
                    trajectory,
                    episode_id=f"{trajectory.episode_id}/inverse/{number}/{place}",
                    opening=_question(tuple(state), branch.observation),
                    steps=(RecordedStep(action=assistant(said(branch.action)), observation=()),),
                    branches=(),
                    learn_from=0,
                    log_probabilities=(),
                    rationales=(),
                )
        state += [step.sent_back, *step.observation]


def _question(before: Messages, after: Messages) -> Messages:
    told = f"Before:\n{transcript(before)}\n\nThen this came back:\n{transcript(after)}"
    return (Message(role="system", content=_QUESTION), user(told))
