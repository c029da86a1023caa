"""Requests and answers of the control API, and the parts of them that the audit log keeps."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, FiniteFloat, StringConstraints, model_validator

from daemon.registry.evidence import Fingerprint
from daemon.registry.learner_status import LearnerReport
from evaluation.account_summary import AccountSummary
from evaluation.canary_figures import CanaryFigures
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.settings import Spending
from ratchet_client.settings import FrozenModel
from streams.assembly.status import AssemblyStatus
from streams.policy.client import BASE as BASE
from streams.store.status import StoreStatus

# An adapter is named by its SHA-256, the base model without an adapter by the word `base`.
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Adapter = Annotated[str, Field(pattern=r"^([0-9a-f]{64}|base)$")]


class CycleReport(FrozenModel):
    """A finished cycle, as the learner tells it: the candidate, its verdict, and what that rests on.

    Successes are shares of the `tasks` that both sides played; None where there were none.
    """

    cycle: int = Field(ge=1)
    adapter: Digest
    champion: Adapter
    verdict: Verdict
    reason: str
    champion_success: float | None = Field(default=None, ge=0, le=1)
    candidate_success: float | None = Field(default=None, ge=0, le=1)
    tasks: int = Field(ge=0)
    gates: tuple[GateResult, ...] = Field(description="What each gate said, in the order in which they were played.")
    seconds: FiniteFloat = Field(ge=0, description="Wall-clock time of the whole cycle.")
    evidence: dict[str, Fingerprint] = Field(
        default={}, description="Fingerprints of the files that the verdict rests on, by their paths in the home."
    )

    @model_validator(mode="before")
    @classmethod
    def _with_one_gate(cls, given: Any) -> Any:
        """Entries of before there were several gates have that one's p-value."""
        if not isinstance(given, dict) or "p_value" not in given:
            return given
        rest = {name: value for name, value in given.items() if name != "p_value"}
        only = {"gate": "improvement", "verdict": rest.get("verdict"), "reason": rest.get("reason")}
        return {**rest, "gates": ({**only, "figures": {"p_better": given["p_value"]}},)}


class CanaryStart(FrozenModel):
    """A canary that begins: the champion that it is compared with, and the share of episodes for the candidate.

    `salt` is the key of the hash that says which episodes these are.
    """

    champion: Adapter
    share: FiniteFloat = Field(gt=0, lt=1)
    salt: str = Field(min_length=1)


class CanaryEnd(StrEnum):
    """How a canary ended.

    `PROMOTED`: the candidate serves. `ROLLED_BACK`: it was worse, failed, or a person took it back. `INCONCLUSIVE`:
    nothing was proved in time. `CANCELLED`: for a reason that says nothing about the candidate.
    """

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    INCONCLUSIVE = "inconclusive"
    CANCELLED = "cancelled"


class ShadowFigures(FrozenModel):
    """Copies of requests that the candidate answered for comparison only, since the serve role's start.

    `agreed` called the same tools with the same arguments, or said the same where no tool was called. `tool_calls` are
    the candidate's replies that call tools, `valid_tool_calls` those whose every call names a tool that was offered and
    has arguments that the tool's schema allows. Seconds are sums over the copies that were answered.
    """

    copies: int = 0
    dropped: int = 0
    errors: int = 0
    compared: int = 0
    agreed: int = 0
    tool_calls: int = 0
    valid_tool_calls: int = 0
    champion_s: FiniteFloat = 0.0
    candidate_s: FiniteFloat = 0.0


class CanaryReport(FrozenModel):
    """A canary: the candidate, the champion, and what was seen of them. `ended` is None while it runs.

    Requests and errors are those since the serve role's start; the figures are those of the whole canary.
    """

    adapter: Digest
    champion: Adapter
    share: FiniteFloat
    began: AwareDatetime
    ended: CanaryEnd | None = None
    reason: str
    figures: CanaryFigures = CanaryFigures()
    champion_requests: int = 0
    champion_errors: int = 0
    candidate_requests: int = 0
    candidate_errors: int = 0
    shadow: ShadowFigures | None = None


class Reservation(FrozenModel):
    """The probability `alpha` of a wrong promotion that a gate against `champion` may spend.

    `gate` numbers the reservations of an installation; `spending` is the procedure that `alpha` follows from.
    """

    gate: int = Field(ge=1)
    champion: Adapter
    alpha: FiniteFloat = Field(ge=0, lt=1)
    spending: Spending


class PromoteRequest(FrozenModel):
    """With `at_once` the adapter serves all episodes now, also where the settings ask for a canary, or one runs."""

    digest: Digest
    reason: str = Field(min_length=1)
    actor: str = Field(min_length=1)
    at_once: bool = False


Said = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class DecisionRequest(FrozenModel):
    """The decision of the person `actor` on a candidate that waits for one."""

    digest: Digest
    reason: Said
    actor: Said


class HoldRequest(FrozenModel):
    """That the person `actor` stops automatic promotion, or lets it go on."""

    reason: Said
    actor: Said


class Hold(FrozenModel):
    """A hold: nothing is promoted without a person's approval. Since when, by whom and why."""

    since: AwareDatetime
    actor: str
    reason: str


class HeldAdapter(FrozenModel):
    """A candidate that waits for a person: since when and why, and when it lapses.

    `against` is the champion that it was judged against. `obstacle` says why approving it would be refused now; None
    where nothing stands against it.
    """

    adapter: Digest
    since: AwareDatetime
    lapses: AwareDatetime
    reason: str
    against: Adapter | None
    obstacle: str | None


class DrillRequest(FrozenModel):
    """That `actor` wants a drill of the rollback now."""

    reason: Said
    actor: Said


class RollbackRequest(FrozenModel):
    """Without `to`, what served before the champion serves again."""

    to: Adapter | None = None
    reason: str = Field(min_length=1)
    actor: str = Field(min_length=1)


class Change(FrozenModel):
    """A change of the champion: adapters, the names they were and are served under, and how long it took.

    `seconds` runs until the alias pointed to the new one; draining the old one is not in it. `share` is that of the
    episodes which changed: less than 1 where a canary began, or ended by a rollback.
    """

    from_adapter: Adapter
    to_adapter: Adapter
    from_name: str
    to_name: str
    seconds: float
    share: float = 1.0
    on_hold: bool = False


class Drill(FrozenModel):
    """A drill of the rollback: everything that a rollback to `adapter` does, but that it serves afterwards.

    `seconds` runs from the beginning to the adapter's first reply at the inference server; None where it `failed`,
    which says why. `flip_s` is what a rollback has to do besides, the durable change of who serves, as measured at the
    last real rollback; None where none was yet.
    """

    adapter: Adapter
    began: AwareDatetime
    seconds: FiniteFloat | None = None
    flip_s: FiniteFloat | None = None
    failed: str = ""


class ReplicaStatus(FrozenModel):
    """One inference server. `reason` says why it takes no requests, empty where it does.

    `models` are the names that it had when it was last looked at, `in_flight` the requests of agents that it answers,
    `attested` and `refuted` how many attestations since the serve role's start found an adapter served as it was
    trained, and otherwise.
    """

    url: str
    reason: str
    models: tuple[str, ...] = ()
    in_flight: int = 0
    attested: int = 0
    refuted: int = 0


class CaptureStatus(FrozenModel):
    """What was captured since the serve role's start, and what waits for the log now."""

    enabled: bool = True
    published: int = 0
    dropped: int = 0
    refused: int = 0
    waiting: int = 0
    waiting_bytes: int = 0


class GroupStatus(FrozenModel):
    """One group of agents and tenants, and what serves it; the default group's `name` is empty.

    `served` is None while the champion `is_cold`, unloaded until a call asks for it, and while nothing serves. `held`
    is how many candidates wait for a person, `canary` the candidate of one that runs.
    """

    name: str
    alias: str
    champion: Adapter
    previous: Adapter
    anchor: Adapter
    served: str | None
    is_cold: bool = False
    in_flight: int = 0
    held: int = 0
    canary: Adapter | None = None
    on_hold: bool = False
    learner: LearnerReport | None = None


class StatusReport(FrozenModel):
    """The serving adapter and the state of the loop.

    `served` is the name behind the alias, as the first inference server has it, and `served_models` all that this one
    has loaded; both are None where that is not known. `replicas` are all inference servers, the first one first.
    `store` is as the store said it last, at `store_at`, both None where it never answered; `store_answers` says whether
    it does now. The newest cycle comes last. `retrain` are the adapters that saw data of principals that revoked
    consent since, or episodes that lost trust. `bootstrap` is where the log is. `assembly` is what the assembler
    counted since its start, None where it does not answer or was not asked; `capture` what became of the calls at the
    gateway. `holdout` is the account of held-out tasks, None where its file is damaged, and for one of an older
    version. `held` are the candidates that wait for a person, the one that has waited longest first.
    `canary` is the one that runs, or else the last one. `learner` is None for a serve role of an older version. `hold`
    is the one that stands, None where promotion is automatic. `drill` is the last drill of the rollback. `group` is the
    group that the report is of, empty for the default one; `groups` are all of them where there are several. `is_cold`
    says that the group's champion is unloaded until a call asks for it.
    """

    alias: str
    champion: Adapter
    previous: Adapter
    anchor: Adapter
    served: str | None
    in_flight: int
    served_models: tuple[str, ...] | None
    store: StoreStatus | None
    store_answers: bool = True
    store_at: AwareDatetime | None = None
    cycles: tuple[CycleReport, ...]
    retrain: tuple[Adapter, ...] = ()
    bootstrap: str = ""
    assembly: AssemblyStatus | None = None
    capture: CaptureStatus | None = None
    holdout: AccountSummary | None = None
    held: tuple[HeldAdapter, ...] = ()
    canary: CanaryReport | None = None
    learner: LearnerReport | None = None
    hold: Hold | None = None
    replicas: tuple[ReplicaStatus, ...] = ()
    drill: Drill | None = None
    group: str = ""
    is_cold: bool = False
    groups: tuple[GroupStatus, ...] = ()


class Erasure(FrozenModel):
    """The extent of an erasure, by numbers and ids alone: the log that holds it cannot forget.

    `rows` are those of the store, by table. `adapters` learned from what was erased, or may have. `paths` are folders
    and files below the home, named by digests; `others` is how many more files were removed.
    """

    erasure_id: str
    rows: dict[str, int]
    adapters: tuple[Digest, ...]
    paths: tuple[str, ...]
    others: int

    def removed(self, path: str) -> bool:
        """Return whether a path below the home is one that was removed, or lies in one."""
        return any(path == gone or path.startswith(f"{gone}/") for gone in self.paths)
