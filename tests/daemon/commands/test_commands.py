"""The operator's commands over a real broker and a real record role, each in a process of its own."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from daemon.cli import app
from daemon.commands.export import _table
from learners.snapshots import build_snapshot, read_principals
from ratchet_client.events import RetractionEvent
from ratchet_client.messages import Message
from streams.kafka.broker import EmbeddedBroker
from streams.store.client import StoreClient
from streams.store.export import Moment
from tests.daemon.commands.recording import NOTHING_HELD_OUT, Ratchet, recording


@pytest.mark.slow
async def test_a_principal_revokes_consent(tmp_path: Path) -> None:
    with recording(tmp_path) as ratchet:
        ratchet.plays("ann")
        ratchet.plays("bob")
        before = await ratchet.caught_up()
        adapter = await ratchet.trains()
        report = json.loads(ratchet("forget", "--principal", "ann", "--reason", "a letter", "--json"))
        assert (report["episodes"], report["champion_saw"], report["next_parent"]) == (1, False, "base")
        assert [(one["adapter"], one["trajectories"]) for one in report["adapters"]] == [(adapter, 1)]
        marks = [entry for entry in json.loads(ratchet("history", "--json")) if entry["action"] == "retrain"]
        assert [(mark["subject"], mark["retraction"]) for mark in marks] == [(adapter, report["retraction"])]
        assert json.loads(ratchet("why", adapter, "--json"))["retrain"] == [report["retraction"]]

        ratchet.plays("ann-later")
        ratchet.plays("ann")
        await ratchet.caught_up()
        async with StoreClient(ratchet.store_url) as client:
            snapshot = await build_snapshot(client, NOTHING_HELD_OUT, tmp_path / "snapshots")
        assert read_principals(snapshot.folder) == {"bob": 1, "ann-later": 1}
        assert snapshot.manifest.retracted_as_of == report["sequence"] > before
        assert "no adapter saw" in ratchet("forget", "--principal", "eve")


@pytest.mark.nightly
async def test_where_principals_have_keys_a_retraction_is_signed_with_that_principals_key(tmp_path: Path) -> None:
    keys = json.dumps({"ann": "key of ann", "bob": "key of bob"})
    with recording(tmp_path, RATCHET_ADMISSION__PRINCIPALS=keys) as ratchet:
        ratchet.plays("ann", key="key of ann")
        await ratchet.caught_up()
        assert json.loads(ratchet("forget", "--principal", "ann", "--json"))["episodes"] == 1
        # A principal without a key is forgotten by the operator's own.
        assert json.loads(ratchet("forget", "--principal", "eve", "--json"))["episodes"] == 0
        (tmp_path / "operator.key").write_bytes(b"a stranger's key")
        refusal = ratchet("forget", "--principal", "eve", status=1)
        assert "the principal is not known" in refusal
        assert "admission.principals" in refusal
        (tmp_path / "operator.key").unlink()
        assert "operator.key cannot be read" in ratchet("forget", "--principal", "eve", status=1)


@pytest.mark.nightly
async def test_without_keys_a_strangers_retraction_is_refused_unless_a_setting_allows_it(tmp_path: Path) -> None:
    retraction = RetractionEvent(principal="ann", reason="a stranger's").to_json()
    refusing, allowing = tmp_path / "refusing", tmp_path / "allowing"
    for home, variables in ((refusing, {}), (allowing, {"RATCHET_ADMISSION__UNSIGNED_RETRACTIONS": "true"})):
        home.mkdir()
        with recording(home, **variables) as ratchet:
            ratchet.publish(retraction)
            await ratchet.caught_up()
            letters = json.loads(ratchet("dead-letters", "list", "--json"))
            refused = ["`ratchet forget` signs it" in letter["error"] for letter in letters]
            assert refused == ([True] if home == refusing else [])
            async with StoreClient(ratchet.store_url) as client:
                stored = await client.query("SELECT principal FROM retractions")
                assert (await client.status()).authenticated is False
            assert stored.num_rows == (0 if home == refusing else 1)
            assert "events are not authenticated" in (home / "record.log").read_text()


@pytest.mark.nightly
async def test_earlier_moments_are_listed_and_exported(tmp_path: Path) -> None:
    with recording(tmp_path) as ratchet:
        ratchet.plays("ann")
        sequence = str(await ratchet.caught_up())
        then = ratchet("transitions", "--as-of", sequence, "--json")
        ratchet("export", "--as-of", sequence, "--to", "then.parquet")
        ratchet.plays("bob")
        await ratchet.caught_up()
        assert ratchet("transitions", "--as-of", sequence, "--json") == then
        told = json.loads(ratchet("export", "--as-of", sequence, "--to", "now.parquet", "--json"))
        assert (told["rows"], told["withdrawn"]) == (2, 0)
        assert pq.read_table(tmp_path / "now.parquet").equals(pq.read_table(tmp_path / "then.parquet"))
        assert len(json.loads(ratchet("transitions", "--json", "--origin", "production"))) == 4
        assert len(json.loads(ratchet("transitions", "--json", "--limit", "3"))) == 3
        assert "has come to sequence" in ratchet("transitions", "--as-of", "999999", status=1)
        assert "2 transitions as of" in ratchet("export", "--as-of", sequence, "--to", "then.parquet")


@pytest.mark.nightly
async def test_dead_letters_are_listed_shown_and_replayed(tmp_path: Path) -> None:
    with recording(tmp_path) as ratchet:
        ratchet.publish(b"{not json, but [/secret]", b"")
        await ratchet.caught_up()
        letters = json.loads(ratchet("dead-letters", "list", "--json"))
        assert {letter["verdict"] for letter in letters} == {"dead-letter"}
        assert not any("secret" in str(letter) for letter in letters)
        assert "secret" not in ratchet("dead-letters", "list")
        assert "[/secret]" in ratchet("dead-letters", "list", "--show", "--limit", "5")
        assert ratchet("dead-letters", "list", "--verdict", "quarantine", "--json").strip() == "[]"
        position = next(letter["position"] for letter in letters if letter["size"])

        chosen = json.loads(ratchet("dead-letters", "replay", "--position", position, "--dry-run", "--json"))
        assert chosen == {"chosen": [position], "replayed": 0, "dry_run": True}
        assert "1 records were published again" in ratchet("dead-letters", "replay", "--position", position)
        await ratchet.caught_up()
        letters = json.loads(ratchet("dead-letters", "list", "--json"))
        assert {letter["position"] for letter in letters if letter["replayed"]} == {position}
        assert [letter["replay_of"] for letter in letters if "replay_of" in letter] == [position]
        again = json.loads(ratchet("dead-letters", "replay", "--error", "JSON", "--dry-run", "--json"))
        assert position not in again["chosen"]
        assert "dead-letter record not found at ratchet.events/0/77" in ratchet(
            "dead-letters", "replay", "--position", "ratchet.events/0/77", status=1
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("forget", "--principal", "ann"),
        ("transitions",),
        ("export", "--to", "file.parquet"),
        ("export", "--to", "file.jsonl", "--format", "chat-jsonl"),
    ],
)
def test_without_a_record_role_one_line_says_what_to_do(arguments: tuple[str, ...], tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        assert "is the record role running" in Ratchet(broker, tmp_path)(*arguments, status=1)
    assert not list(tmp_path.glob("file*"))


@pytest.mark.nightly
def test_without_a_cluster_and_a_running_ratchet_an_error_says_that_the_log_is_unknown(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        ratchet = Ratchet(broker, tmp_path, RATCHET_KAFKA__BOOTSTRAP="")
        assert "is `ratchet run` up" in ratchet("dead-letters", "list", status=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("forget",),
        ("forget", "--principal", ""),
        ("transitions", "--as-of", "-1"),
        ("transitions", "--origin", "moon"),
        ("export", "--as-of", "3"),
        ("export", "--to", "no/such/folder/file.parquet"),
        ("export", "--to", "-"),
        ("export", "--to", "file", "--all"),
        ("export", "--to", "file", "--split", "train"),
        ("export", "--to", "file", "--format", "csv"),
        ("export", "--to", "file.jsonl"),
        ("export", "--to", "file.JSONL.gz"),
        ("export", "--to", "file.json", "--format", "parquet"),
        ("export", "--to", "file.parquet", "--format", "chat-jsonl"),
        ("export", "--to", "file.parquet", "--format", "atif"),
        ("export", "--to", "file", "--format", "atif", "--origin", "branch"),
        ("export", "--to", "-", "--format", "chat-jsonl", "--json"),
        ("import", "no-such-file", "--format", "atif", "--principal", "ann"),
        ("import", "-", "--format", "atif"),
        ("import", "-", "--format", "atif", "--principal", ""),
        ("import", "-", "--format", "atif", "--principal", "ann", "--success", "--failed"),
        ("import", "-", "--format", "atif", "--principal", "ann", "--success", "--outcome-field", "x"),
        ("import", "-", "--format", "csv", "--principal", "ann"),
        ("dead-letters", "replay"),
        ("dead-letters", "replay", "--all", "--error", "JSON"),
        ("dead-letters", "replay", "--position", "yesterday"),
        ("dead-letters", "list", "--verdict", "guilty"),
    ],
)
def test_wrong_usage_exits_with_two(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_an_import_asks_for_a_name_that_its_first_conversation_needs(tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]}\n')
    named = ("import", str(file), "--format", "chat-jsonl", "--principal", "ann", "--dry-run", "--agent", "helpdesk")
    result = CliRunner().invoke(app, named)
    assert result.exit_code == 2
    assert "--environment" in result.output
    assert "line 1" not in result.output
    assert "--skip-invalid" not in result.output
    result = CliRunner().invoke(app, (*named, "--environment", "shop"))
    assert result.exit_code == 0
    assert "1 have no outcome, so they are not trusted" in result.output
    told = CliRunner().invoke(app, (*named, "--environment", "shop", "--json"))
    assert json.loads(told.stdout)["without_outcome"] == 1


def test_episodes_are_told_apart_in_a_narrow_table_of_transitions() -> None:
    ids = ["0199aaaa-0000-7000-8000-00000000000" + end for end in "12"] + ["short"]
    row = {"sequence": 100_000, "origin": "production", "step": 1, "actor_kind": "policy", "task_id": "a/long/task" * 4}
    rows = [row | {"episode_id": one, "action": Message(role="assistant", content="go " * 40).to_json()} for one in ids]
    console = Console(width=80, file=io.StringIO(), record=True)
    moment = Moment(as_of=1, retracted_as_of=1, origin=None, rows=3, revoked=0)
    console.print(_table(pa.Table.from_pylist(rows), moment))
    shown = console.export_text()
    assert [end in shown for end in ("…000000000001", "…000000000002", "short")] == [True] * 3
