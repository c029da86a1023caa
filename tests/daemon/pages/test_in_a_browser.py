"""The pages in a real browser: by keyboard, on a narrow screen, in both colour schemes, and by axe-core's rules."""

import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright

from daemon.pages.rendering import OF_GROUPS
from daemon.registry.learner_status import LEARNER_FILE, LearnerStatus
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from streams.access.tokens import AccessRole
from streams.trust.groups import AdapterGroup, AdapterSettings, home_of
from tests.builders.consoles import adapters_without_weights, episodes, scene
from tests.builders.stored import Log, ServedStore
from tests.daemon.pages.conftest import Console, running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: apt-get install chromium"),
]

# A run with this variable makes the pictures of docs/console.md anew, in the folder that it names.
PICTURES = "RATCHET_PICTURES"
LARGEST_PICTURE = 150_000
WIDTHS = (360, 1280)


@pytest.fixture
async def whole(
    registry: Registry, inference_url: str, make_adapter: Callable[..., str], served_store: ServedStore
) -> AsyncIterator[Console]:
    """A console with an engine and a store."""
    episodes(Log(served_store.store))
    made = scene(registry, make_adapter(1, approved=False), make_adapter(2, approved=False))
    async with running(made, registry, served_store.url, inference_url) as found:
        yield found


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        await found.close()


@pytest.fixture
async def page(browser: Browser, whole: Console) -> AsyncIterator[Page]:
    """A page that asks nobody but the serve role, and whose console stays empty."""
    base = str(whole.browser.base_url)
    context = await browser.new_context(base_url=base, viewport={"width": WIDTHS[1], "height": 800})
    found = await context.new_page()
    asked: list[str] = []
    faults: list[str] = []
    found.on("request", lambda request: asked.append(request.url))
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    yield found
    assert [each for each in asked if not each.startswith(base)] == []
    assert faults == []
    await context.close()


async def tab_to(page: Page, wanted: str) -> None:
    """Press Tab until what the selector `wanted` names has the focus."""
    for _ in range(100):
        if await page.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not reach {wanted}")


async def test_a_candidate_is_read_about_and_approved_by_keyboard_alone(whole: Console, page: Page) -> None:
    token, made = whole.token("ann", AccessRole.READ, AccessRole.OPERATE), whole.scene
    await page.goto("/")
    await tab_to(page, "#token")
    await page.keyboard.type(token)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/")
    await tab_to(page, "main a[href='/pages/queue']")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/pages/queue")
    await tab_to(page, "main a[href^='/pages/gate?']")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/pages/gate?**")
    await tab_to(page, "main a[href^='/pages/match?']")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/pages/match?**")
    assert "I do not know." in await page.inner_text("main")
    await page.goto("/pages/queue")
    await tab_to(page, "form[action='/pages/approve'] textarea")
    await page.keyboard.type("I read what it lost.")
    await tab_to(page, "form[action='/pages/approve'] button")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/pages/queue?done=approve")
    assert "Approved." in await page.inner_text("[role=status]")
    assert whole.registry.refs().champion == made.held
    told = [(entry.actor, entry.reason) for entry in whole.registry.audit.read() if entry.state is State.APPROVED]
    assert told[-1] == ("ann", "I read what it lost.")


async def addresses(whole: Console, page: Page) -> list[str]:
    """Every page there is, one of each kind."""
    gate = f"/pages/gate?adapter={whole.scene.held}"
    await page.goto(gate)
    match = await page.get_attribute("main a[href^='/pages/match?']", "href")
    assert match is not None
    compared = f"/pages/compare?one={whole.scene.champion}&two={whole.scene.held}"
    adapter = f"/pages/adapter?adapter={whole.scene.held}"
    episode = [f"/pages/episode?wait=30&id={name}" for name in ("sound", "hostile", "lost")]
    lists = ["/", "/pages/queue", "/pages/gates", "/pages/adapters", "/pages/episodes?wait=30", "/pages/audit"]
    return [*lists, gate, match, adapter, compared, *episode, "/pages/sign-in"]


async def test_axe_finds_nothing_serious_and_nothing_is_too_wide(whole: Console, page: Page) -> None:
    axe, found = Axe(), []
    for address in await addresses(whole, page):
        await page.goto(address)
        for width in WIDTHS:
            await page.set_viewport_size({"width": width, "height": 800})
            wide = await page.evaluate("document.scrollingElement.scrollWidth - document.documentElement.clientWidth")
            if wide > 0:
                found.append((address, width, f"{wide} px too wide"))
            for scheme in ("light", "dark"):
                await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
                report = (await axe.run(page)).response
                found += [
                    (address, width, f"{scheme}: {fault['id']}: {[node['html'][:120] for node in fault['nodes']][:3]}")
                    for fault in report["violations"]
                    if fault["impact"] in ("serious", "critical")
                ]
    assert found == []


async def test_a_group_is_chosen_by_keyboard_and_put_on_hold(registry: Registry, browser: Browser) -> None:
    group = Registry(home_of(registry.home, "acme"))
    made = scene(group, *adapters_without_weights(group.home))
    adapters = AdapterSettings(groups={"acme": AdapterGroup(tenants=("acme",))})
    async with running(made, registry, adapters=adapters) as console:
        page = await browser.new_page(base_url=str(console.browser.base_url))
        await page.goto("/pages/queue")
        await tab_to(page, "#group")
        await page.keyboard.type("acme")
        await tab_to(page, "main form.filter button")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/pages/queue?group=acme")
        await tab_to(page, "form[action^='/pages/hold'] textarea")
        await page.keyboard.type("An incident.")
        await tab_to(page, "form[action^='/pages/hold'] button")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/pages/queue?done=hold&group=acme")
        assert "On hold." in await page.inner_text("[role=status]")
        assert (group.audit.read()[-1].reason, registry.audit.read()) == ("An incident.", [])
        for path in sorted(OF_GROUPS):
            await page.goto(f"{path}?group=acme")
            await page.set_viewport_size({"width": WIDTHS[0], "height": 800})
            assert await page.evaluate("document.scrollingElement.scrollWidth") <= WIDTHS[0], path
            faults = (await Axe().run(page)).response["violations"]
            assert [each["id"] for each in faults if each["impact"] in ("serious", "critical")] == [], path


async def test_progress_changes_on_the_page_as_the_learner_goes_on(whole: Console, page: Page) -> None:
    await page.goto("/")
    await page.wait_for_selector("text=48 of at most 320")
    file = whole.registry.home / LEARNER_FILE
    status = LearnerStatus.model_validate_json(file.read_bytes())
    file.write_text(status.model_copy(update={"done": 150, "gate": "<img src=x>"}).model_dump_json())
    await page.wait_for_selector("text=<img src=x>: 150 of at most 320")
    assert await page.locator("img").count() == 0


@pytest.mark.nightly
async def test_the_pictures_of_the_documentation_are_small(whole: Console, page: Page, tmp_path: Path) -> None:
    folder = Path(os.environ.get(PICTURES, tmp_path))
    match = (await addresses(whole, page))[7]
    for name, address, width, height, dark in (
        ("now", "/", 1100, 900, False),
        ("decisions", "/pages/queue", 360, 900, True),
        ("match", match, 1100, 800, False),
        ("episode", "/pages/episode?wait=30&id=sound", 1100, 900, True),
    ):
        await page.set_viewport_size({"width": width, "height": height})
        await page.emulate_media(color_scheme="dark" if dark else "light")
        await page.goto(address)
        if name == "episode":
            await page.click("summary")
            await page.evaluate("window.scrollTo(0, document.querySelector('.tree').offsetTop - 60)")
        path = folder / f"console-{name}.png"
        await page.screenshot(path=path)
        assert 5_000 < path.stat().st_size <= LARGEST_PICTURE
