"""Recordings as the record role stores them."""

from streams.events import BranchRequest, RecordedStep
from streams.messages import Message
from streams.redaction.redactor import Redactor


def redacted(request: BranchRequest, redactor: Redactor) -> BranchRequest:
    """The episode with placeholders."""

    def clean(message: Message) -> Message:
        def text(given: str) -> str:
            return redactor.redact_text(given, request.episode_id)[0]

        calls = tuple(
            call.model_copy(
                update={"function": call.function.model_copy(update={"arguments": text(call.function.arguments)})}
            )
            for call in message.calls
            if call.function is not None
        )
        content = None if message.content is None else text(message.text)
        return message.model_copy(update={"content": content, "tool_calls": calls or None})

    return request.model_copy(
        update={
            "opening": tuple(map(clean, request.opening)),
            "steps": tuple(
                RecordedStep(
                    action=clean(step.action), observation=tuple(map(clean, step.observation)), tools=step.tools
                )
                for step in request.steps
            ),
        }
    )
