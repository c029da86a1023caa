"""The audit log, newest first, and whether its chain of hashes holds."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from daemon.pages.parts import Parts, whole_number
from daemon.pages.rendering import page
from daemon.registry.audit import Action
from streams.errors import AuditError

AT_ONCE = 50


async def audit(request: Request, parts: Parts) -> Response:
    asked = request.query_params
    wanted, adapter, actor = asked.get("action", ""), asked.get("adapter", "").strip(), asked.get("actor", "").strip()
    before = whole_number(asked.get("before", ""))
    entries = await asyncio.to_thread(parts.registry.audit.read)
    chosen = [
        entry
        for entry in reversed(entries)
        if (not wanted or entry.action == wanted)
        and entry.subject.startswith(adapter)
        and (not actor or entry.actor == actor)
        and (before is None or entry.sequence < before)
    ]
    shown = chosen[:AT_ONCE]
    return page(
        request,
        parts,
        "audit.html",
        title="Audit log",
        entries=shown,
        older=shown[-1].sequence if len(chosen) > AT_ONCE else None,
        total=len(entries),
        fault=await asyncio.to_thread(_fault, parts),
        actions=list(Action),
        wanted=wanted,
        adapter=adapter,
        actor=actor,
    )


def _fault(parts: Parts) -> str:
    """Why the chain does not hold; empty where it does."""
    try:
        parts.registry.audit.verify()
    except AuditError as error:
        return str(error)
    return ""
