"""Checks of `ratchet doctor` on a Ratchet that runs: are its parts alive, and does what they need arrive?

It only asks and counts, and sends nothing through the loop: a probe would be stored and learned from.
"""

import asyncio
import time
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from daemon.commands.diagnosis import Diagnosis, Health
from daemon.config import Settings
from daemon.console import learner_told
from daemon.learning.domain import is_judged
from daemon.registry.hints import command, decisions
from daemon.registry.learner_status import LearnerPhase, learner_report
from daemon.registry.schemas import StatusReport
from daemon.serving.control_client import ControlClient
from daemon.serving.engine_client import engine_client
from ratchet_client.errors import RatchetError
from streams.access.tokens import TOKEN_VARIABLE
from streams.assembly.client import AssemblyClient
from streams.assembly.status import AssemblyStatus
from streams.branch_events import NO_SANDBOX
from streams.kafka.topics import end_offsets
from streams.store.client import StoreClient
from streams.store.queries.episodes import WITHOUT_OUTCOME_SINCE
from streams.store.queries.learning import BRANCHING_STATE
from streams.store.status import StoreStatus

T = TypeVar("T")

# The check that is always among those of what runs.
RUNNING = "gateway"
_DAYS = 3
_PATIENCE_S = 5.0
_MANY_DROPPED = 0.5
_WITHOUT_SANDBOX = (
    "install and configure the environment ([branching.environments.NAME]; `ratchet environment check NAME` tries it), "
    "and start Ratchet again: the episodes are branched then"
)


@dataclass(frozen=True, slots=True)
class Running:
    """The roles' answers; None, or -1, where one did not. `refused` has what those said, by role, that refused to."""

    gateway: StatusReport | None = None
    models: int = -1
    store: StoreStatus | None = None
    assembly: AssemblyStatus | None = None
    events: int = -1
    calls: int = -1
    unanswered: int = 0
    without_outcome: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)


def running_checks(settings: Settings) -> Iterator[Diagnosis]:
    """Each check of what runs; none where nothing does."""
    found = asyncio.run(_look(settings))
    if found.gateway is None and found.store is None:
        if found.refused:  # it runs, and does not say how
            yield _gateway(found, settings)
            yield _record(found)
        return
    yield _gateway(found, settings)
    yield _engine(found, settings)
    yield _record(found)
    yield _capture(found, settings)
    if is_judged(settings.domain):
        yield _learner(settings)
    if found.gateway is not None and found.gateway.held:
        yield held_candidates(found.gateway)
    if found.gateway is not None:
        yield from held_in_groups(found.gateway)
    if found.store is not None:
        yield _feedback(found, found.store)
        yield _trust(found.store)
        yield _branching(found, found.store)


async def _look(settings: Settings) -> Running:
    async with (
        ControlClient(settings.control_url, _PATIENCE_S) as control,
        StoreClient(settings.store_url, _PATIENCE_S) as stored,
        AssemblyClient(settings.assembly_url) as assembler,
        engine_client(settings.serving, timeout_s=_PATIENCE_S) as engine,
    ):
        refused: dict[str, str] = {}
        gateway, store = (
            await _answer(control.status(), RUNNING, refused),
            await _answer(stored.status(), "record", refused),
        )
        if gateway is None and store is None:
            return Running(refused=refused)
        assembly = await _answer(assembler.status(), "assemble", refused)
        models = await _answer(engine.models(), "engine", refused)
        unanswered = without = 0
        if store is not None:
            (state,) = (await stored.query(BRANCHING_STATE)).to_pylist()
            (old,) = (await stored.query(WITHOUT_OUTCOME_SINCE, {"before": time.time() - _DAYS * 86_400})).to_pylist()
            unanswered, without = max(0, state["asked"] - state["answered"]), old["episodes"]
    bootstrap = settings.kafka.bootstrap or (gateway.bootstrap if gateway is not None else "")
    events = await asyncio.to_thread(_records, settings, bootstrap, settings.kafka.events_topic)
    calls = await asyncio.to_thread(_records, settings, bootstrap, settings.kafka.calls_topic)
    count = -1 if models is None else len(models)
    return Running(gateway, count, store, assembly, events, calls, unanswered, without, refused)


async def _answer(asked: Awaitable[T], role: str, refused: dict[str, str]) -> T | None:
    """The answer of a role, None where it gives none; one that answers with an error is noted in `refused`."""
    try:
        return await asked
    except RatchetError as error:
        if error.refused:
            refused[role] = str(error)
        return None


def _refusal(name: str, found: Running) -> Diagnosis | None:
    """The check of a role that runs and refused to answer; None where it did not refuse."""
    if name not in found.refused:
        return None
    remedy = f"give a token with the role read as {TOKEN_VARIABLE} (`ratchet token new NAME --role read`); see its log"
    return Diagnosis(name=name, status=Health.ERROR, message=found.refused[name], remedy=remedy)


def _records(settings: Settings, bootstrap: str, topic: str) -> int:
    """Return how many records a topic has had, -1 where that is not known."""
    try:
        return sum(end_offsets(bootstrap, topic, settings.kafka.security).values()) if bootstrap else -1
    except (RatchetError, OSError):
        return -1


def _gateway(found: Running, settings: Settings) -> Diagnosis:
    name, at = RUNNING, f"{settings.control_url}/v1"
    if refusal := _refusal(name, found):
        return refusal
    if found.gateway is None:
        message = f"the gateway at {at} does not answer"
        return Diagnosis(
            name=name, status=Health.ERROR, message=message, remedy="start the role serve; see logs/serve.log"
        )
    if found.gateway.served is None and not found.gateway.is_cold:
        message = f"the gateway at {at} answers, and nothing serves yet"
        return Diagnosis(name=name, status=Health.ERROR, message=message, remedy="see the check of the engine")
    answers = found.gateway.served or f"{found.gateway.champion[:12]}, once it is loaded again,"
    message = f"agents ask {at} for {found.gateway.alias!r}; {answers} answers"
    return Diagnosis(name=name, status=Health.OK, message=message)


def _learner(settings: Settings) -> Diagnosis:
    name, report = "learner", learner_report(settings.home, ())
    message = learner_told(report)
    if not report.running and not report.is_finished:
        remedy = "start the role learn; logs/learn.log says why it ended"
        return Diagnosis(name=name, status=Health.WARNING, message=message, remedy=remedy)
    if report.status is not None and report.status.phase is LearnerPhase.PAUSED:
        remedy = "see logs/learn.log; it tries again by itself, or when it is started again"
        return Diagnosis(name=name, status=Health.WARNING, message=message, remedy=remedy)
    return Diagnosis(name=name, status=Health.OK, message=message)


def held_candidates(gateway: StatusReport) -> Diagnosis:
    """The check of the candidates that wait for a person."""
    first = gateway.held[0]
    message = (
        f"{len(gateway.held)} candidates wait for a person; {first.adapter[:12]} lapses at "
        f"{first.lapses:%Y-%m-%d %H:%M} UTC: {first.reason}"
    )
    return Diagnosis(name="approval", status=Health.WARNING, message=message, remedy=_decide(gateway.group))


def held_in_groups(gateway: StatusReport) -> Iterator[Diagnosis]:
    """The check of each other group that has candidates which wait for a person."""
    for group in gateway.groups:
        if group.held and group.name != gateway.group:
            message = f"{group.held} candidates of the group {group.name or 'default'} wait for a person"
            yield Diagnosis(name="approval", status=Health.WARNING, message=message, remedy=_decide(group.name))


def _decide(group: str) -> str:
    return f"{decisions(group)}; {command('status', group)} has all of them"


def _engine(found: Running, settings: Settings) -> Diagnosis:
    url = settings.serving.inference_url
    if found.models < 0:
        return Diagnosis(
            name="engine",
            status=Health.ERROR,
            message=f"the inference server at {url} does not answer",
            remedy="start it, or correct engine.url; the embedded one says in logs/inference.log why it ended",
        )
    unfit = [each for each in found.gateway.replicas if each.reason] if found.gateway is not None else []
    if unfit:
        return Diagnosis(
            name="engine",
            status=Health.ERROR,
            message=f"{unfit[0].url} takes no requests: {unfit[0].reason}",
            remedy="see what the reason says; the serve role looks at it again by itself",
        )
    return Diagnosis(name="engine", status=Health.OK, message=f"{url} serves {found.models} models")


def _record(found: Running) -> Diagnosis:
    name = "record"
    if refusal := _refusal(name, found):
        return refusal
    if found.store is None:
        remedy = "start the role record, or correct store.host and store.port; see logs/record.log"
        return Diagnosis(name=name, status=Health.ERROR, message="the store does not answer", remedy=remedy)
    stored, refused = sum(found.store.events.values()), found.store.dead_letters + found.store.quarantined
    message = f"{stored} events are stored, {refused} records were refused"
    if refused > stored:
        return Diagnosis(name=name, status=Health.WARNING, message=message, remedy="see `ratchet dead-letters list`")
    if found.events > 0 and not stored + refused:
        remedy = "see logs/record.log; if it has only started, ask again"
        message = f"{found.events} records are on the events topic, and none is stored"
        return Diagnosis(name=name, status=Health.WARNING, message=message, remedy=remedy)
    return Diagnosis(name=name, status=Health.OK, message=message)


def _capture(found: Running, settings: Settings) -> Diagnosis:
    name = "capture"
    steps = found.store.events.get("step", 0) if found.store is not None else 0
    if found.assembly is None and found.calls > 0:
        message = f"{found.calls} calls and verdicts were captured, and the assembler, which makes episodes, is away"
        remedy = "start the role assemble; see logs/assemble.log"
        return Diagnosis(name=name, status=Health.ERROR, message=message, remedy=remedy)
    if found.calls <= 0 and not steps:
        remedy = f"give the agent the base URL {settings.control_url}/v1, or publish events"
        message = "no call was captured, and no step is stored"
        return Diagnosis(name=name, status=Health.WARNING, message=message, remedy=remedy)
    if found.calls > 0 and not steps:
        remedy = "wait for the idle limit of [assembly], or send feedback, which settles an episode soon"
        message = f"{found.calls} calls and verdicts were captured, and no step is stored yet: conversations stay open"
        return Diagnosis(name=name, status=Health.WARNING, message=message, remedy=remedy)
    message = f"{max(found.calls, 0)} calls and verdicts were captured, {steps} steps are stored"
    return Diagnosis(name=name, status=Health.OK, message=message)


def _feedback(found: Running, store: StoreStatus) -> Diagnosis:
    name, outcomes = "feedback", store.events.get("outcome", 0)
    remedy = "send outcomes: `POST /v1/feedback` with the receipt of a reply, or an event of kind outcome"
    if store.events.get("step", 0) and not outcomes:
        message = "steps are stored, and not one outcome: nothing can become trusted"
        return Diagnosis(name=name, status=Health.WARNING, message=message, remedy=remedy)
    if found.without_outcome:
        message = f"{found.without_outcome} episodes have been without an outcome for {_DAYS} days or more"
        return Diagnosis(name=name, status=Health.WARNING, message=message, remedy=remedy)
    return Diagnosis(name=name, status=Health.OK, message=f"{outcomes} outcomes are stored")


def _trust(store: StoreStatus) -> Diagnosis:
    count = {state: sum(reasons.values()) for state, reasons in store.episodes.items()}
    trusted, failed, held_out = (count.get(state, 0) for state in ("trusted", "failed", "held-out"))
    total, learned = sum(count.values()), trusted + failed
    message = (
        f"of {total} episodes {trusted} are trusted and {failed} failed: these may be learned from; {held_out} are "
        "held out, of tasks that are kept for gates"
    )
    if not total or learned:
        return Diagnosis(name="trust", status=Health.OK, message=message)
    why = [
        (number, f"{state}: {reason}")
        for state, reasons in store.episodes.items()
        for reason, number in reasons.items()
    ]
    most, reason = max(why)
    return Diagnosis(
        name="trust",
        status=Health.WARNING,
        message=f"{message}; most are {reason} ({most})",
        remedy="`ratchet episodes list` says of each why, `ratchet episodes show ID` where",
    )


def _branching(found: Running, store: StoreStatus) -> Diagnosis:
    name, counts = "branching", store.branches
    if lacked := store.dropped.get(NO_SANDBOX, 0):
        message = f"{lacked} states and failed episodes wait for a sandbox: none could be opened for them"
        return Diagnosis(name=name, status=Health.WARNING, message=message, remedy=_WITHOUT_SANDBOX)
    if counts.states and counts.dropped > _MANY_DROPPED * counts.states:
        first = next(iter(store.dropped), "")
        return Diagnosis(
            name=name,
            status=Health.WARNING,
            message=f"{counts.dropped} of {counts.states} states were dropped, most: {first}",
            remedy="make the sandbox show what production does: `ratchet environment replay` finds where they part",
        )
    message = f"{counts.states} states were branched, {found.unanswered} wait"
    if found.unanswered and not counts.states:
        remedy = "start the role branch, or wait; see logs/branch.log"
        return Diagnosis(name=name, status=Health.WARNING, message=message, remedy=remedy)
    return Diagnosis(name=name, status=Health.OK, message=message)
