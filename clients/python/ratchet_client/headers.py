"""The headers by which an agent tells the gateway what only the agent knows about its calls."""

import logging

PREFIX = "x-ratchet-"
_LONGEST = 512

_log = logging.getLogger(__name__)


def episode_headers(
    *,
    episode: str | None = None,
    conversation: str | None = None,
    environment: str | None = None,
    task: str | None = None,
    seed: int | None = None,
    state: str | None = None,
    principal: str | None = None,
    agent: str | None = None,
    capture: bool = True,
) -> dict[str, str]:
    """Return the headers of the calls of one episode: of the arguments that are given, in this order.

    They go into a call (`extra_headers`) or a client (`default_headers`). `docs/your-agent.md` says what each means.
    `capture=False` is for an agent that publishes its steps itself: the gateway then records nothing.

    Never raises. A value that no header can hold, which is one that is not printable ASCII or is longer than 512
    characters, is left out, and a warning names the header: the call is recorded without it.

    >>> episode_headers(episode="e-1", task="orders/17", seed=3)
    {'x-ratchet-episode': 'e-1', 'x-ratchet-task': 'orders/17', 'x-ratchet-seed': '3'}
    """
    values = {
        "episode": episode,
        "conversation": conversation,
        "environment": environment,
        "task": task,
        "seed": seed,
        "state": state,
        "principal": principal,
        "agent": agent,
        "capture": None if capture else "off",
    }
    texts = {PREFIX + name: _text(PREFIX + name, value) for name, value in values.items() if value is not None}
    return {name: text for name, text in texts.items() if text}


def _text(name: str, value: object) -> str:
    """The value as a header has it; empty, with a warning, where it cannot be one."""
    try:
        text = str(value).strip()
    except Exception:  # noqa: BLE001 - an agent may hand over anything at all, and must not fail of it
        text = "\n"
    if text.isascii() and text.isprintable() and len(text) <= _LONGEST:
        return text
    _log.warning("the header %s is left out: its value is not printable ASCII of at most %d characters", name, _LONGEST)
    return ""
