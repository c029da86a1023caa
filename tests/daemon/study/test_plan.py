"""A study's plan: its cells, their ids, and what is refused."""

from pathlib import Path

import pytest

from daemon.study.plan import StudyPlan
from ratchet_client.errors import ConfigurationError

REPOSITORY = Path(__file__).parents[3]
PLAN = """
baseline = "imitation"
seeds = [0, 1]
demonstrations = [4, 8]
budgets = ["updates", "tokens"]
[domains.game.domain]
environment = "textworld_express"
suite = "twc"
[[arms.imitation.variants]]
stages = [{ objective = "imitation", updates = 2 }]
[[arms.both.variants]]
stages = [{ objective = "world_model", updates = 1 }, { objective = "imitation", updates = 1 }]
"""


def plan(folder: Path, text: str = PLAN) -> StudyPlan:
    path = folder / "plan.toml"
    path.write_text(text)
    return StudyPlan.read(path)


def test_every_arm_meets_every_condition_and_the_baseline_comes_first(tmp_path: Path) -> None:
    cells = list(plan(tmp_path).cells())
    assert len({cell.cell_id for cell in cells}) == len(cells) == 2 * 2 * (1 + 2)
    for start in range(0, len(cells), 3):
        first, *others = cells[start : start + 3]
        assert (first.arm_name, first.budget) == ("imitation", "updates")
        assert {other.data.data_id for other in others} == {first.data.data_id}
        assert [other.budget for other in others] == ["updates", "tokens"]


def test_a_cell_is_known_by_its_work_and_not_by_names(tmp_path: Path) -> None:
    one = list(plan(tmp_path).cells())
    renamed = PLAN.replace("arms.both", "arms.joint").replace("domains.game", "domains.kitchen")
    assert [cell.cell_id for cell in plan(tmp_path, renamed).cells()] == [cell.cell_id for cell in one]
    longer = PLAN.replace('"world_model", updates = 1', '"world_model", updates = 3')
    changed = [cell.cell_id for cell in plan(tmp_path, longer).cells()]
    assert changed[0] == one[0].cell_id
    assert not {*changed[1:3]} & {cell.cell_id for cell in one}


PHASES = """
learn_in = ["game"]
[domains.desk.domain]
environment = "toolbox"
[[arms.later.variants]]
phases = [
  { train = [{ objective = "imitation", updates = 2 }], measure = true },
  { practise = { tasks = 4, samples = 2 } },
  { train = [{ objective = "grpo", updates = 2 }], learning_rate = 1e-4 },
  { train = [{ objective = "imitation", updates = 2 }], domain = "desk", replay = 0.1 },
]
"""


def with_phases(text: str = PHASES) -> str:
    """The plan with an arm of phases; keys of the plan itself come first."""
    key, _, rest = text.strip().partition("\n")
    return f"{key}\n{PLAN}{rest}"


def test_an_arm_may_practise_and_learn_in_another_domain_which_has_no_cells_of_its_own(tmp_path: Path) -> None:
    cells = list(plan(tmp_path, with_phases()).cells())
    assert {cell.data.name for cell in cells} == {"game"}
    later = next(cell for cell in cells if cell.arm_name == "later")
    assert [bool(phase.practise) for phase in later.arm.variants[0].course] == [False, True, False, False]
    assert set(later.visits) == {"desk"}
    assert not next(cell for cell in cells if cell.arm_name == "both").visits
    other = with_phases(PHASES.replace('environment = "toolbox"', 'environment = "toolbox"\nsuite = "else"'))
    changed = next(cell for cell in plan(tmp_path, other).cells() if cell.arm_name == "later")
    assert changed.cell_id != later.cell_id


def test_stages_are_a_single_phase(tmp_path: Path) -> None:
    (only,) = plan(tmp_path).arms["both"].variants[0].course
    assert [stage.objective for stage in only.train] == ["world_model", "imitation"]


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ('domain = "desk"', 'domain = "moon"', "none of the domains"),
        ('learn_in = ["game"]', 'learn_in = ["moon"]', "learn_in names 'moon'"),
        ("practise = { tasks = 4, samples = 2 }", "measure = true", "either trains or practises"),
        ("{ practise = { tasks = 4", "{ replay = 0.1, practise = { tasks = 4", "of phases that train"),
        ("samples = 2", "samples = 1", "samples"),
        (
            "phases = [",
            "stages = [{ objective = 'imitation', updates = 1 }]\nphases = [",
            "either `stages` or `phases`",
        ),
    ],
)
def test_wrong_phases_are_refused(before: str, after: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        plan(tmp_path, with_phases(PHASES.replace(before, after)))


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ('baseline = "imitation"', 'baseline = "none"', "none of the arms"),
        ('suite = "twc"', 'suite = "twc"\n[domains.game]\nplay = "moon"', "none of the domains"),
        ("seeds = [0, 1]", "seeds = []", "seeds"),
        ("seeds = [0, 1]", "sedes = [0, 1]", "sedes"),
        ("[[arms.both", "[[arms.both.", "cannot be read"),
    ],
)
def test_a_wrong_plan_is_refused_with_its_key(before: str, after: str, reason: str, tmp_path: Path) -> None:
    text = PLAN.replace(before, after)
    if "play" in after:
        text = PLAN.replace("[domains.game.domain]", '[domains.game]\nplay = "moon"\n[domains.game.domain]')
    with pytest.raises(ConfigurationError, match=reason):
        plan(tmp_path, text)


def test_the_plans_of_the_examples_can_be_read() -> None:
    for path in (REPOSITORY / "examples" / "studies").glob("*.toml"):
        assert list(StudyPlan.read(path).cells())
