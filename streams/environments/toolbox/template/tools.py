"""The tools: a to-do list in the database `todos.sqlite` of the folder that they work in."""

import sqlite3
from contextlib import closing


def list_todos() -> list[dict[str, object]]:
    """List every to-do with its number, its title, the day it is due and whether it is done."""
    with closing(sqlite3.connect("todos.sqlite")) as database:
        rows = database.execute("SELECT number, title, due, done FROM todos ORDER BY number").fetchall()
    return [{"number": number, "title": title, "due": due, "done": bool(done)} for number, title, due, done in rows]


def add_todo(title: str, due: str) -> dict[str, object]:
    """Write down a new to-do. `due` is a day of the week."""
    with closing(sqlite3.connect("todos.sqlite")) as database, database:
        number = database.execute("INSERT INTO todos (title, due, done) VALUES (?, ?, 0)", (title, due)).lastrowid
    return {"number": number}


def finish_todo(number: int) -> dict[str, object]:
    """Mark a to-do as done, by its number."""
    with closing(sqlite3.connect("todos.sqlite")) as database, database:
        changed = database.execute("UPDATE todos SET done = 1 WHERE number = ?", (number,)).rowcount
    return {"done": number} if changed else {"error": f"There is no to-do {number}."}
