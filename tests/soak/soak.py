"""A soak: the whole system under load, one fault after the other, and the account of it in the end."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import duckdb
import httpx
import psutil

from daemon.registry.schemas import BASE
from ratchet_client.errors import BrokerError
from tests.crash.invariants import ALWAYS, DRAINED, Rule, broken
from tests.soak.accounts import Account, Excused, account, strangers
from tests.soak.cluster import NODES
from tests.soak.faults import BROKER, SUPERVISOR, Fault, Kind
from tests.soak.growth import growth
from tests.soak.processes import Samples, processes_of
from tests.soak.report import (
    HANDLES_LEAST,
    HANDLES_SHARE,
    RSS_LEAST_MIB,
    RSS_SHARE,
    FaultRecord,
    Finding,
    Flatness,
)
from tests.soak.system import System

RECOVERS_WITHIN_S = 300.0
_ORPHANS_END_WITHIN_S = 20.0
_POLL_S = 0.3
_ERRORS = (httpx.HTTPError, BrokerError, OSError)


class Interrupted(Exception):
    """Somebody wants the soak to end now."""


@dataclass(slots=True)
class Soak:
    """Strikes `system` and watches it come back. `tell` is told of the progress."""

    system: System
    samples: Samples
    seed: int
    tell: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)
    faults: list[FaultRecord] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    excused: Excused = field(default_factory=Excused)
    log_lost: bool = False
    interrupted: bool = False

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def calm(self, seconds: float) -> None:
        """Let time pass. Raises `Interrupted` when a signal came."""
        until = time.monotonic() + seconds
        while True:
            self.system.revive()
            self.samples.supervisor = self.system.pid
            if self.interrupted:
                raise Interrupted
            if time.monotonic() >= until:
                return
            time.sleep(min(_POLL_S, max(0.0, until - time.monotonic())))

    def wait(self, holds: Callable[[], bool], within_s: float = RECOVERS_WITHIN_S) -> float | None:
        """Poll until it holds; returns the seconds that it took, None where it did not come to hold."""
        began = time.monotonic()
        while time.monotonic() - began < within_s:
            with suppress(*_ERRORS):
                if holds():
                    return round(time.monotonic() - began, 1)
            self.calm(_POLL_S)
        return None

    def strike(self, fault: Fault) -> None:
        """Do what `fault` says, and note how long it took to be overcome."""
        at, before = self.elapsed, self._before(fault)
        detail = self._inflict(fault)
        if detail is None:
            self.tell(f"{fault.name}: nothing was struck")
            return
        released, ended = time.monotonic(), time.time()
        acknowledged, calls = self.system.acknowledged(), self.system.calls()
        if before is not None:
            self.log_lost = True
            self.excused.events |= set(acknowledged.events) - before
            self.excused.events |= {each.event for each in calls.answers if each.event not in before}
            self.excused.events |= {verdict for verdict, _ in calls.verdicts if verdict not in before}
        if fault.kind is Kind.KILL and fault.target in ("serve", SUPERVISOR, BROKER):
            self.excused.kills.append(ended)
        recorded = calls.recorded_before(ended - fault.lasts_s)
        expected = set(acknowledged.events) | {
            each.event for each in calls.answers if each.event in recorded and not self.excused.excuses(each)
        }
        expected -= self.excused.events
        answers = self.wait(self.system.answers)
        stored = self.wait(lambda: expected <= self.system.stored())
        took = None if stored is None else round(time.monotonic() - released, 1)
        record = FaultRecord(
            at_s=round(at, 1),
            fault=fault.name,
            lasts_s=fault.lasts_s,
            detail=detail,
            answers_s=answers,
            stored_s=took,
        )
        self.faults.append(record)
        if record.recovery_s is None:
            missing = sorted(expected - self.system.stored())[:3] if answers is not None else []
            self.findings.append(
                Finding(what=f"overcome within {RECOVERS_WITHIN_S:.0f} s", holds=False, detail=f"{record} {missing}")
            )
        self.tell(
            f"{self.elapsed / 60:.1f} min: {fault.name} {detail}: answers after {answers} s, stored after {took} s"
        )

    def _before(self, fault: Fault) -> set[str] | None:
        """What is stored before a fault that takes an embedded broker's log with it; None for other faults."""
        if self.system.cluster is not None or fault.kind is not Kind.KILL or fault.target not in (BROKER, SUPERVISOR):
            return None
        with suppress(*_ERRORS):
            return set(self.system.stored())
        return set()

    def _inflict(self, fault: Fault) -> str | None:
        """Have the fault from its begin to its end; returns what was struck, None where nothing was there."""
        match fault.kind:
            case Kind.KILL | Kind.STOP if fault.target == BROKER and self.system.cluster is not None:
                pid = self.system.cluster.pid(fault.size % NODES)
                return None if pid is None else self._signal(psutil.Process(pid), fault)
            case Kind.KILL | Kind.STOP:
                found = processes_of(self.system.pid or 0).get(fault.target, [])
                return self._signal(found[fault.size % len(found)], fault) if found else None
            case Kind.NODE:
                cluster = self.system.cluster
                assert cluster is not None
                node = fault.size % NODES
                with cluster.without(node):
                    self.calm(fault.lasts_s)
                return f"node {node + 1}"
            case _:
                try:
                    with self.system.surroundings.during(fault):
                        self.calm(fault.lasts_s)
                except subprocess.CalledProcessError as error:
                    self.tell(f"{fault.name} was not possible: {error.stderr.decode().strip()}")
                    return None
                return f"by {fault.size} s" if fault.kind is Kind.CLOCK else ""

    def _signal(self, process: psutil.Process, fault: Fault) -> str | None:
        try:
            if fault.kind is Kind.KILL:
                process.kill()
                return f"{process.pid}"
            process.suspend()
        except psutil.NoSuchProcess:
            return None
        try:
            self.calm(fault.lasts_s)
        finally:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        return f"{process.pid} for {fault.lasts_s} s"

    def drain(self, within_s: float) -> tuple[Account, set[str]]:
        """Stop the load, wait until everything that was acknowledged has arrived, and note what has not.

        Ends `ratchet run`, and looks at what it leaves.
        """
        self.interrupted = False
        self.system.stop_file.touch()
        ended = self._patiently(lambda: self.system.load_ended, within_s)
        self._note("the load was acknowledged to its end", ended is not None)
        rules = tuple(rule for rule in DRAINED if not self.log_lost or rule.says == "the outbox is published")
        if self._patiently(lambda: not self._account().lost, within_s) is not None:
            self._patiently(lambda: not broken(self.system.ask, rules, self.system.settings.kafka), within_s)
        counted = self._counted()
        self._note("nothing acknowledged is lost", not counted.lost, f"{len(counted.lost)}: {counted.lost[:3]}")
        self._hold("all is drained", rules, self.system.ask)
        self._hold("nothing is doubled", self._always(), self.system.ask)
        status = self.system.end()
        self._note("ratchet run ends well", status == 0, f"status {status}")
        self._patiently(lambda: not self.system.orphans(), _ORPHANS_END_WITHIN_S)
        left = [_described(process) for process in self.system.orphans()]
        self._note("no process is left behind", not left, "; ".join(left))
        self._look_at_file(rules)
        wrong = self.system.verified()
        self._note("ratchet verify finds nothing", not wrong, "; ".join(wrong))
        promoted = self.system.promoted()
        served = {answer.served for answer in self.system.calls().answers}
        odd = strangers(served, promoted, BASE)
        self._note("only what was promoted has answered", not odd, ", ".join(odd))
        return counted, promoted

    def flatness(self, warm_up_s: float) -> tuple[Flatness, ...]:
        """Judge each process's memory and handles."""
        found = []
        for name, lives in sorted(self.samples.series.items()):
            rss = growth([life.rss for life in lives.values()], warm_up_s)
            handles = growth([life.handles for life in lives.values()], warm_up_s)
            if name != BROKER:  # its memory is the log
                found.append(Flatness.of(name, "memory", rss, RSS_SHARE, RSS_LEAST_MIB))
            found.append(Flatness.of(name, "handles", handles, HANDLES_SHARE, HANDLES_LEAST))
        for figure in ("memory", "handles"):
            judged = [each for each in found if each.figure == figure and each.flat is not None]
            grown = [each.process for each in judged if not each.flat]
            self._note(f"{figure} flat, of {len(judged)} processes that lived long enough", not grown, ", ".join(grown))
        return tuple(found)

    def _patiently(self, holds: Callable[[], bool], within_s: float) -> float | None:
        """Wait, unless another signal has come."""
        with suppress(Interrupted):
            return self.wait(holds, within_s)
        return None

    def _account(self) -> Account:
        return account(self.system.acknowledged().events, self.system.calls(), self.system.stored(), self.excused)

    def _counted(self) -> Account:
        with suppress(*_ERRORS):
            return self._account()
        return account(self.system.acknowledged().events, self.system.calls(), set(), self.excused)

    def _always(self) -> tuple[Rule, ...]:
        """With a log that began again, offsets and requests come again too."""
        about_the_log = ("{events}", "{transitions}", "{branches}", "gaps")
        return tuple(rule for rule in ALWAYS if not (self.log_lost and any(each in rule.sql for each in about_the_log)))

    def _look_at_file(self, rules: tuple[Rule, ...]) -> None:
        try:
            with duckdb.connect(str(self.system.settings.store.path)) as file:
                self._hold(
                    "the store's file is whole", (*self._always(), *rules), lambda sql: file.execute(sql).fetchall()
                )
                file.execute("CHECKPOINT")
        except duckdb.Error as error:
            self._note("the store's file opens and takes a checkpoint", False, str(error))

    def _hold(self, what: str, rules: tuple[Rule, ...], ask: Callable[[str], list[tuple[object, ...]]]) -> None:
        try:
            found = broken(ask, rules, self.system.settings.kafka)
        except _ERRORS as error:
            found = [f"the store does not answer: {error}"]
        self._note(what, not found, "; ".join(found))

    def _note(self, what: str, holds: bool, detail: str = "") -> None:
        self.findings.append(Finding(what=what, holds=holds, detail="" if holds else detail))
        self.tell(f"{what}: {'yes' if holds else f'NO: {detail}'}")


def _described(process: psutil.Process) -> str:
    """A process, by its number, its state, and the ends of its command line."""
    with suppress(psutil.NoSuchProcess):
        command = " ".join(process.cmdline())
        return f"{process.pid} {process.status()}: {command[:80]} … {command[-120:]}"
    return f"{process.pid}, which has ended since"
