"""Recordings as the record role stores them."""

from streams.branch_events import BranchRequest, RecordedStep
from streams.redaction.redactor import Redactor


def redacted(request: BranchRequest, redactor: Redactor) -> BranchRequest:
    """The episode with placeholders."""
    opening, _ = redactor.redact_messages(request.opening, request.episode_id)
    steps = []
    for step in request.steps:
        (action, *observation), _ = redactor.redact_messages((step.action, *step.observation), request.episode_id)
        steps.append(RecordedStep(action=action, observation=tuple(observation), tools=step.tools))
    return request.model_copy(update={"opening": opening, "steps": tuple(steps)})
