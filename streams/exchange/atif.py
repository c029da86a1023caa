"""ATIF, the Agent Trajectory Interchange Format, version 1.8: a JSON document for each trajectory.

What ATIF cannot say of a message, or would say in another way, is written in full into the `extra` of its step, under
`ratchet`, so that it is read back as it was.

https://github.com/harbor-framework/harbor/blob/main/rfcs/0001-trajectory-format.md
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from atif import Agent, FinalMetrics, ObservationResult, Step, Trajectory
from atif import Observation as Results
from pydantic import ValidationError

from ratchet_client.messages import TOOLS, Message, Tools
from streams.errors import ExchangeError
from streams.exchange.atif_messages import OURS, message_of, ours, result_of, said_by, said_in
from streams.exchange.conversation import Conversation, Facts, JsonObject, Said, conversation_of, first_fault

_MINOR = 8
_VERSION = f"ATIF-v1.{_MINOR}"
_UNKNOWN = "unknown"  # the format wants a name and a version of the agent
_READ_OF_TRAJECTORY = {"schema_version", "session_id", "trajectory_id", "agent", "steps", "final_metrics", "extra"}
# Read in the `extra` of a trajectory and of its final metrics.
_VERDICTS = {"success", "reward", "score"}
_READ_OF_STEP = {
    *("step_id", "timestamp", "source", "model_name", "message", "reasoning_content", "tool_calls", "observation"),
    *("extra", "llm_call_count", "is_copied_context"),
}


def read(document: JsonObject) -> Conversation:
    """The conversation of a trajectory. Raises `ExchangeError`, which says what is wrong where in it.

    Steps that are copied from elsewhere, or that no model decided on, are not to be learned from. `success`, `reward`
    or `score` in the `extra` of its final metrics, or of the trajectory, become facts.
    """
    try:
        trajectory = Trajectory.model_validate(document)
        if not trajectory.schema_version.startswith("ATIF-v1."):
            raise ExchangeError(f"schema_version: {trajectory.schema_version!r} is not a version 1 of ATIF")
        facts = Facts.model_validate(ours(trajectory.extra))
        facts = facts.model_copy(update={**_known(trajectory, facts), "tools": _changes(trajectory)})
        conversation = conversation_of(
            list(_said(trajectory)),
            TOOLS.validate_python(tuple(trajectory.agent.tool_definitions or ())),
            facts,
            identity=trajectory.trajectory_id or trajectory.session_id or "",
            left_out=frozenset(_left_out(trajectory)),
        )
        return replace(
            conversation,
            of_policies=frozenset(_names_of_models(trajectory)),
            warning=_warning(trajectory.schema_version),
        )
    except ValidationError as error:
        raise ExchangeError(first_fault(error)) from error


def write(conversation: Conversation) -> bytes:
    """The trajectory as one line of JSON, without a line feed."""
    facts = conversation.facts.model_copy(update={"opening": len(conversation.opening)})
    steps = _steps(conversation)
    name = facts.episode_id
    trajectory = Trajectory(
        schema_version=_VERSION,
        session_id=name,
        trajectory_id=name,
        agent=Agent(
            name=facts.agent or _UNKNOWN,
            version=_UNKNOWN,
            model_name=facts.adapter,
            tool_definitions=[dict(tool) for tool in conversation.offered] or None,
        ),
        steps=steps,
        final_metrics=FinalMetrics(total_steps=len(steps), extra=_verdict(facts)),
        extra={OURS: facts.to_json()},
    )
    return trajectory.model_dump_json(exclude_none=True).encode()


def _said(trajectory: Trajectory) -> Iterator[Said]:
    for step in trajectory.steps:
        learned = not step.is_copied_context and step.llm_call_count != 0
        yield Said(said_by(step), learned, _moment(step.timestamp))
        for result in step.observation.results if step.observation else ():
            yield Said(said_in(result))


def _steps(conversation: Conversation) -> list[Step]:
    changes = conversation.changes or {}
    steps: list[Step] = []
    action = -1
    for at, message in enumerate(conversation.messages):
        acts = message.role == "assistant" and at >= len(conversation.opening)
        action += acts
        if message.role == "tool" and steps:
            _add_result(steps[-1], message)
            continue
        step = message_of(message, len(steps) + 1)
        if acts and action in changes:
            step.extra = _with_ours(step.extra, tools=[dict(tool) for tool in changes[action]])
        if message.role == "assistant" and not acts:
            step.is_copied_context = True
        when = conversation.recorded_at[action] if acts and conversation.recorded_at else None
        if when is not None:
            step.timestamp = when.isoformat()
        steps.append(step)
    return steps


def _add_result(step: Step, message: Message) -> None:
    calls = {call.tool_call_id for call in step.tool_calls or ()}
    results: list[ObservationResult] = [] if step.observation is None else step.observation.results
    step.observation = Results(results=[*results, result_of(message, calls)])


def _with_ours(extra: Mapping[str, Any] | None, **more: object) -> dict[str, Any]:
    return {**(extra or {}), OURS: {**ours(extra), **more}}


def _changes(trajectory: Trajectory) -> dict[int, Tools] | None:
    if "opening" not in ours(trajectory.extra):
        return None
    acted = [step for step in trajectory.steps if step.source == "agent" and not step.is_copied_context]
    offered = [ours(step.extra).get("tools") for step in acted]
    changes = {number: TOOLS.validate_python(tools) for number, tools in enumerate(offered) if tools is not None}
    return changes or None


def _known(trajectory: Trajectory, facts: Facts) -> dict[str, object]:
    """Return what a trajectory says under names of its own, as facts."""
    known: dict[str, object] = {}
    if facts.agent is None:
        known["agent"] = trajectory.agent.name
    if facts.adapter is None:
        models = (step.model_name for step in trajectory.steps)
        known["adapter"] = next((name for name in models if name), trajectory.agent.model_name)
    final = (trajectory.final_metrics.extra if trajectory.final_metrics else None) or {}
    found = {**(trajectory.extra or {}), **final}
    if facts.success is None and isinstance(found.get("success"), bool):
        known["success"] = found["success"]
    score = found.get("reward", found.get("score"))
    if facts.score is None and isinstance(score, int | float) and not isinstance(score, bool):
        known["score"] = float(score)
    return known


def _verdict(facts: Facts) -> dict[str, Any] | None:
    told = {"success": facts.success, "reward": facts.score}
    return {name: value for name, value in told.items() if value is not None} or None


def _left_out(trajectory: Trajectory) -> Iterator[str]:
    yield from _left_out_of_the_whole(trajectory)
    for name in trajectory.model_fields_set - _READ_OF_TRAJECTORY:
        if getattr(trajectory, name) is not None:
            yield name
    for step in trajectory.steps:
        for name in step.model_fields_set - _READ_OF_STEP:
            if getattr(step, name) is not None:
                yield f"steps.{name}"
        if set(step.extra or ()) - {OURS}:
            yield "steps.extra"


def _left_out_of_the_whole(trajectory: Trajectory) -> Iterator[str]:
    """Identifiers, the agent and the final metrics, but for what Ratchet itself writes there."""
    own = ours(trajectory.extra)
    for name in ("session_id", "trajectory_id"):
        if getattr(trajectory, name) not in (None, own.get("episode_id")):
            yield name
    if not own or trajectory.agent.version != _UNKNOWN:
        yield "agent.version"
    if trajectory.agent.extra:
        yield "agent.extra"
    yield from (f"extra.{name}" for name in set(trajectory.extra or ()) - {OURS, *_VERDICTS})
    final = trajectory.final_metrics
    if final is None:
        return
    for name in final.model_fields_set - {"extra"}:
        if getattr(final, name) is not None and not (own and name == "total_steps"):
            yield f"final_metrics.{name}"
    yield from (f"final_metrics.extra.{name}" for name in set(final.extra or ()) - _VERDICTS)


def _names_of_models(trajectory: Trajectory) -> Iterator[str]:
    if trajectory.agent.model_name is not None:
        yield "agent.model_name"
    if any(step.model_name for step in trajectory.steps):
        yield "steps.model_name"


def _warning(version: str) -> str:
    """Return what to tell of a version that came after the one that is read; empty for the others."""
    minor = version.removeprefix("ATIF-v1.").partition(".")[0]
    if minor.isdecimal() and int(minor) <= _MINOR:
        return ""
    return f"schema_version {version} is newer than {_VERSION}: what changed since is not understood"


def _moment(timestamp: str | None) -> datetime | None:
    """The time of a step; one without a zone is taken as UTC."""
    if timestamp is None:
        return None
    when = datetime.fromisoformat(timestamp)
    return when if when.tzinfo else when.replace(tzinfo=UTC)
