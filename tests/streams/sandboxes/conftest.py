"""Real sandboxes: a Java virtual machine in the test's own process, and worker processes."""

import pytest

from streams.events import Task


@pytest.fixture
def task() -> Task:
    return Task(environment="textworld_express", task_id="twc/train/17", seed=17)
