"""Goes through the phases of a variant, one after the other: train, practise, measure."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from daemon.learning.learnable import learnable_stages
from daemon.study.plan import Cell, Data, Phase, StudyDomain, Variant
from daemon.study.results import OUT_OF_DOMAIN, Measurement
from daemon.study.workshop import BASE, PlayedTask, Workshop
from learners.reflections.records import with_rationales
from learners.settings import LearnerSettings, Progress, Stage
from learners.trajectories import Trajectory
from ratchet_client.events import Task
from streams.errors import TrainingError


@dataclass(slots=True)
class Learned:
    """What was learned so far: `adapter`, and the ids of the sets of each domain, by name, in the order learned in.

    `updates` are those of all trainings; `rounds` the sets of practice by domain, and `practised` the episodes in them.
    `skipped` are the objectives that found nothing to learn from.
    """

    adapter: str = BASE
    sets: dict[str, list[str]] = field(default_factory=dict)
    rounds: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    updates: list[Progress] = field(default_factory=list)
    practised: int = 0
    skipped: list[str] = field(default_factory=list)
    measured: list[Measurement] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Course:
    """The course of a cell. Its stages have `scale` times the updates that the plan says."""

    workshop: Workshop
    cell: Cell
    threads: int
    scale: float = 1.0

    async def learn(self, variant: Variant, measure: bool) -> Learned:
        """Go through the variant's phases; the domains learned so far are played where a phase, and `measure`, say so.

        In the end all but the held-out tasks of the cell's own domain, which are the caller's to play, are measured.
        """
        learned = Learned()
        last = max(number for number, phase in enumerate(variant.course) if phase.train)
        for number, phase in enumerate(variant.course):
            data = self._data(phase)
            if data.name not in learned.sets:
                learned.sets[data.name] = [await self.workshop.demonstrated(data)]
            if phase.practise is not None:
                await self._practise(phase, data, learned)
                continue
            await self._train(phase, variant, data, learned)
            if measure and (phase.measure or number == last):
                await self._measure(number, number == last, learned)
        return learned

    async def play(self, adapter: str) -> tuple[PlayedTask, ...]:
        """The held-out tasks of the cell's own domain, or of the one in which it is played."""
        return await self._play(adapter, self.cell.played or self.cell.data.domain)

    async def validate(self, adapter: str) -> float:
        """The share of validation tasks that the adapter solves."""
        domain, tasks = self.cell.data.domain, await self._validation()
        played = await self.workshop.played(adapter, domain, tasks)
        return sum(task.success for task in played) / len(played)

    async def _validation(self) -> Sequence[Task]:
        return (await self.workshop.split(self.cell.data))[1][: self.cell.validation_tasks]

    async def _practise(self, phase: Phase, data: Data, learned: Learned) -> None:
        assert phase.practise is not None  # a phase that does not train practises
        # By the validation tasks variants are told apart.
        reserved = await self._validation() if len(self.cell.arm.variants) > 1 else ()
        rounds = learned.rounds[data.name]
        found = await self.workshop.practised(data, learned.adapter, phase.practise, rounds, reserved)
        rounds.append(found)
        learned.sets[data.name].append(found)
        learned.practised += len(self.workshop.trajectories(found))

    async def _train(self, phase: Phase, variant: Variant, data: Data, learned: Learned) -> None:
        older = [each for name, sets in learned.sets.items() if name != data.name for each in sets]
        joined = await self.workshop.joined(learned.sets[data.name], older, phase.replay, data.seed)
        settings = LearnerSettings(
            stages=self._scaled(phase.train),
            lora=self.cell.lora,
            learning_rate=phase.learning_rate or variant.learning_rate,
            max_length=self.cell.max_length,
            threads=self.threads,
        )
        domain = self._data(phase).domain
        reflections = await self.workshop.reflected(joined, domain, settings, data.seed)
        trajectories = self.workshop.trajectories(joined)
        if reflections is not None:
            trajectories = with_rationales(trajectories, reflections.reflections)
        stages, skipped = teachable(settings.stages, trajectories)
        learned.skipped += skipped
        if not stages:
            return
        settings = settings.model_copy(update={"stages": stages})
        learned.adapter, updates = await self.workshop.trained(
            joined, learned.adapter, settings, data.seed, reflections
        )
        learned.updates += updates

    async def _measure(self, number: int, is_last: bool, learned: Learned) -> None:
        def note(domain: str, played: Sequence[PlayedTask]) -> None:
            solved = {task.task_id: task.success for task in played}
            learned.measured.append(
                Measurement(phase=number, domain=domain, practised=learned.practised, solved=solved)
            )

        for name in learned.sets:
            is_own = name == self.cell.data.name
            if is_own and is_last:
                continue
            played = (
                await self.play(learned.adapter)
                if is_own
                else await self._play(learned.adapter, self.cell.visits[name])
            )
            note(name, played)
        if self.cell.out_of_domain_tasks:
            own = self.cell.data.domain
            tasks = (await self.workshop.laboratory(own)).out_of_domain[: self.cell.out_of_domain_tasks]
            note(OUT_OF_DOMAIN, await self.workshop.played(learned.adapter, own, tasks))

    async def _play(self, adapter: str, domain: StudyDomain) -> tuple[PlayedTask, ...]:
        tasks = (await self.workshop.laboratory(domain)).held_out[: self.cell.held_out_tasks]
        return await self.workshop.played(adapter, domain, tasks)

    def _data(self, phase: Phase) -> Data:
        own = self.cell.data
        if phase.domain in ("", own.name):
            return own
        return own.model_copy(update={"name": phase.domain, "domain": self.cell.visits[phase.domain]})

    def _scaled(self, stages: Sequence[Stage]) -> tuple[Stage, ...]:
        return tuple(
            stage.model_copy(update={"updates": max(1, round(stage.updates * self.scale))}) for stage in stages
        )


def teachable(stages: Sequence[Stage], trajectories: Sequence[Trajectory]) -> tuple[tuple[Stage, ...], list[str]]:
    """The stages without objectives that have nothing to learn from, and the names of these."""
    named: list[str] = list(dict.fromkeys(name for stage in stages for name in stage.objectives))
    try:
        left = learnable_stages(stages, trajectories)
    except TrainingError:
        return (), named
    taught = {name for stage in left for name in stage.objectives}
    return left, [name for name in named if name not in taught]
