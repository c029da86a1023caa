"""The names of tasks, `<game>/<fold>/<number>`, as the environments of ours that bring their own have them."""

from collections.abc import Callable, Collection

from ratchet_client.events import Task
from streams.errors import SandboxError


def parse_task_name(
    task: Task, simulator: str, games: Collection[str], numbers: Callable[[str, str], Collection[int]]
) -> tuple[str, str, int]:
    """The game, fold and number of a task; `numbers` has those that may be played of a game and fold.

    A task has one name, for the holdout goes by names: numbers have no leading zeros. Raises `SandboxError`.
    """
    game, fold, number = (*task.task_id.split("/"), "", "", "")[:3]
    if task.task_id.count("/") != 2 or not (number.isascii() and number.isdecimal()) or game not in games:
        raise SandboxError(
            f"{task.task_id!r} is not a task of {simulator}. "
            f"Name it <game>/<fold>/<number>, with a game of {', '.join(sorted(games))}."
        )
    if number != str(int(number)) or int(number) not in numbers(game, fold):
        raise SandboxError(f"the task {task.task_id!r} is reserved or does not exist. Use train or dev.")
    return game, fold, int(number)
