"""Self-distillation: teach the policy, as it plays at once, what it finds when it may take longer.

The slower configurations are best of n, the policy's practised attempts at a task of which the environment tells the
best, and a second attempt after a reflection. L = -sum log pi(a_i | s_i) over the best success of each task. A task at
which every attempt succeeds is left out: there the slower configuration is no better. Sources: *Self-Taught Reasoner*
(arXiv 2203.14465) for learning from one's own verified successes; *BOND* (arXiv 2407.14622) for distilling best of n.
"""

from collections import defaultdict
from collections.abc import Sequence

from learners.objectives.objective import Example, Likelihood
from learners.packed_tree import Tree
from learners.packing import TreePacker, Weights, can_be_imitated
from learners.trajectories import REFLECTED, Trajectory


class SelfDistillation(Likelihood):
    name = "self_distillation"

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        tasks: dict[str, list[Trajectory]] = defaultdict(list)
        for trajectory in trajectories:
            if trajectory.origin == "practice" and trajectory.actor_kind in ("policy", REFLECTED):
                tasks[trajectory.task_id].append(trajectory)
        return [Example(best) for attempts in tasks.values() if (best := best_of(attempts)) is not None]

    def pack(self, example: Example, packer: TreePacker) -> Tree:
        return packer.pack(example.trajectory, Weights(actions=example.weight))


def best_of(attempts: Sequence[Trajectory]) -> Trajectory | None:
    """The success of the highest score, of these the shortest and then the latest; None where it teaches nothing.

    It teaches nothing where the policy alone always succeeds; a reflection is only written after a failure.
    """
    alone = [attempt for attempt in attempts if attempt.actor_kind == "policy"]
    if alone and all(attempt.success for attempt in alone):
        return None
    successes = [
        attempt
        for attempt in attempts
        if attempt.success and any(can_be_imitated(step.action) for step in attempt.steps)
    ]
    return max(successes, key=lambda one: (one.score, -len(one.steps), one.episode_id), default=None)
