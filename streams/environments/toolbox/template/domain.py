"""The beginning of a task, and the check of its end. Both functions work in the state folder, as the tools do."""

import sqlite3
from contextlib import closing
from typing import Any


def prepare(task: dict[str, Any]) -> None:
    """Make the database that the task begins with: `data.todos` has a title, a day and whether it is done for each."""
    with closing(sqlite3.connect("todos.sqlite")) as database, database:
        database.execute("CREATE TABLE todos (number INTEGER PRIMARY KEY, title TEXT, due TEXT, done INTEGER)")
        database.executemany("INSERT INTO todos (title, due, done) VALUES (?, ?, ?)", task["data"]["todos"])


def check(task: dict[str, Any], messages: list[dict[str, Any]]) -> dict[str, object]:
    """Solved: the list is as `data.wanted` has it, and the last words to the user have each of `data.says`."""
    with closing(sqlite3.connect("todos.sqlite")) as database:
        rows = [
            list(row) for row in database.execute("SELECT lower(title), lower(due), done FROM todos ORDER BY number")
        ]
    wanted = [[title.lower(), due.lower(), done] for title, due, done in task["data"]["wanted"]]
    last = messages[-1].get("content") or ""
    said = all(word.lower() in last.lower() for word in task["data"].get("says", ()))
    return {"success": rows == wanted and said, "score": ((rows == wanted) + said) / 2}
