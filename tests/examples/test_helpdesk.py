"""The support desk: its tasks, its tools, its check, its expert, and its agent as a process. The model is scripted."""

import json
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from examples.helpdesk import generate
from examples.helpdesk.check import judge, rows
from examples.helpdesk.desk import HERE, INSTRUCTIONS, Document, desk, opening, tasks
from examples.helpdesk.expert import demonstrate
from examples.helpdesk.server import Desk, Refused, call
from streams.environments.toolbox.definition import ToolboxDefinition
from streams.environments.toolbox.generated import generated_id, generated_task
from streams.trust.holdout import HoldoutSettings, Split
from tests.builders.helpdesk_model import HelpdeskModel, receipt_of
from tests.served import served

TASKS = tasks()
KINDS = sorted({task["data"]["kind"] for task in TASKS.values()})


def of_kind(kind: str) -> Document:
    return next(task for task in TASKS.values() if task["data"]["kind"] == kind and task["fold"] == "train")


def test_the_tasks_and_the_shop_are_what_the_generator_writes(tmp_path: Path) -> None:
    shop, written = generate.generate()
    shop.write(tmp_path / "shop.sqlite")
    assert written == [json.loads(line) for line in (HERE / "tasks.jsonl").read_text().splitlines()]
    assert rows(tmp_path / "shop.sqlite") == rows(HERE / generate.DATABASE)


def test_the_gate_has_tasks_enough_and_no_two_tasks_begin_alike() -> None:
    holdout = HoldoutSettings()
    held_out = [each for each in TASKS if "/train/" in each and holdout.split(each) is Split.SELECTION]
    assert len(held_out) >= 160
    assert len({task["opening"] for task in TASKS.values()}) == len(TASKS)


def test_some_tasks_are_impossible_and_some_take_a_wrong_turn_in_both_folds() -> None:
    for fold in ("train", "dev"):
        own = [task for task in TASKS.values() if task["fold"] == fold]
        impossible = sum(not task["data"]["changes"] for task in own)
        wrong = sum(task["data"]["wrong_first"] for task in own)
        assert impossible > len(own) / 10
        assert wrong > len(own) / 10
        assert any(isinstance(action, list) for task in own for action in task["demonstration"])


def test_the_folds_have_no_name_and_no_item_in_common() -> None:
    for words in (generate.FIRST, generate.LAST, generate.ITEMS, generate.CITIES):
        assert not set(words["train"]) & set(words["dev"])


def test_the_sandbox_says_what_the_agent_says() -> None:
    assert tomllib.loads((HERE / "toolbox.toml").read_text())["system_prompt"] == INSTRUCTIONS


async def test_the_expert_solves_tasks_of_every_kind_through_the_server() -> None:
    async with desk() as at:
        for kind in KINDS:
            line = await demonstrate(at, of_kind(kind))
            assert line["success"], kind
            assert line["messages"][:2] == opening(of_kind(kind))
        parallel = await demonstrate(at, of_kind("refund_two"))
        answers = [len(message.get("tool_calls", ())) for message in parallel["messages"]]
    assert max(answers) == 2


async def test_what_cannot_be_done_is_an_answer_and_changes_nothing() -> None:
    async with desk() as at:
        before = rows(at.folder / "shop.sqlite")
        asked = [
            ("find_customer", '{"name": "Nobody"}'),
            ("refund_order", "{}"),
            ("refund_order", '{"item": "lamp", "order": true}'),
        ]
        asked += [
            ("refund_order", "{"),
            ("refund_order", "[]"),
            ("burn", "{}"),
            ("refund_order", '{"item": "lamp", "order": 1}'),
        ]
        asked += [
            ("refund_order", f'{{"item": "lamp", "order": {10**30}}}'),
            ("list_orders", '{"customer": 1, "all": 2}'),
        ]
        answers = [
            await at.answer({"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}})
            for name, arguments in asked
        ]
        assert rows(at.folder / "shop.sqlite") == before
    assert all(answer["content"] and answer["tool_call_id"] == "c" for answer in answers)


def test_an_order_is_refunded_once_and_cancelled_while_it_is_open(tmp_path: Path) -> None:
    generate.generate()[0].write(tmp_path / "shop.sqlite")
    at = Desk(tmp_path)
    (order,) = of_kind("refund")["data"]["changes"]["refunded"]
    (item,) = of_kind("refund")["data"]["says"]
    with pytest.raises(Refused, match="no sofa"):
        call(at, "refund_order", {"item": "sofa", "order": order})
    assert call(at, "refund_order", {"item": item, "order": order}) == f"order {order} is refunded"
    for tool in ("refund_order", "cancel_order"):
        with pytest.raises(Refused, match="refunded"):
            call(at, tool, {"item": item, "order": order})
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as shop:
        assert shop.execute("SELECT order_id FROM refunds").fetchall() == [(order,)]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    generate.generate()[0].write(tmp_path / "shop.sqlite")
    return tmp_path


def said(text: str) -> list[Document]:
    return [{"role": "assistant", "content": text}]


def test_the_check_wants_the_right_change_and_no_other(shop: Path) -> None:
    task, other = of_kind("refund"), of_kind("refund_two")
    (order,), (foreign, _) = task["data"]["changes"]["refunded"], other["data"]["changes"]["refunded"]
    answer = said(f"Refunded: {task['data']['says'][0]}.")
    assert judge(shop, task, answer) == {"success": False, "score": 0.5}
    call(Desk(shop), "refund_order", {"item": task["data"]["says"][0], "order": order})
    assert judge(shop, task, answer) == {"success": True, "score": 1.0}
    assert judge(shop, task, said("Sorry, I cannot.")) == {"success": False, "score": 0.5}
    call(Desk(shop), "refund_order", {"item": other["data"]["says"][0], "order": foreign})
    assert not judge(shop, task, answer)["success"]


@pytest.mark.parametrize("kind", ["sent", "not_delivered", "missing", "foreign"])
def test_an_impossible_task_is_solved_by_saying_why_and_changing_nothing(shop: Path, kind: str) -> None:
    task = of_kind(kind)
    assert not task["data"]["changes"]
    assert judge(shop, task, said(task["demonstration"][-1]))["success"]
    assert not judge(shop, task, said("Sorry, no."))["success"]
    assert not judge(shop, task, said("Done."))["success"]
    # Who never came to an answer has not declined.
    assert not judge(shop, task, [{"role": "tool", "content": task["demonstration"][-1]}])["success"]
    refund = of_kind("refund")["data"]
    call(Desk(shop), "refund_order", {"item": refund["says"][0], "order": refund["changes"]["refunded"][0]})
    assert not judge(shop, task, said(task["demonstration"][-1]))["success"]


def test_no_tool_does_what_the_check_of_an_unsolvable_task_wants(shop: Path) -> None:
    written = generate.generate()[1]
    unsolvable = [task for task in written if not task.get("solvable", True)]
    assert (len(unsolvable), len(TASKS)) == (10, len(written) - 10)
    assert {task["fold"] for task in unsolvable} == {"unsolvable"}
    for task in unsolvable:
        ((change, (order,)),) = task["data"]["changes"].items()
        (item,) = task["data"]["says"]
        assert item in task["opening"]
        tool = {"refunded": "refund_order", "cancelled": "cancel_order"}[change]
        with pytest.raises(Refused):
            call(Desk(shop), tool, {"item": item, "order": order})
        assert not judge(shop, task, said(f"{change.capitalize()}: {item}."))["success"]


@pytest.mark.slow
def test_the_agent_streams_calls_in_parallel_and_gives_its_verdict_on_the_last_receipt() -> None:
    task = of_kind("refund_two")
    gateway = HelpdeskModel()
    with served(gateway.app()) as url:
        command = ("-m", "examples.helpdesk.agent", "--base-url", f"{url}/v1", "--tasks", task["task_id"])
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, timeout=60, cwd=HERE.parents[1]
        )
    assert done.returncode == 0, done.stderr
    turns = len(task["demonstration"])
    assert json.loads(done.stdout) == {
        **{"episodes": 1, "successes": 1, "calls": turns, "refused": 0, "feedback": 1},
        "models": {"base": turns},
    }
    (verdict,) = gateway.told
    assert verdict == {"receipt": receipt_of(turns - 1), "verifier": "helpdesk", "success": True, "score": 1.0}
    headers, last = gateway.asked[-1]
    assert (last["stream"], headers["x-ratchet-task"]) == (True, task["task_id"])
    called = [message for message in last["messages"] if len(message.get("tool_calls", ())) == 2]
    assert len(called) == 1
    # Each call of a conversation begins with the messages and the reply of the call before.
    for (_, before), (_, after) in zip(gateway.asked, gateway.asked[1:], strict=False):
        assert after["messages"][: len(before["messages"])] == before["messages"]


@pytest.mark.slow
async def test_tickets_that_are_made_later_are_like_those_of_their_fold_and_can_be_solved() -> None:
    listed = {task["opening"] for task in TASKS.values()}
    made = {fold: [generate.ticket(seed, fold) for seed in range(200)] for fold in ("train", "dev")}
    assert made["train"] == [generate.ticket(seed, "train") for seed in range(200)]
    assert not listed & {each["opening"] for each in made["train"]}
    assert {each["data"]["kind"] for each in made["train"]} == set(KINDS)
    for fold, other in (("train", "dev"), ("dev", "train")):
        told = " ".join(each["opening"] for each in made[fold])
        assert not any(f" {word} " in told for word in (*generate.LAST[other], *generate.CITIES[other]))
    known = {row[0] for row in rows(HERE / generate.DATABASE)["customers"]}
    assert not known & {row[0] for each in made["train"] for row in each["data"]["new"]["customers"]}
    async with desk() as at:
        definition = ToolboxDefinition.read(HERE)
        for seed, each in {each["data"]["kind"]: (seed, each) for seed, each in enumerate(made["train"])}.values():
            made_of_its_id = generated_task(definition, generated_id("helpdesk", "train", seed))
            assert made_of_its_id is not None
            assert made_of_its_id.opening == each["opening"]
            line = await demonstrate(at, {**each, "task_id": f"helpdesk/train/seed-{seed}"})
            assert line["success"], each
