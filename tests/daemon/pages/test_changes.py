"""Changes by forms: who may, from where, why, and what the audit log says of them."""

import re

import httpx
import pytest

from daemon.pages.parts import NOBODY
from daemon.pages.sessions import MOST_SESSIONS, Sessions, new_id, session_of
from daemon.pages.site import NEEDS, PAGES
from daemon.registry.audit import Action
from daemon.registry.holds import standing
from daemon.registry.lifecycle import State
from streams.access.tokens import AccessRole
from tests.daemon.pages.conftest import Console
from tests.daemon.pages.test_pages import words

READ, OPERATE, ASK = AccessRole.READ, AccessRole.OPERATE, AccessRole.ASK


async def test_approving_rolling_back_and_resuming_are_done_and_written_down(console_with_engine: Console) -> None:
    console = console_with_engine
    made = console.scene
    fields = {"adapter": made.held, "reason": "  I read <b>both</b> sides  "}
    answer = await console.send("/pages/approve", fields)
    assert (answer.status_code, answer.url.path) == (200, "/pages/queue")
    assert "Approved." in words(answer.text)
    assert console.registry.refs().champion == made.held
    approved = [entry for entry in console.registry.audit.read() if entry.state is State.APPROVED][-1]
    assert (approved.actor, approved.reason) == (NOBODY, "I read <b>both</b> sides")
    answer = await console.send("/pages/rollback", {"to": made.champion, "reason": "customers complain"})
    assert "Rolled back." in words(answer.text)
    assert console.registry.refs().champion == made.champion
    assert standing(console.registry.audit.read()) is not None
    await console.send("/pages/resume", {"reason": "it was the weather"})
    assert standing(console.registry.audit.read()) is None
    answer = await console.send("/pages/restore", {"adapter": made.held, "reason": "it was not the adapter"})
    assert "Restored." in words(answer.text)
    assert console.registry.refs().champion == made.held


async def test_what_is_refused_changes_nothing_and_keeps_what_was_written(console: Console) -> None:
    answer = await console.send("/pages/approve", {"adapter": console.scene.held, "reason": "   "})
    assert (answer.status_code, "say why" in words(answer.text)) == (422, True)
    answer = await console.send("/pages/rollback", {"to": console.scene.held, "reason": "a long story"})
    assert (answer.status_code, "a long story" in answer.text) == (409, True)
    assert "Nothing was changed." in words(answer.text)
    for fields in ({"adapter": "zzz", "reason": "x"}, {"reason": "x"}):
        assert (await console.send("/pages/reject", fields)).status_code == 422
    told = {entry.action for entry in console.registry.audit.read() if entry.actor == NOBODY}
    assert told <= {Action.PROMOTION_FAILED}  # no engine could load it
    assert console.registry.refs().champion == console.scene.champion
    assert console.registry.state(console.scene.held) is State.HELD


async def test_a_form_without_its_token_or_from_another_page_is_refused(console: Console) -> None:
    fields = {"adapter": console.scene.held, "reason": "forged"}
    for wrong in ({"csrf": ""}, {"csrf": "0" * 64}):
        assert (await console.send("/pages/reject", fields | wrong)).status_code == 403
    for origin in ("https://evil.example", "null", ""):
        assert (await console.send("/pages/reject", fields, origin=origin)).status_code == 403
    # The token of another browser's session is no token.
    async with httpx.AsyncClient(base_url=console.browser.base_url) as other:
        theirs = re.search(r'name="csrf" value="(\w+)"', (await other.get("/pages/queue")).text)
        assert theirs is not None
        assert (await console.send("/pages/reject", fields | {"csrf": theirs[1]})).status_code == 403
    assert (await console.send("/pages/reject", fields | {"reason": "x" * 70_000})).status_code == 413
    assert (await console.browser.get("/pages/reject")).status_code in (404, 405)
    assert (await console.browser.get("/pages/queue", headers={"host": "evil.example"})).status_code == 421
    assert [entry for entry in console.registry.audit.read() if entry.actor == NOBODY] == []


async def test_with_tokens_a_browser_signs_in_and_its_name_is_in_the_audit_log(console: Console) -> None:
    token = console.token("ann", READ, OPERATE)
    answer = await console.browser.get(f"/pages/gate?adapter={console.scene.held}")
    assert answer.url.path == "/pages/sign-in"
    assert (await console.sign_in("ratchet_wrong")).status_code == 401
    asker = console.token("bob", ASK)
    assert (await console.sign_in(asker)).status_code == 403
    answer = await console.sign_in(token, f"/pages/gate?adapter={console.scene.held}")
    assert (answer.status_code, answer.url.path) == (200, "/pages/gate")
    (cookie,) = answer.history[0].headers.get_list("set-cookie")
    assert "HttpOnly; SameSite=Strict" in cookie
    assert token not in cookie
    answer = await console.send("/pages/reject", {"adapter": console.scene.held, "reason": "rude"})
    assert answer.status_code == 200
    last = console.registry.audit.read()[-1]
    assert (last.actor, last.state, last.reason) == ("ann", State.REJECTED, "rude")
    await console.send("/pages/sign-out", {})
    assert (await console.browser.get("/")).url.path == "/pages/sign-in"


async def test_who_may_read_only_sees_no_form_and_is_refused(console: Console) -> None:
    await console.sign_in(console.token("eve", READ))
    page = await console.page("/pages/queue")
    assert 'action="/pages/approve"' not in page
    assert "role operate" in words(page)
    answer = await console.send("/pages/reject", {"adapter": console.scene.held, "reason": "x"})
    assert (answer.status_code, "the role operate" in words(answer.text)) == (403, True)
    assert console.registry.state(console.scene.held) is State.HELD


async def test_a_token_that_is_revoked_ends_its_session(console: Console) -> None:
    token = console.token("ann", READ)
    await console.sign_in(token)
    assert "ann" in words(await console.page("/"))
    console.revoke("ann")
    assert (await console.browser.get("/")).url.path == "/pages/sign-in"


async def test_every_page_needs_a_token_once_there_is_one(console: Console) -> None:
    console.token("ann", READ)
    reader, asker = console.token("reader", READ), console.token("asker", ASK)
    async with httpx.AsyncClient(base_url=console.browser.base_url) as client:
        for page in PAGES:
            if page.role is None or page.path == "/pages/live":
                continue
            assert (await client.request(page.method, page.path)).status_code == 401, page
            wrong = await client.request(page.method, page.path, headers={"authorization": f"Bearer {asker}"})
            assert wrong.status_code == 403
            right = await client.request(page.method, page.path, headers={"authorization": f"Bearer {reader}"})
            assert right.status_code != 401
            assert (right.status_code == 403) == (page.role is OPERATE), page
        assert (await client.get("/pages/live")).status_code == 401
        assert (await client.get("/pages/nothing")).status_code == 401


async def test_a_session_is_of_no_use_at_the_apis(console: Console) -> None:
    await console.sign_in(console.token("ann", READ, OPERATE))
    assert (await console.browser.get("/status")).status_code == 401
    fault = {"reason": "x", "actor": "eve"}
    assert (await console.browser.post("/hold", json=fault)).status_code == 401


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example/pages/", "/pages/sign-in", "/v1/models"])
async def test_signing_in_leads_to_pages_of_this_server_alone(console: Console, path: str) -> None:
    assert (await console.sign_in(console.token("ann", READ), path)).url.path == "/"


def test_a_cookie_that_is_not_of_our_form_is_none() -> None:
    given = 'ratchet-8420="a\\012set-cookie: x=y"'
    scope = {"type": "http", "server": ("127.0.0.1", 8420), "headers": [(b"cookie", given.encode())]}
    assert session_of(scope) == ""
    scope["headers"] = [(b"cookie", f"other=1; ratchet-8420={(made := new_id())}".encode())]
    assert session_of(scope) == made


def test_there_are_so_many_sessions_at_most() -> None:
    sessions = Sessions()
    first = sessions.begin("ratchet_first")
    assert sessions.token(first) == "ratchet_first"
    for number in range(MOST_SESSIONS):
        sessions.begin(f"ratchet_{number}")
    assert sessions.token(first) == ""


def test_changes_need_the_role_that_operates() -> None:
    assert {page.path for page in PAGES if page.method == "POST" and page.role is not None} == {
        path for path, role in NEEDS.items() if role is OPERATE
    }
