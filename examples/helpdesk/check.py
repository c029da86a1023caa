"""Says whether a task is solved: the database has changed as it should have, and in nothing else, and so says the
answer.

    cd FOLDER; python check.py < {"task": …, "messages": […]}

The sandbox calls `check`; the folder that it works in holds `shop.sqlite`.
"""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

DATABASE = "shop.sqlite"
BEFORE = Path(__file__).with_name("state") / DATABASE

Rows: TypeAlias = dict[str, set[tuple[Any, ...]]]
_QUERIES = {
    "customers": "SELECT id, name, city, address FROM customers",
    "orders": "SELECT id, customer, item, state FROM orders",
    "refunds": "SELECT order_id, count(*) FROM refunds GROUP BY order_id",
}


def check(task: dict[str, Any], messages: list[dict[str, Any]]) -> dict[str, object]:
    """Judge what was done in the folder that this works in."""
    return judge(Path.cwd(), task, messages)


def judge(folder: Path, task: dict[str, Any], messages: list[dict[str, Any]]) -> dict[str, object]:
    """Judge what was done in `folder`.

    Of a task, `data.changes` says what should have changed, and `data.says` what words the answer must have, with `|`
    between those of which one will do. `data.new` has the customers and orders that came with the task. Half of the
    score is for the database, half for the answer.
    """
    data = task["data"]
    before = rows(BEFORE)
    for table, new in data.get("new", {}).items():
        before[table] |= {tuple(row) for row in new}
    done = rows(folder / DATABASE) == changed(before, data["changes"])
    last = messages[-1]
    answer = " ".join(str(last.get("content") or "").lower().split()) if last["role"] == "assistant" else ""
    # Who declines says so, and who does not has not declined.
    told = all(any(word in answer for word in words.lower().split("|")) for words in data["says"])
    says = told and ("sorry" in answer) == (not data["changes"])
    return {"success": done and says, "score": (done + says) / 2}


def rows(path: Path) -> Rows:
    """All that the shop knows."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as shop:
        return {table: set(shop.execute(query)) for table, query in _QUERIES.items()}


def changed(before: Rows, changes: dict[str, Any]) -> Rows:
    """The rows as they should be."""
    states = dict.fromkeys(changes.get("refunded", ()), "refunded")
    states |= dict.fromkeys(changes.get("cancelled", ()), "cancelled")
    moved, address = changes.get("address", (None, ""))
    return {
        "customers": {(*row[:3], address) if row[0] == moved else row for row in before["customers"]},
        "orders": {(*row[:3], states.get(row[0], row[3])) for row in before["orders"]},
        "refunds": before["refunds"] | {(order, 1) for order in changes.get("refunded", ())},
    }


if __name__ == "__main__":
    print(json.dumps(check(**json.load(sys.stdin))))
