"""`/v1/completions`: a prompt is read as what one user said, and the text that follows as the reply.

The engine saw the bare prompt, without a chat template, so what is trained is the nearest chat and not the same tokens.
Several prompts are several calls. Prompts of tokens have no text and are not understood.
"""

from collections.abc import Iterator

from ratchet_client.messages import Message, Messages, user
from streams.calls.absence import Absence
from streams.calls.faces.bodies import Body, Stream, refuse
from streams.calls.faces.chat_completions import choices_of, expect
from streams.calls.faces.messages import ended, message_of


def exchanges(request: Body, reply: Body | Stream) -> Iterator[tuple[Messages, Message]]:
    """Each prompt with each of its replies."""
    prompt = request.get("prompt")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if not prompts or not all(isinstance(each, str) and each for each in prompts):
        refuse(Absence.NOT_UNDERSTOOD, "the request's prompt is not a text")
    if request.get("suffix"):
        refuse(Absence.NOT_UNDERSTOOD, "the request asks for a text between two others")
    echo = request.get("echo") is True
    if echo and request.get("max_tokens") == 0:
        refuse(Absence.NOT_CAPTURED, "the request asks for no reply")
    choices = choices_of(reply)
    each = max(1, count if isinstance(count := request.get("n"), int) else 1)
    for index in sorted(choices):
        asked = str(prompts[min(index // each, len(prompts) - 1)])
        text = choices[index].texts.get("content", "")
        text = text.removeprefix(asked) if echo else text
        said = message_of({"role": "assistant", "content": text}, "the reply")
        yield (user(asked),), ended(said, choices[index].finish_reason)
    expect(request, reply, len(choices), len(prompts))
