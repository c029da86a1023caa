"""A candidate's trial: the gates that are configured, one after the other. The learner calls `hold_trial`."""

import asyncio
from collections.abc import Sequence

import structlog

from evaluation.gates.gate import Evidence, Gate
from evaluation.gates.verdict import GateResult, Verdict, combined
from evaluation.settings import GateSettings
from ratchet_client.errors import RatchetError
from streams.errors import GateError, PolicyError
from streams.runtime.tracebacks import where_raised
from streams.trust.holdout import Split

log = structlog.get_logger()

_DEFAULTS = GateSettings()
# So long a gate that was cancelled may take to end.
_END_S = 10.0


async def hold_trial(
    evidence: Evidence, gates: Sequence[Gate], settings: GateSettings = _DEFAULTS
) -> tuple[Verdict, str]:
    """Let the `gates` judge; the verdict on the candidate and its reason. Their results are added to `evidence`.

    A gate that costs as much as playing is passed over once the candidate cannot be promoted any more. One that fails,
    takes longer than its time limit, or returns what is no result of its own, is inconclusive, so that nothing that is
    missing ever promotes; so is one of which more than the share `most_excluded` of the tasks could not be played.

    Raises `GateError` for tasks that training may have seen, before anything is played; unsolvable tasks may have been,
    for nothing that is learned from them solves them. When nothing can be played any more, as while the inference
    server is down, that error is raised, and the trial is to be resumed: it says nothing about the candidate.
    """
    unsolvable = frozenset(task.task_id for task in evidence.tasks.unsolvable)
    for task in evidence.tasks.everything():
        if task.task_id in unsolvable:
            continue
        if evidence.holdout.split(task.task_id) is Split.TRAIN:
            raise GateError(f"task {task.task_id!r} belongs to training: a gate is played on held-out tasks only")
    for gate in gates:
        verdict, _ = combined(evidence.results)
        if gate.plays and evidence.results and verdict in (Verdict.REJECT, Verdict.INCONCLUSIVE):
            continue
        evidence.arena = evidence.arena.for_gate(gate.name, evidence.adapters())
        result = await _judged(gate, evidence, settings.time_limit_of(gate.name))
        if (outage := evidence.arena.account.outage) is not None:
            raise outage if isinstance(outage, RatchetError) else GateError(f"nothing can be played: {outage!r}")
        evidence.results.append(_with_exclusions(result, evidence, settings.most_excluded))
        log.info("gate", **evidence.results[-1].model_dump(mode="json", include={"gate", "verdict", "reason"}))
    return combined(evidence.results)


async def _judged(gate: Gate, evidence: Evidence, limit_s: float) -> GateResult:
    judging = asyncio.ensure_future(gate.judge(evidence))
    try:
        done, _ = await asyncio.wait((judging,), timeout=limit_s)
        if not done:
            await _end(judging, evidence)
            raise GateError(
                f"it took longer than {limit_s:g} s and was ended: see why it hangs, or raise gate.time_limit_s, or "
                f"gate.time_limits_s.{gate.name} for it alone"
            )
        return _own_result(judging.result(), gate.name)
    except asyncio.CancelledError:
        # Of the trial, which ends the gate too; or raised by the gate itself, which then failed.
        judging.cancel()
        if (own := asyncio.current_task()) is None or own.cancelling():
            raise
        failure = "it was cancelled by itself"
    except RatchetError as error:
        if isinstance(error, PolicyError) or isinstance(error.__cause__, PolicyError):
            await _check_served(evidence)
        failure = str(error)
    except Exception as error:  # noqa: BLE001 - a gate may be anybody's code
        log.error("a gate failed", gate=gate.name, exception=where_raised(error))
        failure = f"{type(error).__name__}: {error}"
    # Half of a surrogate pair, which no file can hold, may come with any text.
    reason = f"The gate {gate.name} could not be played: {failure}".encode(errors="backslashreplace").decode()
    return GateResult(gate=gate.name, verdict=Verdict.INCONCLUSIVE, reason=reason)


async def _end(judging: "asyncio.Future[GateResult]", evidence: Evidence) -> None:
    """Cancel a gate and end its sandboxes. One that does not end when it is cancelled is waited for no longer."""
    judging.cancel()
    await asyncio.wait((judging,), timeout=_END_S)
    await evidence.arena.pool.end_groups()
    # An outage that the cancelling brought about is none.
    evidence.arena.account.outage = None


def _own_result(said: object, gate: str) -> GateResult:
    """The gate's result, as it is read back from a file. Raises `GateError` for all that is no result of its."""
    if not isinstance(said, GateResult):
        raise GateError(f"it returned {type(said).__name__} and not a GateResult: correct the gate")
    if said.gate != gate:
        raise GateError(f"it returned a result in the name of the gate {said.gate!r}: correct the gate")
    try:
        return GateResult.model_validate_json(said.model_dump_json(warnings=False))
    except ValueError as error:
        raise GateError(f"its result cannot be written down and read back: {error}. Correct the gate.") from error


async def _check_served(evidence: Evidence) -> None:
    """Raise `PolicyError` when the inference server is down, or has lost a side: that says nothing of the candidate."""
    served = {model.name for model in await evidence.arena.policy.models()}
    for side in (evidence.champion, evidence.candidate):
        if side.served not in served:
            raise PolicyError(f"the inference server has no model {side.served!r} any more: the trial is to be resumed")


def _with_exclusions(result: GateResult, evidence: Evidence, most: float) -> GateResult:
    """The result with the number of tasks that were excluded; inconclusive when they are too many."""
    account = evidence.arena.account
    if not account.excluded:
        return result
    figures = result.figures | {"excluded": len(account.excluded)}
    excess = account.excess(most)
    if excess is None or result.verdict is Verdict.INCONCLUSIVE:
        reason = result.reason if excess is None else f"{result.reason} {excess}."
        return result.model_copy(update={"figures": figures, "reason": reason})
    reason = f"The gate {result.gate} rests on too little: {excess}. It would have said: {result.reason}"
    return GateResult(gate=result.gate, verdict=Verdict.INCONCLUSIVE, reason=reason, figures=figures)
