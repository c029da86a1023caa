"""The environment `toolbox`, in this process: its files, its state folder, its tools of both kinds, its checks."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import Message, assistant, call, user
from streams.environments.environment import Restore
from streams.environments.tool_definitions import Tool
from streams.environments.toolbox.environment import Toolbox
from streams.environments.toolbox.scaffold import Kind, write_toolbox
from streams.environments.toolbox.settings import ToolboxSettings
from streams.errors import SandboxError
from tests.builders.toolboxes import box

SQLITE_SERVER = '''
import os, sqlite3, sys
from mcp.server.mcpserver import MCPServer
server = MCPServer("counter")
database = sqlite3.connect("counter.sqlite", check_same_thread=False)
database.execute("PRAGMA journal_mode = WAL")
database.execute("CREATE TABLE IF NOT EXISTS counted (number)")
database.commit()

@server.tool()
def count(number: int) -> str:
    """Count."""
    database.execute("INSERT INTO counted VALUES (?)", (number,))
    database.commit()
    return f"{database.execute('SELECT sum(number) FROM counted').fetchone()[0]} at {os.environ['TOOLBOX_NOW']}"

@server.tool()
def leave() -> str:
    """End."""
    print("I am leaving", file=sys.stderr, flush=True)
    os._exit(3)

server.run()
'''
CHECK = """
import json, os, sqlite3, sys
told = json.load(sys.stdin)
database = sqlite3.connect(os.environ["TOOLBOX_STATE"] + "/counter.sqlite")
total = database.execute("SELECT sum(number) FROM counted").fetchone()[0]
print("looking")
print(json.dumps({"success": total == told["task"]["data"], "score": 0.5 if told["messages"][-1]["content"] else 0}))
"""


def task(task_id: str, seed: int = 0) -> Task:
    return Task(environment="toolbox", task_id=task_id, seed=seed)


def calls(name: str, identity: str = "call_1", **arguments: object) -> Message:
    return assistant(None, call(name, json.dumps(arguments), identity))


@pytest.fixture
def opened() -> Iterator[Callable[[Path], Toolbox]]:
    sessions: list[Toolbox] = []

    def open_one(folder: Path) -> Toolbox:
        sessions.append(Toolbox(ToolboxSettings(folder=folder)))
        return sessions[-1]

    yield open_one
    for session in sessions:
        session.close()


@pytest.fixture
def todos(tmp_path: Path, opened: Callable[[Path], Toolbox]) -> Toolbox:
    write_toolbox(tmp_path / "todos", "todos", "functions")
    return opened(tmp_path / "todos")


@pytest.mark.parametrize("kind", ["functions", "mcp"])
def test_each_demonstration_of_a_new_toolbox_solves_its_task_and_silence_does_not(
    kind: Kind, tmp_path: Path, opened: Callable[[Path], Toolbox]
) -> None:
    write_toolbox(tmp_path / "todos", "todos", kind)
    session = opened(tmp_path / "todos")
    listed = [*session.task_list("todos", "train"), *session.task_list("todos", "dev")]
    assert len(listed) == 12
    for each in listed:
        first = session.reset(each)
        assert [message.role for message in first.messages] == ["user"]
        assert sorted(Tool.of(offered).name for offered in first.tools or ()) == [
            "add_todo",
            "finish_todo",
            "list_todos",
        ]
        for action in session.demonstration(each):
            last = session.step(action)
            assert last.understood
        assert (last.messages, last.done, last.success, last.score) == ((), True, True, 1.0)
        session.reset(each)
        assert not session.step(assistant("Done.")).success


def test_a_state_comes_back_by_its_snapshot_after_anything_that_followed(todos: Toolbox) -> None:
    todos.reset(task("todos/add-1"))
    before, snapshot = todos.fingerprint(), todos.snapshot()
    added = todos.step(calls("add_todo", title="sleep", due="Sunday"))
    after = todos.fingerprint()
    assert after != before
    todos.reset(task("todos/finish-1"))
    todos.restore(snapshot)
    assert todos.fingerprint() == before
    assert todos.step(calls("add_todo", title="sleep", due="Sunday")) == added
    assert todos.fingerprint() == after
    with pytest.raises(SandboxError, match="not a snapshot of a toolbox"):
        todos.restore("yesterday")


def test_unsolvable_tasks_are_played_and_in_no_list_of_others(
    tmp_path: Path, opened: Callable[[Path], Toolbox]
) -> None:
    write_toolbox(tmp_path / "todos", "todos", "functions")
    lines = (tmp_path / "todos" / "tasks.jsonl").read_text()
    canary = {"task_id": "todos/never", "fold": "unsolvable", "opening": "Fly.", "setup": "domain:prepare"}
    data = {"data": {"todos": [], "wanted": [["fly", "today", 0], ["fly", "today", 0]]}, "solvable": False}
    (tmp_path / "todos" / "tasks.jsonl").write_text(lines + json.dumps(canary | data) + "\n")
    session = opened(tmp_path / "todos")
    assert session.unsolvable("todos") == (task("todos/never"),)
    assert session.unsolvable("others") == ()
    assert task("todos/never") not in session.task_list("todos", "train")
    with pytest.raises(SandboxError, match="with the folds dev, train"):
        session.task_list("todos", "unsolvable")
    session.reset(task("todos/never"))
    assert not session.step(assistant("I have flown.")).success


def test_each_call_is_answered_and_a_faulty_one_keeps_none_from_being_executed(todos: Toolbox) -> None:
    todos.reset(task("todos/add-1"))
    answer = todos.step(
        assistant(
            "I try.",
            call("fly", "{}", "a"),
            call("add_todo", '{"broken', "b"),
            call("add_todo", '{"title": "sleep"}', "c"),
            call("finish_todo", '{"number": 99}', "d"),
            call("add_todo", '{"title": "sleep", "due": "Sunday"}', "e"),
        )
    )
    assert not answer.understood
    texts = {message.tool_call_id: message.text for message in answer.messages}
    assert list(texts) == ["a", "b", "c", "d", "e"]
    assert "There is no tool 'fly'" in texts["a"]
    assert "not valid JSON" in texts["b"]
    assert "due" in texts["c"]
    assert texts["d"] == '{"error": "There is no to-do 99."}'
    assert texts["e"] == '{"number": 1}'
    assert todos.step(calls("finish_todo", number=99)).understood


def test_what_a_function_raises_is_its_answer_and_it_knows_its_session(
    tmp_path: Path, opened: Callable[[Path], Toolbox]
) -> None:
    tools = '''
import os
from datetime import date

async def raising(when: date) -> str:
    """Raise."""
    raise ValueError(f"not on {when:%d}")

def where() -> list[str]:
    """Tell."""
    there = os.getcwd() == os.environ["TOOLBOX_STATE"]
    return [os.environ["TOOLBOX_SEED"], os.environ["TOOLBOX_NOW"], str(there)]

def leaving() -> None:
    raise SystemExit(1)
'''
    definition = (
        'name = "f"\nfunctions = "tools.py"\ncheck = "tools:where"\nnow = 2026-01-02T03:04:05Z\nmax_steps = 3\n'
    )
    session = opened(box(tmp_path / "f", definition, tools__py=tools))
    working = Path.cwd(), dict(os.environ)
    session.reset(task("one", seed=7))
    assert session.step(calls("raising", when="2026-01-31")).text == '{"error": "not on 31"}'
    assert session.step(calls("where")).text == '["7", "2026-01-02T03:04:05+00:00", "True"]'
    assert (Path.cwd(), dict(os.environ)) == working
    with pytest.raises(SandboxError, match=r"the check of the toolbox .* says"):
        session.step(calls("leaving"))


def test_a_server_that_keeps_its_connection_is_restarted_on_each_state_and_a_command_checks_it(
    tmp_path: Path, opened: Callable[[Path], Toolbox]
) -> None:
    definition = 'name = "c"\nmcp = ["python", "server.py"]\ncheck = ["python", "check.py"]\nnow = "noon"\n'
    one = {"task_id": "one", "fold": "train", "opening": "Count to 5.", "data": 5, "now": "dawn"}
    session = opened(box(tmp_path / "c", definition, one, server__py=SQLITE_SERVER, check__py=CHECK))
    session.reset(task("one"))
    assert session.step(calls("count", number=2)).text == "2 at dawn"
    snapshot, before = session.snapshot(), session.fingerprint()
    assert session.step(calls("count", number=9)).text == "11 at dawn"
    session.restore(snapshot)
    assert session.fingerprint() == before
    assert session.step(calls("count", number=3)).text == "5 at dawn"
    wrong = session.step(calls("count", number="x"))
    assert not wrong.understood
    assert "valid integer" in wrong.text
    last = session.step(assistant("Five."))
    assert (last.done, last.success, last.score) == (True, True, 0.5)
    session.restore(snapshot)
    with pytest.raises(SandboxError, match=r"ended during leave\. It last said: I am leaving"):
        session.step(calls("leave"))


def test_a_shared_server_that_ended_is_started_again_for_the_next_call(
    tmp_path: Path, opened: Callable[[Path], Toolbox]
) -> None:
    server = """
import os
from pathlib import Path
from mcp.server.mcpserver import MCPServer
server = MCPServer("notes")

@server.tool()
def write(text: str) -> str:
    with open("notes", "a") as notes:
        notes.write(text)
    if text == "end":
        os._exit(1)
    return Path(os.environ["TOOLBOX_STATE"], "notes").read_text()

server.run()
"""
    definition = 'name = "n"\nmcp = ["python", "server.py"]\nstateless = true\ncheck = ["true"]\n'
    folder = box(tmp_path / "n", definition, server__py=server)
    one, two = opened(folder), opened(folder)
    one.reset(task("one"))
    two.reset(task("one"))
    assert [one.step(calls("write", text="a")).text, two.step(calls("write", text="b")).text] == ["a", "b"]
    with pytest.raises(SandboxError, match="ended during write"):
        one.step(calls("write", text="end"))
    assert two.step(calls("write", text="c")).text == "bc"
    one.reset(task("one"))
    assert one.step(calls("write", text="d")).text == "d"


def test_a_server_that_does_not_start_is_refused_with_what_it_last_said(
    tmp_path: Path, opened: Callable[[Path], Toolbox]
) -> None:
    definition = 'name = "b"\nmcp = ["python", "server.py"]\ncheck = ["true"]\n'
    session = opened(box(tmp_path / "b", definition, server__py="import no_such_package\n"))
    with pytest.raises(SandboxError, match=r"did not start: Connection closed\. It last said: (.|\n)*no_such_package"):
        session.reset(task("one"))
    definition = 'name = "b"\nmcp = ["no-such-program"]\ncheck = ["true"]\n'
    session = opened(box(tmp_path / "n", definition))
    with pytest.raises(SandboxError, match=r"'no-such-program' did not start: .*No such file"):
        session.reset(task("one"))


def test_a_setup_is_a_folder_copied_over_the_state_or_a_program_run_in_it(
    tmp_path: Path, opened: Callable[[Path], Toolbox]
) -> None:
    tools = '''
from pathlib import Path

def files() -> dict[str, str]:
    """All files."""
    return {str(path): path.read_text() for path in sorted(Path().rglob("*")) if path.is_file()}

def check(messages) -> bool:
    return messages[0]["content"] == "Be brief." and messages[-1]["content"] == "It is so."
'''
    definition = (
        'name = "s"\nfunctions = "tools.py"\ncheck = "tools:check"\nsystem_prompt = "Be brief."\nstate = "first"\n'
    )
    lines = (
        {"task_id": "folder", "fold": "train", "opening": "a", "setup": "over"},
        {
            "task_id": "command",
            "fold": "train",
            "opening": [{"role": "user", "content": "b"}],
            "setup": [
                "python",
                "-c",
                "import json, sys; open('note', 'w').write(json.load(sys.stdin)['task']['data'])",
            ],
            "data": "hello",
        },
        {"task_id": "broken", "fold": "train", "opening": "c", "setup": ["python", "-c", "raise OSError('no luck')"]},
        {"task_id": "absent", "fold": "train", "opening": "d", "setup": "nowhere"},
        {"task_id": "reserved", "fold": "test", "opening": "e"},
    )
    folder = box(tmp_path / "s", definition, *lines, tools__py=tools)
    for name, text in {"first/a": "1", "first/inner/b": "2", "over/inner/b": "3", "over/a/c": "4"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    session = opened(folder)
    session.reset(task("folder"))
    assert json.loads(session.step(calls("files")).text) == {"a/c": "4", "inner/b": "3"}
    assert session.step(assistant("It is so.")).success
    session.reset(task("command"))
    assert json.loads(session.step(calls("files")).text) == {"a": "1", "inner/b": "2", "note": "hello"}
    for name, reason in {
        "broken": "no luck",
        "absent": "not a folder",
        "reserved": "reserved",
        "x": "not a task",
    }.items():
        with pytest.raises(SandboxError, match=reason):
            session.reset(task(name))


def test_capabilities_and_harness_are_what_the_file_says(tmp_path: Path, opened: Callable[[Path], Toolbox]) -> None:
    definition = 'name = "a"\ncheck = "c:d"\nfunctions = "t.py"\nmax_steps = 2\nmax_tokens = 9\n'
    tools = "def f() -> int:\n    return 1\n"
    session = opened(box(tmp_path / "x", definition, t__py=tools))
    assert session.capabilities.restores == (Restore.SNAPSHOT, Restore.REPLAY)
    assert (session.harness.max_steps, session.harness.max_tokens, session.harness.reply) == (2, 9, "message")
    session = opened(box(tmp_path / "y", f"{definition}deterministic = false\n", t__py=tools))
    assert session.capabilities.restores == (Restore.SNAPSHOT,)
    assert not session.capabilities.deterministic


def test_what_follows_the_end_is_answered(todos: Toolbox) -> None:
    todos.reset(task("todos/due-1"))
    todos.step(assistant("Nothing."))
    late = todos.step(calls("list_todos"))
    assert (late.done, late.understood) == (True, False)
    assert late.messages[0].tool_call_id == "call_1"
    assert todos.step(assistant("Hello?")).messages == (user("The conversation is over."),)
