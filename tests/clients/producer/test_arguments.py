"""What is wrong with a producer's arguments is said when it is made; what is wrong with an event breaks no agent."""

from pathlib import Path
from typing import Any

import pytest

from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Actor, Task
from ratchet_client.producer import Producer


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"compression": "brotli"}, "compression: Input should be 'gzip'"),
        ({"bootstrap": ["kafka:9092"]}, "bootstrap: Input should be a valid string"),
        ({"key": 17}, "key: Input should be a valid bytes"),
        ({"spool": 17}, "spool: Input is not a valid path"),
        ({"memory_bytes": -1}, "memory_bytes: Input should be greater"),
        ({"security": {"protocol": "none"}}, "security"),
        ({"durable": True}, "a durable producer needs a folder"),
    ],
)
def test_arguments_that_are_wrong_are_told_at_once(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Producer(**{"bootstrap": "127.0.0.1:9", "agent": "agent", "principal": "tenant", **wrong})


def test_an_object_that_fails_when_it_is_read_is_dropped_and_breaks_no_agent(tmp_path: Path) -> None:
    class Lazy:
        def model_dump(self, *, exclude_none: bool) -> Any:
            raise OSError("the connection is gone")

    with Producer("127.0.0.1:9", agent="agent", principal="tenant", spool=str(tmp_path), flush_timeout_s=0) as producer:  # type: ignore[arg-type]  # a text names a folder as well
        episode = producer.episode(Task(environment="shop", task_id="orders/17"), Actor(kind="policy"))
        assert not episode.step([Lazy()], {"role": "assistant", "content": "hello"}, [])
        assert producer.stats().dropped == 1
