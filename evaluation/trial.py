"""A candidate's trial: the gates that are configured, one after the other. The learner calls `hold_trial`."""

from collections.abc import Sequence

import structlog

from evaluation.gates.gate import Evidence, Gate
from evaluation.gates.verdict import GateResult, Verdict, combined
from streams.errors import GateError, RatchetError
from streams.trust.holdout import Split

log = structlog.get_logger()


async def hold_trial(evidence: Evidence, gates: Sequence[Gate]) -> tuple[Verdict, str]:
    """Let the `gates` judge; the verdict on the candidate and its reason. Their results are added to `evidence`.

    A gate that costs as much as playing is passed over once the candidate cannot be promoted any more. One that fails
    is inconclusive, so that nothing that is missing ever promotes.

    Raises `GateError` for tasks that training may have seen, before anything is played.
    """
    for task in evidence.tasks.everything():
        if evidence.holdout.split(task.task_id) is Split.TRAIN:
            raise GateError(f"task {task.task_id!r} belongs to training: a gate is played on held-out tasks only")
    for gate in gates:
        verdict, _ = combined(evidence.results)
        if gate.plays and evidence.results and verdict in (Verdict.REJECT, Verdict.INCONCLUSIVE):
            continue
        evidence.playing = gate.name
        evidence.results.append(await _judged(gate, evidence))
        log.info("gate", **evidence.results[-1].model_dump(mode="json", include={"gate", "verdict", "reason"}))
    return combined(evidence.results)


async def _judged(gate: Gate, evidence: Evidence) -> GateResult:
    try:
        return await gate.judge(evidence)
    except RatchetError as error:
        failure = str(error)
    except Exception as error:
        # A gate may be anybody's code.
        log.exception("a gate failed", gate=gate.name)
        failure = f"{type(error).__name__}: {error}"
    return GateResult(
        gate=gate.name, verdict=Verdict.INCONCLUSIVE, reason=f"The gate {gate.name} could not be played: {failure}"
    )
