"""The stream of progress, and the headers that keep pages to themselves."""

from daemon.registry.learner_status import LEARNER_FILE, LearnerStatus
from streams.access.tokens import AccessRole
from tests.daemon.pages.conftest import Console


async def test_progress_comes_as_it_changes_and_ends_with_the_token(console: Console) -> None:
    await console.sign_in(console.token("ann", AccessRole.READ))
    file = console.registry.home / LEARNER_FILE
    seen: list[str] = []
    async with console.browser.stream("GET", "/pages/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        async for line in stream.aiter_lines():
            if "of at most" in line:
                seen.append(line)
                status = LearnerStatus.model_validate_json(file.read_bytes())
                if len(seen) == 1:
                    changed = status.model_copy(update={"done": 49, "gate": "<b>odd</b>"})
                    file.write_text(changed.model_dump_json())
                else:
                    console.revoke("ann")
    assert len(seen) == 2
    assert "48 of at most 320" in seen[0]
    assert "&lt;b&gt;odd&lt;/b&gt;: 49 of at most 320" in seen[1]


async def test_signing_out_ends_the_stream(console: Console) -> None:
    await console.sign_in(console.token("ann", AccessRole.READ))
    pieces = 0
    async with console.browser.stream("GET", "/pages/live") as stream:
        async for line in stream.aiter_lines():
            if line.startswith("event:"):
                pieces += 1
                await console.send("/pages/sign-out", {})
    assert pieces == 1


async def test_pages_keep_to_themselves(console: Console) -> None:
    for path in ("/", "/pages/queue", "/pages/sign-in", "/pages/style.css", "/pages/nothing"):
        answer = await console.browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
