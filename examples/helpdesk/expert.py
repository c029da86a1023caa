"""Demonstrations: what a good clerk did with some tickets, as chat JSONL.

    python -m examples.helpdesk.expert --tasks helpdesk/train/1,helpdesk/train/2 --output demonstrations.jsonl
    ratchet import demonstrations.jsonl --format chat-jsonl --principal helpdesk/clerk --agent clerk \\
        --environment toolbox --task-field task_id --outcome-field success

A line is a conversation: `messages`, `tools`, the `task_id`, and `success`, by the check on the database.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from examples.helpdesk.check import judge
from examples.helpdesk.desk import Desk, Document, desk, opening, tasks
from examples.helpdesk.generate import open_accounts


async def demonstrate(at: Desk, task: Document) -> Document:
    """Work on one ticket as its solution says; the conversation."""
    at.tidy()
    open_accounts(task, at.folder)
    messages = opening(task)
    for place, action in enumerate(task["demonstration"]):
        if isinstance(action, str):
            messages.append({"role": "assistant", "content": action})
            continue
        calls = [
            {
                "id": f"call_{place}_{number}",
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
            }
            for number, call in enumerate(action if isinstance(action, list) else [action])
        ]
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        messages += [await at.answer(call) for call in calls]
    success = judge(at.folder, task, messages)["success"]
    return {"task_id": task["task_id"], "success": success, "messages": messages, "tools": at.tools}


async def demonstrations(task_ids: Sequence[str]) -> list[Document]:
    known = tasks()
    async with desk() as at:
        return [await demonstrate(at, known[task_id]) for task_id in task_ids]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", required=True, help="ids of tickets, separated by commas")
    parser.add_argument("--output", type=Path, required=True, help="the file that is written")
    options = parser.parse_args()
    lines = asyncio.run(demonstrations(options.tasks.split(",")))
    options.output.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(json.dumps({"episodes": len(lines), "successes": sum(line["success"] for line in lines)}))


if __name__ == "__main__":
    main()
