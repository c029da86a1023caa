"""The files of a toolbox, and the settings that name its folder."""

from pathlib import Path

import pytest

from ratchet_client.errors import ConfigurationError
from ratchet_client.messages import Message, assistant, user
from streams.environments.registry import needs_of, other_names_of
from streams.environments.toolbox.definition import ToolboxDefinition
from streams.environments.toolbox.scaffold import write_toolbox
from streams.errors import SandboxError
from streams.task_ids import task_of
from tests.builders.toolboxes import box


@pytest.mark.parametrize(
    ("definition", "lines", "reason"),
    [
        ("name = 1", "", "toolbox.toml is wrong: name"),
        ('name = "a"\ncheck = "c:d"', "", "name the tools by one of mcp"),
        ('name = "a"\ncheck = "c"\nfunctions = "t.py"', "", "toolbox.toml is wrong: check"),
        ('name = "a"\ncheck = "c:d"\nfunctions = "t.py"\nstatless = true', "", "toolbox.toml is wrong: statless"),
        ('name = "a"\ncheck = "c:d"\nfunctions = "t.py"\nstateless = true', "", "stateless says something of an MCP"),
        ("", '{"task_id": "a"}', "tasks.jsonl, line 2, is wrong: fold"),
        ("", '{"task_id": "a", "fold": "train", "opening": ""}', "an opening is a text"),
        ("", '{"task_id": "a", "fold": "train", "opening": [{"role": "tool", "content": ""}]}', "an opening is a text"),
        (
            "",
            '{"task_id": "a", "fold": "train", "opening": "b", "demonstration": [{"role": "tool", "content": ""}]}',
            "the assistant's messages only",
        ),
        ("", '{"task_id": "a", "fold": "train", "opening": "b", "solvable": false}', "are in the fold 'unsolvable'"),
        ("", '{"task_id": "a", "fold": "unsolvable", "opening": "b"}', "are in the fold 'unsolvable'"),
        (
            "",
            '{"task_id": "a", "fold": "unsolvable", "opening": "b", "solvable": false, "demonstration": ["c"]}',
            "that cannot be solved has no demonstration",
        ),
        ("", '{"task_id": "a", "fold": "train", "opening": "b"}\n' * 2, "several tasks of .* are called 'a'"),
    ],
)
def test_a_faulty_file_is_refused_by_its_name_and_place(
    definition: str, lines: str, reason: str, tmp_path: Path
) -> None:
    folder = box(tmp_path / "x", definition or 'name = "a"\ncheck = "c:d"\nfunctions = "t.py"')
    (folder / "tasks.jsonl").write_text("\n" + lines)
    with pytest.raises(SandboxError, match=reason):
        ToolboxDefinition.read(folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"toolbox\.toml cannot be read"):
        ToolboxDefinition.read(tmp_path)
    with pytest.raises(ConfigurationError, match="not empty"):
        write_toolbox(box(tmp_path / "x", ""), "x", "mcp")


def test_a_relative_folder_starts_where_ratchet_was_started(tmp_path: Path) -> None:
    assert needs_of("toolbox", {"folder": "mine"}, tmp_path).readable == (tmp_path / "mine",)
    assert needs_of("toolbox", {"folder": str(tmp_path)}, Path("/")).readable == (tmp_path,)
    assert needs_of("bfcl", {}).readable == ()
    with pytest.raises(ConfigurationError, match=r"\[branching.environments.toolbox\]"):
        needs_of("toolbox", {})


ALIKE = (
    {"task_id": "a", "fold": "train", "opening": "Hello."},
    {"task_id": "b", "fold": "test", "opening": "Secret."},
    {"task_id": "c", "fold": "train", "opening": [{"role": "user", "content": "Same."}]},
    {"task_id": "d", "fold": "dev", "opening": "Same."},
)


@pytest.mark.parametrize("agents", ["", "You serve."])
def test_a_task_is_found_by_the_hash_of_its_opening(agents: str, tmp_path: Path) -> None:
    definition = ToolboxDefinition.read(
        box(tmp_path / "x", 'name = "x"\ncheck = "c:d"\nfunctions = "t.py"\nsystem_prompt = "You serve."', *ALIKE)
    )
    system = (Message(role="developer", content=agents),) if agents else ()

    def begun(text: str) -> str:
        return task_of((*system, user(text), assistant("Yes?"), user("More.")))

    assert definition.task(begun("Hello.")) is definition.task("a")
    for reserved in ("b", begun("Secret."), begun("Unknown."), task_of((Message(role="system", content="No."),))):
        with pytest.raises(SandboxError, match=r"is not a task of the toolbox .*, or a reserved one"):
            definition.task(reserved)
    with pytest.raises(SandboxError, match=r"2 tasks .* begin alike, among them 'c' and 'd'.* x-ratchet-task"):
        definition.task(begun("Same."))
    named = other_names_of("toolbox", {"folder": str(tmp_path / "x")})
    assert {name: ids for name, ids in named.items() if name in map(begun, ("Hello.", "Same."))} == {
        begun("Hello."): ("a",),
        begun("Same."): ("c", "d"),
    }
    assert other_names_of("bfcl", {}) == {}
