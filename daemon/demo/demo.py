"""`ratchet demo`: the whole loop on one machine, played by an agent that knows nothing of it.

An expert demonstrates, the agent fails, alternatives are branched, a cycle trains and is gated, what serves then
practises for the next ones, a damaged adapter is kept out, an operator rolls back, and every event is accounted for.
"""

import asyncio
import fcntl
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from daemon.config import Settings
from daemon.console import Narrator
from daemon.demo.agent import AgentSummary, output_of
from daemon.demo.phases import Begin, Watch, phases, untimed
from daemon.demo.plan import (
    NO_PRACTICE,
    CaptureCounts,
    CycleLine,
    DemoBranchCounts,
    DemoPlan,
    DemoReport,
    EventCounts,
    OutOfDomain,
    PracticeLine,
    RollbackLine,
    Unseen,
)
from daemon.demo.preparation import bounded, embedded, train_tasks
from daemon.demo.sabotage import damaged_copy
from daemon.demo.scenario import Scenario
from daemon.demo.success_plot import PICTURE, draw
from daemon.learning.cycle import run_cycle
from daemon.learning.loop import Loop, open_loop
from daemon.learning.practice import Practice
from daemon.learning.trials import judge
from daemon.registry.lifecycle import State
from daemon.registry.schemas import BASE, CycleReport, RollbackRequest
from daemon.supervisor import Supervisor
from evaluation.arena import Arena
from evaluation.gates.verdict import Verdict
from evaluation.report import GateReport
from evaluation.rollouts import paired
from learners.base_model import resolve_base
from learners.settings import LearnerSettings
from learners.trajectories import RECOVERY
from ratchet_client.errors import ConfigurationError, RatchetError
from ratchet_client.events import Task
from streams.kafka.topics import end_offsets
from streams.runtime.files import write_atomically
from streams.runtime.private_home import secure
from streams.store.queries.learning import JUDGED_EPISODES, POLICY_EPISODES, RECORDS_OF_TOPIC

OPERATOR = "demo"
_POLL_S = 0.5
_BRANCHING_TIMEOUT_S = 900.0
# How many episodes the agent plays before and after the rollback.
_FEW = 4


async def run_demo(plan: DemoPlan, narrator: Narrator, scenario: Scenario, *, profile: bool = False) -> DemoReport:
    """Run the demo in `.ratchet/demo`, which is emptied first, and write `report.json` there.

    With `profile` it also writes the time of each phase, and that of the processor, as `profile.json` and as a picture.

    Raises `RatchetError` when a step cannot be carried out. Whatever happens, no process is left behind.
    """
    began = time.monotonic()
    scenario.check()
    given = Settings.read()
    secure(given.home)
    with _only_one(given.home / "demo.lock"):
        home = given.home / "demo"
        timed = phases(home, narrator, profile=profile)
        shutil.rmtree(home, ignore_errors=True)
        with timed as begin:
            begin("base model")
            narrator.say(f"preparing the base model {given.model} (half a minute the first time)")
            base = await asyncio.to_thread(resolve_base, given.model, given.home)
            settings = embedded(given, plan, scenario, home)
            begin("start")
            narrator.say(f"starting the roles; their logs are in {home}/logs")
            async with (
                Supervisor(settings, base, scenario.roles) as supervisor,
                open_loop(supervisor.settings, base) as loop,
            ):
                played, unseen = train_tasks(loop, plan)
                bounds = bounded(loop, plan, played)
                demo = Demo(plan, narrator, bounds, iter(played), scenario, unseen, begin)
                report = await demo.run(began)
                begin("stop")
        write_atomically(home / "report.json", report.model_dump_json(indent=2, by_alias=True).encode() + b"\n")
        narrator.say(f"the report is {home}/report.json")
        with suppress(ImportError):  # the picture alone wants matplotlib
            draw(report, home / PICTURE)
            narrator.say(f"a picture of it is {home}/{PICTURE}")
        return report


@dataclass(slots=True)
class Demo:
    """A demo under way. `tasks` yields tasks of the train split, each once; `unseen` are others, to measure by.

    `judged` episodes have been played and judged so far, with `calls` of the policy. `begin` is told of each phase.
    """

    plan: DemoPlan
    narrator: Narrator
    loop: Loop
    tasks: Iterator[Task]
    scenario: Scenario
    unseen: Sequence[Task] = ()
    begin: Begin = untimed
    judged: int = 0
    calls: int = 0

    async def run(self, began: float) -> DemoReport:
        await self.play("expert", self.plan.demonstrations)
        await self.play("policy", self.plan.first_plays)
        await self.digested()
        learner = self.loop.settings.learner
        reports = [await self.cycle(1, learner.model_copy(update={"stages": self.plan.first_cycle}))]
        lines = [self.line(reports[0], NO_PRACTICE)]
        await self.play("policy", self.plan.plays)
        await self.digested()
        practised = await self.practise()
        reports.append(await self.cycle(2, learner.for_practice()))
        lines.append(self.line(reports[-1], practised))
        self.begin("damaged adapter")
        self.narrator.say("damaging a copy of the candidate, to see whether the gate stops it")
        victim = damaged_copy(self.loop.adapters, reports[-1].adapter, self.plan.seed)
        self.loop.registry.enter(victim, State.TRAINED, OPERATOR, "damaged on purpose")
        sabotage = await judge(replace(self.loop, out_of_domain=()), victim, self.watcher("sabotage"), time.monotonic())
        self.narrator.say(f"damaged adapter: {sabotage.verdict.value}")
        champions = [report for report in reports if report.verdict is Verdict.PROMOTE]
        unseen = await self.measure() if champions else None
        return DemoReport(
            seed=self.plan.seed,
            cycles=tuple(lines),
            unseen=unseen,
            out_of_domain=self.out_of_domain(champions),
            sabotage_verdict=sabotage.verdict,
            rollback=await self.roll_back(),
            events=await self.account(),
            branches=await self.branches(),
            captured=await self.captured() if self.scenario.captured else None,
            scenario=self.scenario.name,
            wall_seconds=round(time.monotonic() - began, 1),
        )

    async def play(self, role: str, count: int) -> AgentSummary:
        """Let the agent, in a process of its own, play `count` fresh tasks."""
        self.begin("expert" if role == "expert" else "agent")
        tasks = [task for _, task in zip(range(count), self.tasks, strict=False)]
        self.narrator.say(f"{'an expert demonstrates' if role == 'expert' else 'the agent plays'} {len(tasks)} tasks")
        players = self.scenario.expert if role == "expert" else self.scenario.agent
        output, *_ = [await output_of(command) for command in players(tasks, self.loop.settings)]
        summary = AgentSummary.model_validate_json(output.splitlines()[-1])
        self.narrator.say(
            f"{summary.successes} of {summary.episodes} episodes succeeded, {summary.events or summary.calls} "
            f"{'events' if summary.events else 'calls'}, answered by {', '.join(summary.models) or 'the expert'}"
        )
        self.judged += summary.judged
        self.calls += summary.calls
        return summary

    async def practise(self) -> PracticeLine:
        """Let what serves practise a round as the learn role would between cycles."""
        self.begin("practice")
        self.narrator.say("what serves practises train tasks")
        practice = Practice(self.loop)
        try:
            played = await practice.play_round()
            await self.digested()
        finally:
            practice.close()
        line = NO_PRACTICE if played is None else PracticeLine(episodes=played.episodes, successes=played.successes)
        self.narrator.say(f"{line.successes} of {line.episodes} practice episodes succeeded")
        return line

    async def digested(self) -> None:
        """Wait until every episode is judged, all events are stored, and the branch workers have answered for them."""
        self.begin("storing and branching")
        kafka = self.loop.settings.kafka
        deadline = time.monotonic() + _BRANCHING_TIMEOUT_S
        while time.monotonic() < deadline:
            stored = (await self.loop.store.status()).positions.get(kafka.events_topic, {})
            ends = await asyncio.to_thread(end_offsets, kafka.bootstrap, kafka.events_topic, kafka.security)
            asked, answered = await self.loop.branching_state()
            self.narrator.advance("states branched", answered, asked)
            judged = (await self.loop.store.query(JUDGED_EPISODES))["judged"][0].as_py()
            # Events of captured calls are published a while after the calls.
            if judged >= self.judged and sum(stored.values()) == sum(ends.values()) and asked == answered:
                return
            await asyncio.sleep(_POLL_S)
        raise RatchetError(f"the stream was not digested in time: see the logs in {self.loop.settings.home}/logs")

    async def cycle(self, number: int, learner: LearnerSettings) -> CycleReport:
        self.begin(f"cycle {number}: before training")
        report = await run_cycle(self.loop, learner, self.watcher(f"cycle {number}"))
        self.narrator.say(f"cycle {number}: {report.verdict.value}. {report.reason}")
        return report

    async def measure(self) -> Unseen | None:
        """Let the base model and what serves now play tasks that nobody has played; None where the plan has no such.

        A gate stops while its candidate is ahead, and promotes the ones that were: its own figures flatter them.
        """
        tasks, served = self.unseen, (await self.loop.control.status()).served
        if not tasks or served is None:
            return None
        arena = Arena(
            self.loop.policy,
            self.loop.pool,
            (await self.loop.pool.describe()).harness,
            self.loop.settings.gate.rollouts,
        )
        self.begin("unseen tasks")
        self.narrator.say(f"the base model and what serves play {len(tasks)} tasks that nobody has played")
        played = await arena.play_together(
            tasks, (BASE, served), lambda done, total: self.narrator.advance("unseen tasks", done, total)
        )
        await self.loop.pool.end_groups()
        return Unseen.of(paired(tasks, *played))

    def watcher(self, name: str) -> Watch:
        return Watch(self.narrator, name, self.begin)

    async def roll_back(self) -> RollbackLine | None:
        """Roll back as an operator would, with the agent playing before and after; None if nothing was promoted."""
        if self.loop.registry.refs().champion == BASE:
            return None
        before = await self.play("policy", _FEW)
        self.begin("rollback")
        request = RollbackRequest(reason="to show that it works", actor=OPERATOR)
        change = await self.loop.control.rollback(request)
        self.narrator.say(f"rolled back from {change.from_name} to {change.to_name} in {change.seconds:.2f} s")
        after = await self.play("policy", _FEW)
        await self.digested()
        return RollbackLine(
            from_=change.from_name,
            to=change.to_name,
            seconds=round(change.seconds, 3),
            answered_before=tuple(before.models),
            answered_after=tuple(after.models),
        )

    def line(self, report: CycleReport, practised: PracticeLine) -> CycleLine:
        snapshot = self.loop.adapters.manifest(report.adapter).snapshot
        own, recovered = snapshot.episodes.get("policy", 0), snapshot.episodes.get(RECOVERY, 0)
        return CycleLine.of(report, own, recovered, snapshot.branches, practised)

    def out_of_domain(self, champions: list[CycleReport]) -> OutOfDomain | None:
        """The base model, and the last champion, on the other fold; both were played by gates."""
        if not champions or not self.loop.out_of_domain:
            return None
        read = [GateReport.read(self.loop.adapters.folder(each.adapter)) for each in (champions[0], champions[-1])]
        first, last = (report.out_of_domain if report else None for report in read)
        if first is None or last is None:
            return None
        return OutOfDomain(
            tasks=last.candidate.tasks,
            first_success=first.champion.success,
            last_success=last.candidate.success,
        )

    async def account(self) -> EventCounts:
        """Compare what the broker took with what the store has."""
        self.begin("account")
        kafka = self.loop.settings.kafka
        ends = await asyncio.to_thread(end_offsets, kafka.bootstrap, kafka.events_topic, kafka.security)
        rows = await self.loop.store.query(RECORDS_OF_TOPIC, {"topic": kafka.events_topic})
        counts = rows.to_pylist()[0]
        produced, stored = sum(ends.values()), counts["stored"]
        return EventCounts(
            produced=produced,
            stored=stored,
            practice=counts["practice"],
            lost=produced - stored - counts["duplicates"] - counts["dead_letters"] - counts["quarantined"],
            duplicated=stored - counts["distinct_ids"],
        )

    async def captured(self) -> CaptureCounts:
        """Compare the agent's own count of its calls with what the store has of them."""
        (counts,) = (await self.loop.store.query(POLICY_EPISODES)).to_pylist()
        return CaptureCounts(calls=self.calls, lost=self.calls - counts["stored"], **counts)

    async def branches(self) -> DemoBranchCounts:
        counts = (await self.loop.store.status()).branches
        return DemoBranchCounts(
            requested=counts.requested, executed=counts.executed, diverged=counts.requested - counts.executed
        )


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(f"another demo is running in {lock.parent}: wait for it, or stop it") from error
        yield
