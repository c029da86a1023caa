"""The settings of groups of agents and tenants, and what follows from them for other parts."""

import json
from pathlib import Path

import pytest

from daemon.config import Settings
from ratchet_client.errors import ConfigurationError


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a `ratchet.toml`, and no variables but the test's."""
    monkeypatch.chdir(tmp_path)


def load(text: str) -> Settings:
    Path("ratchet.toml").write_text(text)
    return Settings.load()


GROUPS = "[adapters.groups.acme]\ntenants = ['acme']\n[adapters.groups.sales]\nagents = ['sales']\ntenants = ['other']"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[adapters.groups.a]\nagents = ['x']\n[adapters.groups.b]\ntenants = ['t']",
            "could belong to the groups 'a' and",
        ),
        ("[adapters.groups.a]\nagents = ['x', 'y']\n[adapters.groups.b]\nagents = ['y']", "name each agent, or each"),
        ("[adapters.groups.a]", "neither agents nor tenants"),
        ("[adapters.groups.a]\nagents = ['x']\n[adapters.groups.A]\nagents = ['y']", "differ in case alone"),
        ("[adapters.groups.'a/b']\nagents = ['x']", "adapters.groups"),
        ("[adapters.groups.a]\ntenants = ['acme/anna']", "adapters.groups.a.tenants"),
        ("[adapters]\nmax_loras = 3", "adapters.max_loras"),
    ],
)
def test_groups_that_are_not_apart_or_select_nothing_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load(text)


def test_groups_of_the_same_agent_for_different_tenants_are_apart() -> None:
    settings = load(
        "[adapters.groups.a]\nagents = ['x']\ntenants = ['t']\n[adapters.groups.b]\nagents = ['x']\ntenants = ['u']"
    )
    groups = settings.adapters
    assert groups.group_of("x", "t/anna") == "a"
    assert groups.group_of("x", "u") == "b"
    assert groups.group_of("x", None) == groups.group_of("y", "t/anna") == ""


def test_a_group_has_a_home_below_the_home_and_one_that_is_not_set_is_named() -> None:
    settings = load(GROUPS)
    assert settings.of_group("acme").home == settings.home / "groups" / "acme"
    assert settings.of_group("") == settings
    with pytest.raises(ConfigurationError, match=r"the group .acme2. is not set: adapters\.groups has acme, sales"):
        settings.of_group("acme2")


def test_with_groups_alternatives_are_proposed_by_the_base_model_unless_it_is_set() -> None:
    alone = load("seed = 1")
    assert (alone.branching.policy_url, alone.branching.model) == (alone.control_url, "assistant")
    grouped = load(GROUPS)
    assert (grouped.branching.policy_url, grouped.branching.model) == (grouped.serving.inference_url, "base")
    chosen = load(f"{GROUPS}\n[branching]\nmodel = 'assistant-acme'")
    assert (chosen.branching.policy_url, chosen.branching.model) == (chosen.control_url, "assistant-acme")


def test_another_process_reads_the_same_groups_from_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(GROUPS)
    Path("ratchet.toml").unlink()
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == settings
    assert json.loads(settings.adapters.model_dump_json())["groups"]["acme"] == {"agents": [], "tenants": ["acme"]}


@pytest.mark.parametrize(
    ("agent", "principal", "expected"),
    [
        ("coder", "acme/anna", ("", "anna")),  # by its own word no call gets into a group of agents alone
        ("coder", "acme/coder", ("coder", "coder")),
        (None, "coder", ("coder", "coder")),
        ("helpdesk", "acme/coder", ("coder", "coder")),
        ("sales", "other/ben", ("sales", "sales")),
        ("sales", "acme/ben", ("", "sales")),
        (None, "other/ben", ("", None)),
    ],
)
def test_what_is_learned_from_a_call_is_its_groups_that_answered_it(
    agent: str | None, principal: str, expected: tuple[str, str | None]
) -> None:
    groups = load(
        "[adapters.groups.coder]\nagents = ['coder']\n[adapters.groups.sales]\nagents = ['sales']\ntenants = ['other']"
    ).adapters
    answered, recorded = groups.group_of_proved(agent, principal)
    assert (answered, recorded) == expected
    assert groups.group_of(recorded, principal) == answered
