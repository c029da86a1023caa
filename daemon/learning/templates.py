"""Refuses, when the learn role starts, a base model whose replies cannot be trained as they are served."""

from pathlib import Path

import structlog

log = structlog.get_logger()


def check_template(base: Path, *, embedded: bool) -> None:
    """Raises `ConfigurationError` when replies cannot be trained as they are served."""
    # Whatever asks for a role's name imports this module, and Transformers takes seconds to import.
    from learners.chat import ChatTokenizer

    tokenizer = ChatTokenizer(base)
    tokenizer.check_replies()
    refused = tokenizer.refused_system_message()
    if refused is not None:
        log.warning("episodes with a system message are left out of training", reason=refused)
    if not embedded:
        tokenizer.check_configured_stop()
