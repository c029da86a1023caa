"""A snapshot that is quick to learn from, and the tokenizers of many chat templates."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from learners.chat import ChatTokenizer, load_tokenizer
from learners.snapshots import Snapshot, write_snapshot
from streams.trust.holdout import HoldoutSettings
from tests.builders.base_models import write_chat
from tests.builders.trained import trajectory


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    nothing_held_out = HoldoutSettings(selection=0.0, confirmation=0.0)
    return write_snapshot([trajectory(n) for n in range(3)], nothing_held_out, tmp_path_factory.mktemp("home"), 7, {})


@pytest.fixture(scope="session")
def chats(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a base model with a chat template and no weights, written once."""
    return cache(lambda template: write_chat(tiny_base, tmp_path_factory.mktemp(template), template))


@pytest.fixture(scope="session")
def servers(chats: Callable[[str], Path]) -> Callable[[str], PreTrainedTokenizerFast]:
    """The tokenizer of a base model as any server uses it."""
    return cache(lambda template: load_tokenizer(chats(template)))


@pytest.fixture(scope="session")
def tokenizers(chats: Callable[[str], Path]) -> Callable[[str], ChatTokenizer]:
    return cache(lambda template: ChatTokenizer(chats(template)))
