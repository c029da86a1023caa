"""Groups of agents and tenants that have an adapter of their own: who belongs to which, and where a group's files are.

The gateway asks for each call, the learner for the episodes of a snapshot. What belongs to no group is the default
group's, whose name is empty and whose files lie in the home itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from ratchet_client.settings import FrozenModel
from streams.trust.practice import agent_of

DEFAULT_GROUP = ""
FOLDER = "groups"
FOR_GATES = 2
"""Places for adapters that are left free for a trial: of its candidate, and of the anchor."""

GroupName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$", max_length=40)]
_Name = Annotated[str, Field(min_length=1, max_length=512)]
_Tenant = Annotated[str, Field(min_length=1, max_length=512, pattern="^[^/]+$")]


class AdapterGroup(FrozenModel):
    """A group: the agents of these names, for these tenants. A list that is empty leaves it open."""

    agents: tuple[_Name, ...] = Field(default=(), description="Names of agents; none means any.")
    tenants: tuple[_Tenant, ...] = Field(
        default=(), description="Tenants: what stands before the first / of a principal; none means any."
    )

    @model_validator(mode="after")
    def _selects(self) -> Self:
        if not self.agents and not self.tenants:
            raise ValueError("it names neither agents nor tenants: name some, or remove the group")
        return self

    def has(self, agent: str | None, tenant: str) -> bool:
        """Return whether calls of `agent` for `tenant` belong to it."""
        return (not self.agents or agent in self.agents) and (not self.tenants or tenant in self.tenants)

    def meets(self, other: "AdapterGroup") -> bool:
        """Return whether a call could belong to both."""
        return _meet(self.agents, other.agents) and _meet(self.tenants, other.tenants)


class AdapterSettings(FrozenModel):
    """Settings of the groups of agents and tenants that have an adapter of their own, and of how many are loaded."""

    groups: dict[GroupName, AdapterGroup] = Field(
        default={}, description="The groups by name; all else is the default group's. None means one adapter for all."
    )
    max_loras: int = Field(
        default=6,
        ge=FOR_GATES + 2,
        description="With groups, the most adapters that are loaded at an inference server, those at gates and in "
        f"canaries too. {FOR_GATES} are left for gates, and a promotion takes one beside the champion's.",
    )
    wait_s: float = Field(
        default=30.0, gt=0, description="Longest wait of a call for its group's adapter to be loaded; then it is a 503."
    )

    @model_validator(mode="after")
    def _groups_are_apart(self) -> Self:
        folders: dict[str, str] = {}
        for name in self.groups:
            other = folders.setdefault(name.lower(), name)
            if other != name:
                raise ValueError(f"the groups {other!r} and {name!r} differ in case alone: rename one")
        for (one, first), (two, second) in combinations(self.groups.items(), 2):
            if first.meets(second):
                raise ValueError(
                    f"a call could belong to the groups {one!r} and {two!r}: name each agent, or each tenant, in one "
                    "of them only"
                )
        return self

    def group_of(self, agent: str | None, principal: str | None) -> str:
        """The group of calls of `agent` for `principal`; empty for the default group.

        >>> settings = AdapterSettings(groups={"acme": AdapterGroup(tenants=("acme",))})
        >>> settings.group_of("helpdesk", "acme/anna"), settings.group_of("helpdesk", "other/anna")
        ('acme', '')
        """
        tenant = tenant_of(principal)
        return next((name for name, group in self.groups.items() if group.has(agent, tenant)), DEFAULT_GROUP)

    def group_of_proved(self, agent: str | None, principal: str) -> tuple[str, str | None]:
        """The group of a call whose token proves `principal`, and the agent that it is recorded as.

        `agent` is the request's own word. It may choose among the groups of the token's tenant; to a group without
        tenants only a token leads whose name, or what follows its tenant, is that of the agent.

        >>> settings = AdapterSettings(groups={"sales": AdapterGroup(agents=("sales",))})
        >>> settings.group_of_proved("sales", "acme/anna"), settings.group_of_proved(None, "acme/sales")
        (('', 'anna'), ('sales', 'sales'))
        """
        said = self.group_of(agent, principal)
        if said and self.groups[said].tenants:
            return said, agent
        own = principal.rpartition("/")[2]
        proved = self.group_of(own, principal)
        return proved, own if proved or said else agent

    def members(self, name: str) -> "Members | None":
        """Those whose episodes the group `name` learns from; None where no groups are set, and so all."""
        return Members(name, self.groups) if self.groups else None


@dataclass(frozen=True, slots=True)
class Members:
    """The members of the group `name` among `groups`, as parameters of `streams.store.queries.groups`."""

    name: str
    groups: Mapping[str, AdapterGroup]

    def parameters(self) -> dict[str, str | list[str]]:
        """Selectors one by one, as lists side by side; an empty text stands for any."""
        rows = [
            (name, agent, tenant)
            for name, group in self.groups.items()
            for agent, tenant in product(group.agents or ("",), group.tenants or ("",))
        ]
        names, agents, tenants = (list(column) for column in zip(*rows, strict=True))
        return {"group": self.name, "groups": names, "of_agents": agents, "of_tenants": tenants}

    def practice_parameters(self) -> dict[str, str | list[str]]:
        """Selectors of what the group's adapter practised; the default group has that of groups that are not set too.

        >>> members = AdapterSettings(groups={"acme": AdapterGroup(tenants=("acme",))}).members("acme")
        >>> members.practice_parameters()
        {'practised_as': 'ratchet-practice/acme', 'set_apart': ['ratchet-practice/acme']}
        """
        return {"practised_as": agent_of(self.name), "set_apart": [agent_of(name) for name in self.groups]}


def tenant_of(principal: str | None) -> str:
    """The tenant of a principal: what stands before its first slash.

    >>> tenant_of("acme/anna"), tenant_of("anna"), tenant_of(None)
    ('acme', 'anna', '')
    """
    return (principal or "").partition("/")[0]


def home_of(home: Path, group: str) -> Path:
    """The folder of the files of a group, in the form of a home."""
    return home / FOLDER / group if group else home


def homes_in(home: Path) -> Iterator[Path]:
    """The home itself, and the folders of all groups that it has, set or not."""
    yield home
    yield from sorted(path for path in (home / FOLDER).glob("*") if path.is_dir())


def _meet(some: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return not some or not others or bool(set(some) & set(others))
