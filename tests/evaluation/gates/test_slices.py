"""Parts of the tasks on which a candidate is worse, and Holm's correction for their number."""

from collections.abc import Sequence

import pytest

from evaluation.gates.slices import Labels, Slices, compared_slices, slices_of
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.rollouts import Pair
from evaluation.settings import GateSettings, SlicesSettings
from evaluation.statistics import holm, mcnemar_exact
from ratchet_client.events import Task
from tests.builders.trials import evidence, rollout

SETTINGS = SlicesSettings()


def pair(task_id: str, champion: bool, candidate: bool, environment: str = "bfcl") -> Pair:
    task = Task(environment=environment, task_id=task_id)
    return Pair(task, rollout(task, champion), rollout(task, candidate))


def suite(name: str, wins: int, losses: int, ties: int) -> list[Pair]:
    results = [(False, True)] * wins + [(True, False)] * losses + [(True, True)] * ties
    return [pair(f"{name}/train/{n}", *each) for n, each in enumerate(results)]


async def judged(pairs: Sequence[Pair], labels: Labels | None = None) -> GateResult:
    made = evidence()
    made.pairs += pairs
    made.labels = labels or {}
    return await Slices(GateSettings()).judge(made)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Holm's procedure by hand: the smallest times four, the next times three, …, each at least the one before.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.5], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([], []),
        ([0.0001, 0.0001, 0.9], [0.0003, 0.0003, 0.9]),
    ],
)
def test_holms_adjusted_p_values(given: list[float], expected: list[float]) -> None:
    assert holm(given) == pytest.approx(expected)


async def test_a_suite_that_is_worse_is_held_and_named_though_the_whole_is_better() -> None:
    result = await judged(suite("refunds", 40, 0, 40) + suite("moves", 0, 9, 20) + suite("other", 5, 4, 30))
    assert result.verdict is Verdict.HOLD
    assert "worse on suite moves (29 tasks, 0 won, 9 lost" in result.reason
    assert "refunds" not in result.reason
    assert result.figures["worst"] == "suite moves"


async def test_what_one_slice_alone_would_show_is_not_enough_among_many() -> None:
    """Five losses are p = 0.03 in one slice, and chance among ten."""
    assert mcnemar_exact(5, 0) < 0.05
    many = suite("a", 0, 5, 20) + [each for name in "bcdefghij" for each in suite(name, 1, 1, 20)]
    result = await judged(many)
    assert result.verdict is Verdict.PROMOTE
    assert result.figures["slices"] == 10
    assert result.figures["worst_p_adjusted"] == pytest.approx(10 * mcnemar_exact(5, 0))


async def test_agents_tenants_and_variants_are_slices() -> None:
    pairs = suite("desk", 30, 8, 30)
    lost = [each.task.task_id for each in pairs if each.is_loss] + ["desk/train/60", "desk/train/61"]
    result = await judged(pairs, {task: {"tenant": ["3f2a"], "agent": ["clerk"]} for task in lost})
    assert result.verdict is Verdict.HOLD
    assert "agent clerk (10 tasks, 0 won, 8 lost" in result.reason
    # The same tasks are tested once, under one of their names.
    assert result.figures["slices"] == 1
    assert slices_of(Task(environment="bfcl", task_id="calls~late"), {}) == {"environment bfcl", "variant late"}


async def test_environments_are_slices() -> None:
    pairs = suite("a", 20, 0, 20) + [pair(f"{n}", True, False, "shop") for n in range(12)]
    assert "environment shop" in (await judged(pairs)).reason


def test_variants_of_one_task_are_no_independent_evidence() -> None:
    variants = [pair(f"a/{n}~{mark}", True, False) for n in range(3) for mark in "wxyz"]
    others = suite("b", 3, 3, 30)
    worst = {each.name: each for each in compared_slices(variants + others, {}, SETTINGS)}["suite a"]
    assert (worst.tasks, worst.wins, worst.losses) == (12, 0, 3)
    assert worst.p_worse == pytest.approx(1 / 8)


async def test_small_slices_and_the_whole_are_not_tested_and_without_pairs_nothing_is_known() -> None:
    only = await judged(suite("a", 0, 9, 20))
    assert (only.verdict, only.figures["slices"]) == (Verdict.PROMOTE, 0)
    small = await judged(suite("a", 0, 9, 0) + suite("b", 9, 0, 30))
    assert small.verdict is Verdict.PROMOTE
    assert (await judged([])).verdict is Verdict.INCONCLUSIVE
