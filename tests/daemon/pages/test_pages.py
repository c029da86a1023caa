"""What each page shows, and that nothing of what agents wrote gets to be more than text."""

import asyncio
import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import quote

import pytest

from daemon.pages.site import PAGES
from daemon.registry.audit import Action, AuditEvent
from daemon.registry.registry import Registry
from tests.builders.consoles import HOSTILE, LONG, adapters_without_weights, scene
from tests.daemon.pages.conftest import Console, running


class Elements(HTMLParser):
    """The elements of a page with their attributes; and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def words(page: str) -> str:
    return " ".join(Elements(page).text.split())


def check_harmless(page: str) -> None:
    """Nothing of others runs, nothing is loaded from elsewhere, and no character commands anything."""
    for tag, attributes in Elements(page).found:
        assert tag not in ("img", "iframe", "object", "embed", "base", "style"), tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"], attributes
        for name in ("src", "href", "action", "data-live"):
            assert attributes.get(name, "/").startswith(("/", "#")), attributes
            assert not attributes.get(name, "/").startswith("//"), attributes
        assert tag != "script" or attributes["src"] == "/pages/script.js"
    assert "<script>alert" not in page
    assert not {"\x1b", "\u202e", "\x07"}.intersection(page)


def links(page: str, to: str) -> list[str]:
    return [unescape(found) for found in re.findall(r'href="([^"]*)"', page) if found.startswith(to)]


async def test_now_says_what_serves_since_when_and_what_the_learner_is_at(console: Console) -> None:
    page = await console.page("/")
    check_harmless(page)
    shown = words(page)
    for told in (
        console.scene.champion[:12],
        "23 won, none lost",
        "at the gate improvement: 48 of at most 320 episodes",
    ):
        assert told in shown
    assert "1 candidate waits for a person" in shown
    assert "The store does not answer" in shown
    assert 'value="48" max="320"' in page
    await console.browser.post("/v1/chat/completions", json={"model": "unknown", "messages": []})
    assert "refused 1" in words(await console.page("/"))


async def test_the_page_of_decisions_shows_what_waits_and_why(console: Console) -> None:
    page = await console.page("/pages/queue")
    check_harmless(page)
    shown = words(page)
    assert "It repeats one action more often than the champion does." in shown
    assert console.scene.held[:12] in shown
    assert "Roll back" in shown
    assert f'value="{console.scene.held}"' in page


async def test_cycles_lead_to_gates_and_gates_to_tasks_side_by_side(console: Console) -> None:
    cycles = await console.page("/pages/gates")
    assert "62.5%" in words(cycles)
    (to_gate,) = set(links(cycles, "/pages/gate?"))
    gate = await console.page(to_gate)
    check_harmless(gate)
    shown = words(gate)
    for told in ("HOLD", "p better 0.01235", "1 loss, 1 win, 1 tie, 1 excluded", "desk/dev/lost"):
        assert told in shown
    tasks = links(gate, "/pages/match?")
    assert [("lost" in each, "won" in each) for each in tasks[:2]] == [(True, False), (False, True)]
    lost = await console.page(tasks[0])
    check_harmless(lost)
    assert lost.count("Where is my order A-17?") == 1  # both read it
    shown = words(lost)
    for told in ("It left yesterday, by post.", "I do not know.", "thinking Who am I?", "calls find_order("):
        assert told in shown
    only = await console.page(f"{to_gate}&result=excluded")
    assert (len(links(only, "/pages/match?")), "the sandbox died" in words(await console.page(tasks[2]))) == (1, True)


async def test_a_message_of_a_megabyte_is_cut_and_its_whole_is_a_link_away(console: Console) -> None:
    gate = await console.page(f"/pages/gate?adapter={console.scene.held}&result=tie")
    (address,) = links(gate, "/pages/match?")
    page = await console.page(address)
    check_harmless(page)
    assert len(page) < 40_000
    assert unescape(HOSTILE[:25]) in words(page)
    whole = await console.browser.get(links(page, "/pages/match/text")[0])
    assert LONG in whole.text
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert "sandbox" in whole.headers["content-security-policy"]


async def test_adapters_are_listed_told_and_compared(console: Console) -> None:
    page = await console.page("/pages/adapters")
    check_harmless(page)
    assert "serves" in words(page)
    one = await console.page(f"/pages/adapter?adapter={console.scene.held[:10]}")
    check_harmless(one)
    shown = words(one)
    for told in (
        "held by learner",
        "Whose bob (1)",
        "Its parents' ann (1)",
        f"{console.scene.champion[:12]} ← the base",
    ):
        assert told in shown
    both = await console.page(f"/pages/compare?one={console.scene.champion}&two={console.scene.held}")
    check_harmless(both)
    shown = words(both)
    assert "verdict (differs)" in shown
    assert "snapshot (differs)" in shown
    assert "seed (differs)" not in shown
    assert "no adapter is called" in words(await console.page("/pages/adapter?adapter=ffffffff", 404))


async def test_the_audit_log_is_read_in_parts_and_a_broken_chain_is_said(console: Console) -> None:
    for number in range(60):
        event = AuditEvent(actor="ann", action=Action.RESUMED, subject="base", reason=f"{number} {HOSTILE[:60]}")
        console.registry.audit.append(event)
    page = await console.page("/pages/audit?actor=ann")
    check_harmless(page)
    assert "59 <script>" in words(page)
    (older,) = links(page, "/pages/audit?")
    assert "9 <script>" in words(await console.page(older))
    assert "23 won" in words(await console.page(f"/pages/audit?action=promoted&adapter={console.scene.champion[:8]}"))
    path = console.registry.audit.path
    path.write_bytes(path.read_bytes().replace(b"23 won", b"99 won"))
    assert "The chain is broken." in words(await console.page("/pages/audit"))


async def test_episodes_are_counted_listed_and_told_with_their_branches(console_with_store: Console) -> None:
    page = await console_with_store.page("/pages/episodes?wait=30")
    check_harmless(page)
    shown = words(page)
    for told in ("judged by an outcome 13", "1: a step is missing", "no outcome yet"):
        assert told in shown
    one = await console_with_store.page("/pages/episode?wait=30&id=sound")
    check_harmless(one)
    shown = words(one)
    for told in ("go 0", "Done 2.", "1 branch was tried", "jump", "You jump."):
        assert told in shown
    assert "A recovery behind its first 1 step" in words(
        await console_with_store.page("/pages/episode?wait=30&id=lost")
    )
    only = await console_with_store.page("/pages/episodes?wait=30&state=failed")
    assert "/pages/episode?id=lost" in links(only, "/pages/episode?")
    assert "sound" not in words(only)
    gone = await console_with_store.page("/pages/episode?wait=30&id=never", 404)
    assert "no step or outcome of an episode 'never' is stored" in words(gone)


async def test_an_episode_of_hostile_and_long_texts_is_shown_harmless_and_cut(console_with_store: Console) -> None:
    page = await console_with_store.page("/pages/episode?wait=30&id=hostile")
    check_harmless(page)
    assert len(page) < 40_000
    assert "\\x1b[2J" in words(page)
    wholes = [await console_with_store.browser.get(f"{each}&wait=30") for each in links(page, "/pages/episode/text")]
    assert any(LONG in each.text for each in wholes)
    assert {each.headers["content-type"] for each in wholes} == {"text/plain; charset=utf-8"}


async def test_what_an_address_says_is_shown_as_text_too(console: Console) -> None:
    odd = quote(HOSTILE.replace("\ud800", ""))
    paths = [page.path for page in PAGES if page.method == "GET"]
    for path in paths:
        if path in ("/pages/live", "/pages/script.js", "/pages/style.css", "/pages/icon.svg"):
            continue
        names = (
            "id",
            "adapter",
            "actor",
            "action",
            "result",
            "gate",
            "task",
            "one",
            "two",
            "state",
            "next",
            "from",
            "wait",
        )
        answer = await console.browser.get(f"{path}?{'&'.join(f'{name}={odd}' for name in names)}")
        assert answer.status_code < 500 or "store" in answer.text, (path, answer.text)
        if answer.headers["content-type"].startswith("text/html"):
            check_harmless(answer.text)


@pytest.mark.slow
async def test_a_store_that_hangs_holds_up_no_page(registry: Registry) -> None:
    hung = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hung.wait()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    store_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with running(scene(registry, *adapters_without_weights(registry.home)), registry, store_url) as console:
            shown = words(await console.page("/pages/episodes"))
            assert "The store does not answer." in shown
            assert "the store did not answer within 3 s" in shown
            assert "the store did not answer within 3 s" in words(await console.page("/pages/episode?id=sound", 503))
            assert "The store does not answer." in words(await console.page("/"))
    finally:
        hung.set()
        server.close()


async def test_without_a_store_the_page_of_episodes_comes_and_says_so(console: Console) -> None:
    page = await console.page("/pages/episodes")
    assert "The list is missing" in words(page)
    assert "wait=30" in links(page, "/pages/episodes?")[-1]


async def test_a_page_offers_no_sign_in_where_there_are_no_tokens(console: Console) -> None:
    assert links(await console.page("/"), "/pages/sign-in") == []
