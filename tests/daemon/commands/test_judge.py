"""`ratchet judge`: from opinions to outcomes, and the agreement that the status shows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from daemon.cli import app
from ratchet_client.events import OutcomeEvent
from streams.store.client import StoreClient
from streams.store.queries.trust import TRUSTED_NOW
from streams.store.status import status
from tests.builders.episodes import episode
from tests.builders.stored import Log, ServedStore, column
from tests.daemon.commands.recording import recording
from tests.served import served


@pytest.fixture
def judging(served_store: ServedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of a judge that sees a success where the agent says go, abstains at sit, and prefers going."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RATCHET_STORE__PORT", served_store.url.rpartition(":")[2])
    (tmp_path / "rubric.txt").write_text("It went.")
    log = Log(served_store.store)
    for name, action in (("goes", "go"), ("runs", "run"), ("sits", "sit")):
        log.publish(*episode(name, actor="policy", action=action)[:2])
    with served(judging_model(), lifespan="off") as url:
        yield url


def judging_model() -> FastAPI:
    model = FastAPI()

    @model.post("/v1/chat/completions")
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        data = json.loads(body["messages"][1]["content"])
        said = {name: json.dumps(messages) for name, messages in data.items()}
        if "episode" in data:
            verdict = "success" if "go 0" in said["episode"] else "abstain" if "sit" in said["episode"] else "failure"
            content = {"reason": "seen", "verdict": verdict, "score": float(verdict == "success")}
        else:
            content = {"reason": "seen", "better": "first" if "go 0" in said["first"] else "second"}
        return {"choices": [{"message": {"content": json.dumps(content)}, "finish_reason": "stop"}]}

    return model


def judged(url: str, *options: str) -> dict[str, Any]:
    arguments = [
        "judge",
        "--rubric",
        "rubric.txt",
        "--model",
        "big",
        "--base-url",
        url,
        "--dry-run",
        "--json",
        *options,
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_opinions_become_outcomes_of_the_model_which_alone_trust_nothing(
    judging: str, served_store: ServedStore
) -> None:
    report = judged(judging)
    assert (report["judged"], report["successes"], report["abstained"], report["published"]) == (3, 1, 1, 0)
    outcomes = [OutcomeEvent.model_validate(each) for each in report["outcomes"]]
    assert {(each.episode_id, each.verifier, each.success) for each in outcomes} == {
        ("goes", "model:big", True),
        ("runs", "model:big", False),
    }
    assert [each.event_id for each in outcomes] == [each["event_id"] for each in judged(judging)["outcomes"]]
    log = Log(served_store.store)
    log._next["ratchet.events"] = 6
    log.publish(*outcomes)
    assert column(served_store.store, TRUSTED_NOW) == []
    verified = OutcomeEvent(episode_id="goes", verifier="game", success=True, score=1.0)
    log.publish(verified, verified.model_copy(update={"event_id": "x", "episode_id": "runs"}))
    assert column(served_store.store, TRUSTED_NOW) == ["goes"]
    figures = status(served_store.store).judges["model:big"]
    assert (figures.episodes, figures.accuracy, figures.kappa) == (2, 0.5, 0.0)
    shown = CliRunner().invoke(app, ["judge", "--agreement"]).stdout
    assert "agrees on 50% of 2 episodes" in shown
    assert json.loads(CliRunner().invoke(app, ["judge", "--agreement", "--json"]).stdout)["model:big"]["kappa"] == 0.0


def test_pairs_of_one_task_make_the_better_one_a_success(judging: str) -> None:
    report = judged(judging, "--pairwise", "--episode", "goes", "--episode", "runs")
    assert {each["episode_id"]: each["success"] for each in report["outcomes"]} == {"goes": True, "runs": False}


def test_a_judge_without_a_rubric_is_wrong_usage(judging: str) -> None:
    assert CliRunner().invoke(app, ["judge", "--model", "big"]).exit_code == 2


@pytest.mark.slow
async def test_opinions_are_signed_published_and_stored_as_those_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "rubric.txt").write_text("It went.")
    keys = json.dumps({"goes": "key of goes"})
    with (
        recording(tmp_path, RATCHET_ADMISSION__PRINCIPALS=keys) as ratchet,
        served(judging_model(), lifespan="off") as url,
    ):
        steps = episode("goes", actor="policy")[:-1]
        ratchet.publish(*(step.to_json() for step in steps), key="key of goes")
        await ratchet.caught_up()
        asked = ("judge", "--rubric", "rubric.txt", "--model", "big", "--base-url", url, "--json")
        for _ in range(2):
            report = json.loads(ratchet(*asked).splitlines()[-1])
            assert (report["judged"], report["published"]) == (1, 1)
            await ratchet.caught_up()
        async with StoreClient(ratchet.store_url) as store:
            rows = (await store.query("SELECT episode_id, verifier, success, evidence FROM outcomes")).to_pylist()
            trusted = (await store.query("SELECT episode_id FROM trusted")).to_pylist()
            refused = (await store.query("SELECT reason FROM quarantined")).to_pylist()
    assert [(row["episode_id"], row["verifier"], row["success"]) for row in rows] == [("goes", "model:big", True)]
    assert json.loads(rows[0]["evidence"])["reason"] == "seen"
    # An opinion alone trusts nothing.
    assert (trusted, refused) == ([], [])
