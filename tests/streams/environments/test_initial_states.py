"""Episodes that began in another state than their task's own: a toolbox brings it back from a file named by content."""

import hashlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from ratchet_client.event_fields import state_reference
from ratchet_client.events import Task
from ratchet_client.messages import assistant, call
from streams.calls.labels import read_labels
from streams.environments.toolbox.environment import Toolbox
from streams.environments.toolbox.settings import ToolboxSettings
from streams.errors import SandboxError
from streams.sandboxes.session import ReplaySession
from tests.builders.toolboxes import box

TOOLBOX = """name = "notes"
functions = "tools.py"
check = "domain:check"
initial_state = "shop/notes.txt"
"""
TOOLS = '''
import os
from pathlib import Path


def look() -> str:
    """Read what is noted."""
    return Path(os.environ["TOOLBOX_STATE"], "shop", "notes.txt").read_text()
'''
DOMAIN = """
def check(task, messages):
    return {"success": True}

def prepare(task):
    with open("made.txt", "w") as file:
        file.write("made")
"""
RECORDED = b"as production had it"
STATE = f"sha256:{hashlib.sha256(RECORDED).hexdigest()}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = box(tmp_path / "notes", TOOLBOX, tools__py=TOOLS, domain__py=DOMAIN)
    (made / "state" / "shop").mkdir(parents=True)
    (made / "state" / "shop" / "notes.txt").write_text("the task's own")
    (made / "state" / "shop" / "notes.txt-wal").write_text("of the task's own")
    (tmp_path / "states").mkdir()
    (tmp_path / "states" / STATE.removeprefix("sha256:")).write_bytes(RECORDED)
    return made


def seen(session: ReplaySession, state: str | None) -> str:
    session.reset(Task(environment="toolbox", task_id="one", state=state))
    return session.step(assistant(None, call("look", "{}", "c1"))).text


def test_an_episode_begins_in_the_state_that_its_task_names_and_the_next_in_its_own(folder: Path) -> None:
    settings = ToolboxSettings(folder=folder, states=folder.parent / "states")
    assert settings.readable() == (folder, folder.parent / "states")
    session = ReplaySession(Toolbox(settings), 60)
    assert [seen(session, state) for state in (STATE, None, STATE)] == [
        "as production had it",
        "the task's own",
        "as production had it",
    ]
    assert not list(Path(session.playing._state).rglob("*-wal"))  # type: ignore[union-attr]
    session.close()


def test_a_state_that_is_missing_or_was_changed_is_refused_and_so_is_one_of_an_environment_without(
    folder: Path,
) -> None:
    states = folder.parent / "states"
    session = ReplaySession(Toolbox(ToolboxSettings(folder=folder, states=states)), 60)
    with pytest.raises(SandboxError, match="cannot be read in"):
        seen(session, f"sha256:{'0' * 64}")
    (states / STATE.removeprefix("sha256:")).write_bytes(b"something else")
    with pytest.raises(SandboxError, match="is not what its name says"):
        seen(session, STATE)
    session.close()
    without = ReplaySession(Toolbox(ToolboxSettings(folder=folder)), 60)
    with pytest.raises(SandboxError, match="restores no initial states"):
        seen(without, STATE)
    assert seen(without, None) == "the task's own"
    without.close()


@pytest.mark.parametrize("place", ["/etc/passwd", "../outside", "shop/../../x", "", "."])
def test_the_file_of_a_state_lies_in_the_state_folder(tmp_path: Path, place: str) -> None:
    definition = TOOLBOX.replace("shop/notes.txt", place)
    folder = box(tmp_path / "box", definition, tools__py=TOOLS, domain__py=DOMAIN)
    with pytest.raises(SandboxError, match="initial_state"):
        Toolbox(ToolboxSettings(folder=folder))


def test_a_reference_is_a_hash_and_comes_with_a_call_by_a_header() -> None:
    assert state_reference(STATE) == STATE
    assert [state_reference(text) for text in (None, "", "sha256:0", STATE.upper(), f"{STATE}\n")] == [None] * 5
    assert read_labels({"x-ratchet-state": STATE}, {}).state == STATE
    assert read_labels({"x-ratchet-state": "yesterday's"}, {}).state is None
    with pytest.raises(ValidationError):
        Task(environment="toolbox", task_id="one", state="sha256:../../etc/passwd")
    assert b"state" not in Task(environment="toolbox", task_id="one").to_json()
