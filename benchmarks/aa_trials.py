"""Whole trials of the gate `improvement` of an adapter against itself: no promotion, flips and φ.

    python -m benchmarks.aa_trials --home .ratchet/demo --scenario helpdesk [--adapter DIGEST] [--trials 20]
                                   [--tasks 160] [--alpha ALPHA] [--record FOLDER] [--json]

The adapter is loaded under two names in an inference server that this starts, and both play the held-out tasks as
champion and candidate do, each trial in an order of its own. Its home is only read: alpha is spent in a ledger of this
run. It is the champion by default; where that is the base model, as after the rollback that ends a demo, the adapter
that was promoted last. `--scenario` takes the domain and the tools of a demo, which are in no configuration.

Rollouts are kept in the folder `--record` (`aa-trials`), a trial in each subfolder: a run that was broken off goes on
there, and one with more trials plays only the new ones. Gates stop where no gain is in sight, so that few tasks of the
list may be played in a trial. The last line of `--json` has `promotions`, `flip_rate`, `phi` and the trials.
"""

import argparse
import asyncio
import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog

from daemon.config import Settings
from daemon.demo.scenarios import SCENARIOS, ScenarioName
from daemon.learning.domain import domain_tasks, holdout_of
from daemon.registry.audit import Action
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from daemon.supervisor import inference_service
from evaluation.agreement import Agreement
from evaluation.arena import Arena
from evaluation.gates.gate import Competitor, Evidence, TaskLists
from evaluation.gates.improvement import IMPROVEMENT
from evaluation.gates.registry import load_gates
from evaluation.gates.verdict import Verdict
from evaluation.rollout_log import RolloutLog, rollouts_path
from evaluation.settings import GateSettings
from evaluation.spending import SpentAlpha, lord
from evaluation.trial import hold_trial
from learners.base_model import resolve_base
from streams.errors import GateError
from streams.policy.client import PolicyClient
from streams.runtime.processes import free_port
from streams.sandboxes.pool import sandbox_pool
from streams.trust.holdout import HoldoutSettings, Split

NAMES = ("aa-champion", "aa-candidate")
"""The two names that the adapter is loaded under."""


@dataclass(frozen=True, slots=True)
class AATrial:
    """One trial. `wins` are the tasks that only the second copy solved, `losses` those that only the first did.

    `tasks` were played by both, `both` and `neither` are those on which they agreed. `seconds` is the wall time, next
    to none where the record had everything.
    """

    trial: int
    verdict: Verdict
    reason: str
    alpha: float
    tasks: int
    wins: int
    losses: int
    both: int
    neither: int
    flip_rate: float | None
    phi: float | None
    seconds: float

    @property
    def agreement(self) -> Agreement:
        return Agreement(both=self.both, first_only=self.losses, second_only=self.wins, neither=self.neither)


@dataclass(frozen=True, slots=True)
class Contest:
    """The setting of all trials: the arena, the lists, the settings, and where rollouts are kept."""

    arena: Arena
    tasks: TaskLists
    gate: GateSettings
    holdout: HoldoutSettings
    adapter: str
    record: Path

    async def trial(self, number: int, alpha: float) -> AATrial:
        """Hold the trial of that number, from 1. Raises `RatchetError` when nothing can be played."""
        began = time.monotonic()
        # The order of tasks is a hash of the candidate: each trial has its own.
        copy = f"{self.adapter}-{number}"
        with RolloutLog(rollouts_path(self.record, self.adapter, number)) as record:
            evidence = Evidence(
                arena=replace(self.arena, record=record),
                candidate=Competitor(copy, NAMES[1]),
                champion=Competitor(self.adapter, NAMES[0]),
                anchor=Competitor(BASE, BASE),
                base=Competitor(BASE, BASE),
                tasks=self.tasks,
                alpha=alpha,
                holdout=self.holdout,
            )
            try:
                gates = load_gates((IMPROVEMENT,), self.gate)
                verdict, reason = await hold_trial(evidence, gates, self.gate)
            finally:
                await self.arena.pool.end_groups()
        found = Agreement.of((pair.champion.success, pair.candidate.success) for pair in evidence.pairs)
        return AATrial(
            trial=number,
            verdict=verdict,
            reason=reason,
            alpha=alpha,
            tasks=found.tasks,
            wins=found.second_only,
            losses=found.first_only,
            both=found.both,
            neither=found.neither,
            flip_rate=found.discordance,
            phi=found.phi,
            seconds=round(time.monotonic() - began, 1),
        )

    async def trials(self, count: int, alpha: float | None = None) -> AsyncIterator[AATrial]:
        """Hold `count` trials. Alpha is spent as the settings say, in an account of these trials; or is given."""
        spent: list[SpentAlpha] = []
        for number in range(1, count + 1):
            own = alpha
            if own is None:
                own = lord(spent, self.gate.alpha) if self.gate.spending == "lord" else self.gate.alpha
            held = await self.trial(number, own)
            spent.append(SpentAlpha(own, held.verdict is Verdict.PROMOTE))
            yield held


def summary(adapter: str, trials: Sequence[AATrial]) -> dict[str, object]:
    """The figures of all trials together: verdicts, promotions, flips with their 95% interval, φ, tasks a trial."""
    together = sum((trial.agreement for trial in trials), Agreement())
    return {
        "adapter": adapter,
        "trials": len(trials),
        "verdicts": dict(Counter(trial.verdict.value for trial in trials)),
        "promotions": sum(trial.verdict is Verdict.PROMOTE for trial in trials),
        "pairs": together.tasks,
        "success": [
            (together.both + only) / together.tasks if together.tasks else None
            for only in (together.first_only, together.second_only)
        ],
        "flip_rate": together.discordance,
        "flip_rate_interval": together.discordance_interval,
        "phi": together.phi,
        "tasks_per_trial": together.tasks / len(trials) if trials else None,
        "seconds": round(sum(trial.seconds for trial in trials), 1),
        "each": [asdict(trial) for trial in trials],
    }


def adapter_of(registry: Registry, asked: str) -> str:
    """The digest that begins with `asked`; of none, the champion or the adapter that was promoted last.

    Raises `GateError` where there is no such adapter, or more than one.
    """
    if asked:
        known = [folder.name for folder in (registry.home / "adapters").glob(f"{asked}*") if folder.is_dir()]
        if len(known) != 1:
            raise GateError(f"{len(known)} adapters of {registry.home} begin with {asked!r}: name one with --adapter")
        return known[0]
    champion = registry.refs().champion
    if champion != BASE:
        return champion
    promoted = [entry.subject for entry in registry.audit.read() if entry.action is Action.PROMOTED]
    others = [adapter for adapter in promoted if adapter != BASE]
    if not others:
        raise GateError(f"nothing was ever promoted in {registry.home}: name an adapter of it with --adapter")
    return others[-1]


def settings_of(home: Path, scenario: ScenarioName | None) -> Settings:
    """The settings of the installation, or of the demo of that name, with an inference server of their own.

    The file `ratchet.toml` and the environment are read as the commands do; `home` wins over both.
    """
    given = Settings.read().model_copy(update={"home": home})
    if scenario is not None:
        chosen = SCENARIOS[scenario]
        given = given.model_copy(update={"domain": chosen.domain, "branching": chosen.branching(given.branching)})
    engine = given.engine.model_copy(update={"url": "", "port": free_port()})
    return given.model_copy(update={"engine": engine}).settled()


@asynccontextmanager
async def contest(settings: Settings, adapter: str, most: int, record: Path) -> AsyncIterator[Contest]:
    """A running server with the adapter under both names, sandboxes, and the held-out tasks, `most` of each list.

    Raises `GateError` where none is held out, or the inference server's embedded base model cannot be had.
    """
    base = await asyncio.to_thread(resolve_base, settings.model, Settings.read().home)
    domain, folder = settings.domain, (settings.home / "adapters" / adapter).resolve()
    with tempfile.TemporaryDirectory(prefix="ratchet-aa-") as scratch:
        # The server writes its log there, and nothing into the home.
        server = inference_service(settings.model_copy(update={"home": Path(scratch)}), base)
        try:
            await server.start()
            await server.ready()
            async with (
                sandbox_pool(domain.environment, settings.branching, size=1) as pool,
                PolicyClient(
                    f"http://127.0.0.1:{settings.engine.port}", timeout_s=settings.serving.timeout_s
                ) as policy,
            ):
                for name in NAMES:
                    await policy.load_adapter(name, str(folder))
                found, holdout = await domain_tasks(domain, pool), await asyncio.to_thread(holdout_of, settings)
                selection, confirmation = (
                    found.held_out(holdout, split)[:most] for split in (Split.SELECTION, Split.CONFIRMATION)
                )
                if not selection:
                    raise GateError("no task is held out: raise holdout.selection, or give the suite more tasks")
                gate = settings.gate.model_copy(update={"min_tasks": min(settings.gate.min_tasks, len(selection))})
                arena = Arena(policy, pool, (await pool.describe()).harness, gate.rollouts)
                yield Contest(arena, TaskLists(selection, confirmation), gate, holdout, adapter, record)
        finally:
            await server.stop()


async def measure(
    settings: Settings, adapter: str, trials: int, most: int, alpha: float | None, record: Path
) -> list[AATrial]:
    held: list[AATrial] = []
    async with contest(settings, adapter, most, record) as shared:
        print(f"{adapter[:12]} against itself, {len(shared.tasks.selection)} selection tasks", flush=True)
        async for each in shared.trials(trials, alpha):
            held.append(each)
            print(
                f"trial {each.trial} of {trials}: {each.verdict.value}, {each.tasks} tasks, {each.wins} wins, "
                f"{each.losses} losses, {each.seconds:.0f} s",
                flush=True,
            )
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="the installation's home; by default that of its settings")
    parser.add_argument("--scenario", type=ScenarioName, choices=list(ScenarioName), help="of the demo that left it")
    parser.add_argument("--adapter", default="", help="a digest or its beginning; by default the champion")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=2000, help="most tasks of each list (%(default)s)")
    parser.add_argument("--alpha", type=float, help="of each trial; by default as gate.spending spends gate.alpha")
    parser.add_argument("--record", type=Path, default=Path("aa-trials"), help="where rollouts are kept (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    settings = settings_of(options.home or Settings.read().home, options.scenario)
    adapter = adapter_of(Registry(settings.home), options.adapter)
    held = asyncio.run(measure(settings, adapter, options.trials, options.tasks, options.alpha, options.record))
    found = summary(adapter, held)
    print(f"verdicts {found['verdicts']}, {found['promotions']} promotions, {found['tasks_per_trial']} tasks a trial")
    print(f"flip rate {found['flip_rate']}, 95% interval {found['flip_rate_interval']}; phi {found['phi']}")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
