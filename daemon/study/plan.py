"""The plan of a study, which is the content of its file, and the cells that it consists of."""

import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Literal, Self, TypeAlias

from pydantic import Field, JsonValue, ValidationError, model_validator

from daemon.config import DomainSettings
from learners.settings import EMBEDDED, LearnerSettings, LoraSettings, Stage
from ratchet_client.errors import ConfigurationError
from ratchet_client.ids import content_id
from ratchet_client.settings import FrozenModel

Budget: TypeAlias = Literal["updates", "tokens"]


class Practise(FrozenModel):
    """A round of practice: the adapter so far plays train tasks in the sandboxes, `samples` episodes of each."""

    tasks: int = Field(default=16, ge=1)
    samples: int = Field(default=4, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    explore: float = Field(default=0.25, ge=0, le=1, description="Share of the tasks for those never practised.")
    revisit: float = Field(default=0.05, ge=0, le=1, description="Share for those always solved, or never.")
    second_attempts: float = Field(
        default=0.0, ge=0, le=1, description="Share of the groups with a failure that are followed up with advice."
    )


class Phase(FrozenModel):
    """A step of a variant: it trains, on from the adapter so far, or it practises."""

    train: tuple[Stage, ...] = ()
    learning_rate: float | None = Field(default=None, gt=0, description="The variant's, unless it is set.")
    practise: Practise | None = None
    domain: str = Field(default="", description="Another domain of the plan, to learn in; the cell's own by default.")
    replay: float = Field(
        default=0.0, ge=0, lt=1, description="Share of trajectories that are of the domains learned before."
    )
    measure: bool = Field(default=False, description="Play the held-out tasks of the domains learned so far.")

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if bool(self.train) == (self.practise is not None):
            raise ValueError("a phase either trains or practises: give one of `train` and `practise`")
        if self.practise is not None and (self.replay or self.measure or self.learning_rate):
            raise ValueError("`replay`, `measure` and `learning_rate` are of phases that train")
        return self


class Variant(FrozenModel):
    """One way to train an arm: `phases`, one after the other, or `stages` for a single phase that trains."""

    stages: tuple[Stage, ...] = ()
    phases: tuple[Phase, ...] = ()
    learning_rate: float = Field(default=LearnerSettings().learning_rate, gt=0)

    @model_validator(mode="after")
    def _trains(self) -> Self:
        if bool(self.stages) == bool(self.phases):
            raise ValueError("a variant has either `stages` or `phases`")
        if not any(phase.train for phase in self.course):
            raise ValueError("none of the variant's phases trains: add one with `train`")
        return self

    @property
    def course(self) -> tuple[Phase, ...]:
        """The phases, also where they are given as stages."""
        return self.phases or (Phase(train=self.stages),)


class Arm(FrozenModel):
    """An algorithm under comparison. Of several variants the one counts that solves the most validation tasks."""

    variants: tuple[Variant, ...] = Field(min_length=1)

    @property
    def visits(self) -> tuple[str, ...]:
        """The names of other domains that its phases learn in."""
        named = [phase.domain for variant in self.variants for phase in variant.course if phase.domain]
        return tuple(dict.fromkeys(named))


class StudyDomain(FrozenModel):
    """The domain in which an arm learns; `environments` are its settings of `branching.environments`.

    With `play`, the name of another domain of the plan, the adapter plays the held-out tasks of that one.
    """

    domain: DomainSettings
    environments: dict[str, dict[str, JsonValue]] = Field(default={})
    play: str = ""


class StudyPlan(FrozenModel):
    """A study. Every arm is trained for each domain, seed, number of demonstrations, of alternatives and share."""

    baseline: str = Field(description="The arm that the others are compared with.")
    domains: dict[str, StudyDomain] = Field(min_length=1)
    arms: dict[str, Arm] = Field(min_length=1)
    learn_in: tuple[str, ...] = Field(
        default=(), description="The domains that have cells of their own; all of them by default."
    )
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    demonstrations: tuple[int, ...] = Field(default=(60,), min_length=1)
    alternatives: tuple[int, ...] = Field(default=(3,), min_length=1, description="Per state, beside the trusted one.")
    wrong: tuple[float, ...] = Field(
        default=(0.0,), min_length=1, description="Shares of demonstrations whose actions are of other tasks."
    )
    budgets: tuple[Budget, ...] = Field(
        default=("updates",),
        min_length=1,
        description="Equal updates as the stages say, or scaled to the tokens that the baseline reads.",
    )
    held_out_tasks: int = Field(default=160, ge=1)
    out_of_domain_tasks: int = Field(
        default=0, ge=0, description="Tasks of the domain's `out_of_domain_fold`, played at each measurement."
    )
    validation_tasks: int = Field(default=60, ge=1, description="Train tasks by which an arm's variant is chosen.")
    model: str = Field(default=EMBEDDED, description="The base model, as `model` in `ratchet.toml`.")
    lora: LoraSettings = LoraSettings(layers=15)
    max_length: int = Field(default=LearnerSettings().max_length, ge=64)

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        if self.baseline not in self.arms:
            raise ValueError(f"the baseline {self.baseline!r} is none of the arms {', '.join(self.arms)}")
        for name, domain in self.domains.items():
            if domain.play and domain.play not in self.domains:
                raise ValueError(f"the domain {name!r} is played in {domain.play!r}, which is none of the domains")
        visited = {name: f"a phase of the arm {arm!r} learns in" for arm in self.arms for name in self.arms[arm].visits}
        for name, told in (dict.fromkeys(self.learn_in, "learn_in names") | visited).items():
            if name not in self.domains:
                raise ValueError(f"{told} {name!r}, which is none of the domains {', '.join(self.domains)}")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """The plan in a TOML file. Raises `ConfigurationError` with the first wrong key or value."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text()))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"the study's plan {path} cannot be read: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "the plan"
            raise ConfigurationError(f"{path}: {key}: {first['msg']}. Correct it.") from error

    def cells(self) -> Iterator["Cell"]:
        """All cells: the baseline's first, which says how many tokens the others may read."""
        names = [self.baseline, *(name for name in self.arms if name != self.baseline)]
        conditions = product(
            self.learn_in or self.domains, self.seeds, self.demonstrations, self.alternatives, self.wrong
        )
        for domain, seed, demonstrations, alternatives, wrong in conditions:
            data = Data(
                name=domain,
                domain=self.domains[domain],
                seed=seed,
                demonstrations=demonstrations,
                alternatives=alternatives,
                wrong=wrong,
            )
            for name, budget in product(names, self.budgets):
                if name == self.baseline and budget != self.budgets[0]:
                    continue
                arm = self.arms[name]
                yield Cell(
                    data=data,
                    arm_name=name,
                    arm=arm,
                    visits={other: self.domains[other] for other in arm.visits},
                    budget="updates" if name == self.baseline else budget,
                    held_out_tasks=self.held_out_tasks,
                    out_of_domain_tasks=self.out_of_domain_tasks,
                    validation_tasks=self.validation_tasks,
                    model=self.model,
                    lora=self.lora,
                    max_length=self.max_length,
                    played=self.domains[self.domains[domain].play] if self.domains[domain].play else None,
                )


class Data(FrozenModel):
    """The data of a cell: demonstrations of train tasks, drawn by `seed`, with the branches of their states."""

    name: str
    domain: StudyDomain
    seed: int
    demonstrations: int
    alternatives: int
    wrong: float

    @property
    def data_id(self) -> str:
        """The same for the same data, whatever the domain is called."""
        return content_id(self.model_dump_json(exclude={"name": True, "domain": {"play"}}, exclude_defaults=True))


class Cell(FrozenModel):
    """One training and its evaluation. All that its result depends on is in it, but the versions of the code.

    `visits` are the other domains that the arm's phases learn in, by the names that these have for them.
    """

    data: Data
    arm_name: str
    arm: Arm
    budget: Budget
    held_out_tasks: int
    validation_tasks: int
    model: str
    lora: LoraSettings
    max_length: int
    played: StudyDomain | None = None
    out_of_domain_tasks: int = 0
    visits: dict[str, StudyDomain] = Field(default={})

    @property
    def cell_id(self) -> str:
        """The same for the same work: names of arms and domains do not count, nor settings that are left as they are.

        So a setting that is added to the plan's leaves the ids of earlier work.
        """
        return content_id(self.model_dump_json(exclude={"arm_name": True, "data": {"name"}}, exclude_defaults=True))
