"""The pages of groups of agents and tenants: each shows the group that its address names, and changes that one."""

import re
from collections.abc import AsyncIterator

import pytest

from daemon.pages.parts import NOBODY
from daemon.pages.rendering import OF_GROUPS
from daemon.pages.site import PAGES
from daemon.registry.audit import Action
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from streams.trust.groups import AdapterGroup, AdapterSettings, home_of
from tests.builders.consoles import Scene, adapters_without_weights, scene
from tests.daemon.pages.conftest import Console, running
from tests.daemon.pages.test_pages import check_harmless, links, words

ADAPTERS = AdapterSettings(groups={name: AdapterGroup(tenants=(name,)) for name in ("acme", "empty")})
LISTS = sorted(OF_GROUPS)


@pytest.fixture
async def console(registry: Registry) -> AsyncIterator[Console]:
    """A console of three groups: the default one has no adapter, `acme` what a scene has, `empty` nothing."""
    acme = Registry(home_of(registry.home, "acme"))
    made = scene(acme, *adapters_without_weights(acme.home))
    async with running(made, registry, adapters=ADAPTERS) as found:
        yield found


def acme(console: Console) -> Registry:
    return Registry(home_of(console.registry.home, "acme"))


def leading(page: str) -> list[str]:
    """The addresses of other pages that a page has."""
    return [each for each in links(page, "/") if not re.search(r"\.(css|svg)$", each)]


async def test_a_page_shows_the_group_that_its_address_names(console: Console) -> None:
    told = {
        "/": console.scene.champion[:12],
        "/pages/queue": console.scene.held[:12],
        "/pages/gates": "62.5%",
        "/pages/adapters": console.scene.held[:12],
        "/pages/audit": "23 won, none lost",
    }
    assert sorted(told) == LISTS
    for path, word in told.items():
        page = await console.page(f"{path}?group=acme")
        check_harmless(page)
        assert word in words(page)
        assert '<option value="acme" selected>' in page
        for other in (path, f"{path}?group=", f"{path}?group=empty"):
            assert word not in words(await console.page(other)) or path == "/"


async def test_the_first_page_lists_all_groups_and_leads_to_each(console: Console) -> None:
    page = await console.page("/?group=acme")
    assert {"/", "/?group=acme", "/?group=empty"} <= set(links(page, "/"))
    assert "acme assistant-acme" in words(page)
    assert "at the gate improvement: 48 of at most 320" in words(page)
    assert "at the gate improvement" not in words(await console.page("/"))


@pytest.mark.parametrize("path", LISTS)
async def test_every_link_and_form_keeps_to_the_group(path: str, console: Console) -> None:
    page = await console.page(f"{path}?group=acme")
    found = leading(page)
    apart = {"/", "/?group=empty"} if path == "/" else set[str]()
    assert {each for each in found if "group=acme" not in each} <= apart
    for kind, action, inside in re.findall(r'<form method="(\w+)" action="([^"]+)"(.*?)</form>', page, re.DOTALL):
        assert "group=acme" in action if kind == "post" else 'name="group"' in inside
    for address in found:
        if address.startswith("/pages/gate?"):
            gate = await console.page(address)
            (match, *_) = links(gate, "/pages/match?")
            assert "Group acme" in words(await console.page(match))
            assert all("group=acme" in each for each in leading(await console.page(match)))


async def test_a_change_is_made_to_the_group_of_the_page(console: Console) -> None:
    on, fields = "/pages/queue?group=acme", {"adapter": console.scene.held, "reason": "rude"}
    answer = await console.send("/pages/reject?group=acme", fields, on=on)
    assert (answer.status_code, answer.url.query) == (200, b"done=reject&group=acme")
    assert "Rejected." in words(answer.text)
    assert acme(console).state(console.scene.held) is State.REJECTED
    await console.send("/pages/hold?group=acme", {"reason": "an incident"}, on=on)
    last = acme(console).audit.read()[-1]
    assert (last.action, last.actor, last.reason) == (Action.HOLD, NOBODY, "an incident")
    refused = await console.send("/pages/reject?group=acme", fields | {"reason": " "}, on=on)
    assert (refused.status_code, "Group acme" in words(refused.text)) == (422, True)
    for other in (console.registry, Registry(home_of(console.registry.home, "empty"))):
        assert other.audit.read() == []
    # The default group does not know what waits in another.
    elsewhere = await console.send("/pages/approve", fields, on="/pages/queue")
    assert elsewhere.status_code in (404, 409)
    assert acme(console).state(console.scene.held) is State.REJECTED


async def test_a_group_that_is_not_set_has_no_page(console: Console) -> None:
    for page in PAGES:
        if page.method == "GET" and page.role is not None:
            answer = await console.browser.get(f"{page.path}?group=nobody")
            assert answer.status_code == 404, page
            assert "the group 'nobody' is not set: adapters.groups has acme, empty" in words(answer.text)
    answer = await console.send("/pages/hold?group=nobody", {"reason": "x"})
    assert answer.status_code == 404
    assert not home_of(console.registry.home, "nobody").exists()


async def test_without_groups_nothing_speaks_of_them(registry: Registry) -> None:
    made: Scene = scene(registry, *adapters_without_weights(registry.home))
    async with running(made, registry) as console:
        for path in LISTS:
            page = await console.page(path)
            assert "group=" not in page
            assert 'id="group"' not in page
            assert "Groups" not in words(page)
