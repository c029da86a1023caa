"""The list of metrics in the docs says what running roles answer to a scrape."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from ops.metric_list import Listed, listed, of_processes, page
from tests.ops.conftest import Roles
from tests.ops.promtool import needs_promtool, promtool

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == page(), "run `python -m ops`"


def test_every_name_in_the_code_is_listed() -> None:
    sources = [*(ROOT / "daemon" / "serving").glob("*.py"), *(ROOT / "streams").glob("*/metrics.py")]
    sources.append(ROOT / "streams" / "assembly" / "server.py")
    written = {name for source in sources for name in re.findall(r'"(ratchet_[a-z_]+)"', source.read_text())}
    roles = ("serve", "record", "assemble", "otlp")
    known = {each.name for role in roles for each in listed(role)} | {each.name for each in of_processes()}
    assert {name for name in written if not known & {name, f"{name}_total", f"{name}_info"}} == set()


async def test_running_roles_answer_what_is_listed(roles: Roles) -> None:
    processes = {each.name: each for each in of_processes()}
    for job, text in roles.scraped.items():
        role = job.removeprefix("ratchet-")
        told = processes | ({} if role == "learn" else {each.name: each for each in listed(role)})
        seen = scraped(text)
        assert processes.keys() <= seen.keys(), job
        for name, found in seen.items():
            assert name in told, f"{job} answers {name}, which the list lacks"
            assert (found.kind, found.help) == (told[name].kind, told[name].help)
            assert set(found.labels) <= set(told[name].labels), name
    serving = scraped(roles.scraped["ratchet-serve"])
    # What a serve role answers that has had a call and a cycle, but no canary, adapter, group, training or drill.
    later = ("canary", "shadow", "attestation", "learner", "holdout", "snapshot", "rollback", "group")
    expected = {each.name for each in listed("serve") if each.name.split("_")[1] not in later}
    assert expected <= serving.keys()


async def test_a_call_is_measured_by_the_adapter_that_answered(roles: Roles) -> None:
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(roles.scraped["ratchet-serve"])
        for sample in family.samples
    }
    assert samples["ratchet_gateway_call_seconds_count", "base"] == 2
    assert samples["ratchet_gateway_first_token_seconds_count", "base"] == 1, "one call was streamed"
    assert samples["ratchet_gateway_tokens_total", "base", "input"] > 0
    assert samples["ratchet_gateway_tokens_total", "base", "output"] == 4
    assert samples["ratchet_gateway_in_flight", "base"] == 0
    assert samples["ratchet_audit_chain_broken",] == 0
    assert samples["ratchet_trial_success_ratio", "candidate"] == 0.5
    assert samples["ratchet_funnel_episodes", "judged"] == 2
    assert samples["ratchet_production_episodes", "base", "champion", "true"] == 1
    assert samples["ratchet_production_episodes", "base", "champion", "false"] == 1


@needs_promtool
async def test_promtool_finds_nothing_odd_in_a_scrape(roles: Roles) -> None:
    for job, text in roles.scraped.items():
        assert promtool("check", "metrics", text=text) == (0, ""), job


def scraped(text: str) -> dict[str, Listed]:
    """The metrics of a scrape that have samples, by name."""
    found = {}
    for family in text_string_to_metric_families(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = Listed(name, family.type, tuple(sorted(labels)), family.documentation)
    return found
