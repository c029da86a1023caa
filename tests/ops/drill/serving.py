"""Drills of what agents notice: the gateway, the inference server, and what is recorded of calls."""

import shutil
from collections.abc import Generator

import torch
from safetensors.torch import load_file, save_file

from daemon.registry.registry import Registry
from tests.builders.adapters import add_random_adapter
from tests.ops.drill.drill import drill
from tests.ops.drill.page import Page
from tests.ops.drill.system import System
from tests.waiting import until

UNAUTHORIZED, UNAVAILABLE = 401, 503
TOKEN = "the-token-of-anna-0123456789"


@drill("RatchetRoleDown", ("record", "serve"))
def a_role_is_killed(system: System, page: Page) -> Generator[None]:
    system.engine.start()
    system.start("record", "serve")
    yield
    system.kill("record")
    yield
    page.run("ratchet run --roles record")


@drill("RatchetNothingServes", ("serve",))
def the_inference_server_goes_away(system: System, page: Page) -> Generator[None]:
    system.engine.start()
    system.start("serve")
    yield
    system.engine.kill()
    until(lambda: system.ask() == UNAVAILABLE, "agents are answered with 503")
    yield
    page.says("Inference server away: start it.")
    system.engine.start()


@drill("RatchetNothingServes", ("serve",))
def the_champion_cannot_be_loaded(system: System, page: Page) -> Generator[None]:
    registry = Registry(system.home)
    adapter = add_random_adapter(system.base, 1, within=registry)
    registry.promote(adapter, "drill", "a drill")
    system.engine.start()
    system.start("serve")
    yield
    weights = registry.adapter_folder(adapter) / "adapter_model.safetensors"
    *content, last = weights.read_bytes()
    weights.write_bytes(bytes([*content, last ^ 1]))
    system.engine.kill()
    system.engine.start()
    yield
    page.run("ratchet rollback --to base")


@drill("RatchetUpstreamErrors", ("serve",), looks_back=True)
def calls_fail_at_the_inference_server(system: System, page: Page) -> Generator[None]:
    system.engine.start()
    system.start("serve")
    assert system.ask() < 300
    yield
    system.engine.kill()
    for _ in range(10):
        assert system.ask() == UNAVAILABLE
    yield
    page.says("It is down or out of memory: start it again")
    system.engine.start()


@drill("RatchetCaptureDropping", ("serve",), looks_back=True)
def the_cluster_hangs_and_the_queue_is_full(system: System, page: Page) -> Generator[None]:
    system.settings |= {"SERVING__CAPTURE__QUEUE_CALLS": "2", "SERVING__CAPTURE__PUBLISH_TIMEOUT_S": "2"}
    system.engine.start()
    system.start("serve")
    assert system.ask() < 300
    yield
    system.pause_broker(True)
    for _ in range(6):
        assert system.ask() < 300
    yield
    page.says("`dropped`: bring the cluster back.")
    system.pause_broker(False)


@drill("RatchetUnknownTokens", ("serve",), looks_back=True)
def a_client_comes_with_an_old_token(system: System, page: Page) -> Generator[None]:
    system.settings["SERVING__TOKENS"] = f'{{"shop/anna": "{TOKEN}"}}'
    system.token = system.command("token", "new", "prometheus", "--role", "read").stdout.strip()
    system.engine.start()
    system.start("serve")
    yield
    for _ in range(30):
        assert system.ask("the-token-of-last-year-012345") == UNAUTHORIZED
    yield
    page.says("give it its principal's token")
    assert system.ask(TOKEN) < 300


@drill("RatchetPromotionFailed", ("serve",), looks_back=True)
def an_approval_finds_no_inference_server(system: System, page: Page) -> Generator[None]:
    registry = Registry(system.home)
    adapter = add_random_adapter(system.base, 1, within=registry)
    system.engine.start()
    system.start("serve")
    yield
    system.engine.kill()
    assert system.command("approve", adapter, "--reason", "it won").returncode == 1
    yield
    page.says("The inference server was away or full")
    system.engine.start()
    until(lambda: system.answers("serve") and system.ask() < 300, "the inference server is seen again")
    page.run('ratchet approve ADAPTER --reason "there is room again"', ADAPTER=adapter)
    assert registry.refs().champion == adapter


@drill("RatchetChampionNotAttested", ("serve",))
def the_inference_server_comes_back_with_another_model(system: System, page: Page) -> Generator[None]:
    registry = Registry(system.home)
    registry.promote(add_random_adapter(system.base, 1, within=registry), "drill", "a drill")
    other = shutil.copytree(system.base, system.folder / "other")
    weights = load_file(other / "model.safetensors")
    generator = torch.Generator().manual_seed(7)
    changed = {name: torch.randn(each.shape, generator=generator) * 0.1 for name, each in weights.items()}
    save_file(changed, other / "model.safetensors", {"format": "pt"})
    system.engine.start()
    system.start("serve")
    yield
    system.engine.kill()
    system.engine.base = other
    system.engine.start()
    yield
    page.says("The inference server was changed: give it the base model and the precision of before")
    system.engine.kill()
    system.engine.base = system.base
    system.engine.start()


@drill("RatchetAuditChainBroken", ("serve",))
def a_line_of_the_audit_log_is_changed(system: System, page: Page) -> Generator[None]:
    for words in (("hold", "--reason", "an incident at the shop"), ("resume", "--reason", "it is over")):
        assert system.command(*words).returncode == 0
    system.engine.start()
    system.start("serve")
    backup = shutil.copy2(system.home / "audit.jsonl", system.folder / "audit.backup")
    yield
    audit = system.home / "audit.jsonl"
    audit.write_bytes(audit.read_bytes().replace(b"at the shop", b"at the stop"))
    yield
    assert "audit.jsonl" in page.run("ratchet verify", status=1)
    page.run('ratchet hold --reason "the audit log is broken"')
    page.says("Keep a copy of the file as it is, then restore it from the backup")
    shutil.copy2(backup, audit)
    page.says("the hold too: give the command again")
    page.run('ratchet hold --reason "the audit log is broken"')
    page.run("ratchet verify")
    page.run('ratchet resume --reason "the audit log is whole"')
