"""The chart, as Helm renders it. `CHART_CHECK` names a program that validates it: PROGRAM CHART [FLAGS]."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from daemon.commands.cycle import INTERRUPTED, LEARNER_RUNS
from daemon.roles import Role
from tests.ops.deployed import HOME, OPS, TOKEN, USER, health_port, host_of, run, secret_variables, settings_of, tool

CHART = OPS / "helm" / "ratchet"
VALUES = sorted((OPS / "helm" / "ci").glob("*.yaml"))
BY_JOB = OPS / "helm" / "ci" / "roles-job.yaml"
by_values = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
Rendered = dict[str, Any]


def _render(*flags: str | Path, chart: Path = CHART) -> list[Rendered]:
    said = run(tool("helm"), "template", "ratchet", chart, *flags)
    return [found for found in yaml.safe_load_all(said) if found]


def _pods(rendered: list[Rendered]) -> Iterator[Rendered]:
    for found in rendered:
        if found["kind"] in ("StatefulSet", "Deployment"):
            yield found["spec"]["template"]["spec"]


def _jobs(rendered: list[Rendered]) -> Iterator[Rendered]:
    for found in rendered:
        if found["kind"] == "CronJob":
            yield found["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def _ours(pod: Rendered) -> list[Rendered]:
    containers = [*pod.get("initContainers", ()), *pod["containers"]]
    return [container for container in containers if container["image"].startswith("ratchet")]


def _roles(container: Rendered) -> list[Role]:
    if container["args"][0] == "cycle":
        return [Role.LEARN]
    return [Role(name) for name in container["args"][2].split(",")]


@by_values
def test_the_chart_is_valid(values: Path) -> None:
    run(tool("helm"), "lint", "--strict", CHART, "-f", values)
    check = os.environ.get("CHART_CHECK")
    if check is None:
        pytest.skip("only linted: CHART_CHECK names no program that validates what is rendered")
    run(check, CHART, "-f", values)


@by_values
def test_every_container_starts_with_settings_and_answers_where_its_probes_ask(
    values: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pod in _pods(_render("-f", values)):
        assert _ours(pod)
        for container in _ours(pod):
            variables = {each["name"]: each.get("value", "") for each in container["env"]}
            settings = settings_of(variables, tmp_path, monkeypatch)
            assert str(settings.home) == HOME
            roles = _roles(container)
            role = roles[0] if len(roles) == 1 else Role.SERVE
            on_loopback = host_of(role, settings) == "127.0.0.1"
            port, probes = health_port(role, settings), [name for name in container if name.endswith("Probe")]
            assert {"startupProbe", "livenessProbe"} <= set(probes)
            for name in probes:
                path = "/readyz" if name == "readinessProbe" else "/healthz"
                if on_loopback:
                    assert f"http://127.0.0.1:{port}{path}" in container[name]["exec"]["command"][-1]
                else:
                    assert container[name]["httpGet"] == {"port": port, "path": path}
                    assert TOKEN in variables
            assert container["ports"][0]["containerPort"] == port


@by_values
def test_no_container_has_more_than_it_needs(values: Path) -> None:
    rendered = _render("-f", values)
    for pod in (*_pods(rendered), *_jobs(rendered)):
        assert pod["automountServiceAccountToken"] is False
        # Of a service called `ratchet` Kubernetes would make variables such as RATCHET_PORT, which no process takes.
        assert pod["enableServiceLinks"] is False
        for container in _ours(pod):
            security = container["securityContext"]
            assert (security["runAsNonRoot"], security["runAsUser"]) == (True, USER)
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"]["drop"] == ["ALL"]
            sandboxes = {Role.BRANCH, Role.LEARN} & set(_roles(container))
            if security["seccompProfile"] == {"type": "RuntimeDefault"}:
                assert security["capabilities"].get("add", []) == (["SYS_PTRACE"] if sandboxes else [])
            else:
                assert sandboxes
                assert "add" not in security["capabilities"]


def test_a_learner_gets_its_gpu_and_the_image_with_torch() -> None:
    rendered = _render("-f", OPS / "helm" / "ci" / "roles-full.yaml")
    (roles,) = _pods([found for found in rendered if found["kind"] == "StatefulSet"])
    images = {container["name"]: container["image"].partition(":")[0] for container in _ours(roles)}
    slim = dict.fromkeys(("record", "assemble", "serve", "branch", "otlp"), "ratchet-slim")
    assert images == {**slim, "learn": "ratchet"}
    limits = {container["name"]: container["resources"]["limits"] for container in _ours(roles)}
    assert limits["learn"]["nvidia.com/gpu"] == 1
    assert not any("nvidia.com/gpu" in each for name, each in limits.items() if name != "learn")


def test_a_job_runs_one_cycle_where_the_roles_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = _render("-f", BY_JOB)
    (roles,), (pod,) = _pods(rendered), _jobs(rendered)
    assert "learn" not in {container["name"] for container in roles["containers"]}
    (learner,) = pod["containers"]
    assert learner["args"] == ["cycle", "--config", "/etc/ratchet/ratchet.toml"]
    variables = {each["name"]: each.get("value", "") for each in learner["env"]}
    settings = settings_of(variables, tmp_path, monkeypatch)
    # The Services, and the server that the roles' own containers reach by loopback.
    assert (settings.store_url, settings.control_url) == ("http://ratchet-roles:8401", "http://ratchet:8420")
    assert settings.serving.inference_url == "http://ratchet-roles:8000"
    services = {found["metadata"]["name"] for found in rendered if found["kind"] == "Service"}
    assert {"ratchet", "ratchet-roles"} == services
    policies = {found["metadata"]["name"]: found["spec"] for found in rendered if found["kind"] == "NetworkPolicy"}
    ports = [{"protocol": "TCP", "port": port} for port in (8401, 8420, 8000)]
    assert ports in [each["ports"] for each in policies["ratchet"]["ingress"]]
    assert ports in [each["ports"] for each in policies["ratchet-learn"]["egress"]]
    home = {"name": "ratchet-home", "persistentVolumeClaim": {"claimName": "ratchet-home"}}
    assert home in pod["volumes"]
    assert home in roles["volumes"]


def test_one_job_at_a_time_is_tried_again_after_a_crash_and_not_for_another_learner() -> None:
    (cron,) = [found["spec"] for found in _render("-f", BY_JOB) if found["kind"] == "CronJob"]
    assert cron["concurrencyPolicy"] == "Forbid"
    job = cron["jobTemplate"]["spec"]
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (4, "Never")
    failing, ignored = job["podFailurePolicy"]["rules"]
    assert failing["onExitCodes"]["values"] == [2, LEARNER_RUNS]
    assert INTERRUPTED not in failing["onExitCodes"]["values"]
    assert (ignored["action"], ignored["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert cron["jobTemplate"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["template"]["metadata"]["labels"]["team"] == "support"


def test_a_job_is_on_the_node_of_the_roles_unless_the_home_is_for_many() -> None:
    once = ("--set", "persistence.accessModes={ReadWriteOnce}", "--set", "roles.learn.job.sameNode=true")
    rendered = _render("-f", BY_JOB, *once)
    (pod,) = _jobs(rendered)
    (rule,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    (roles,) = [found for found in rendered if found["kind"] == "StatefulSet"]
    assert rule["labelSelector"]["matchLabels"].items() <= roles["spec"]["template"]["metadata"]["labels"].items()
    (elsewhere,) = _jobs(_render("-f", BY_JOB))
    assert "affinity" not in elsewhere
    assert elsewhere["nodeSelector"] == {"accelerator": "nvidia"}


@pytest.mark.parametrize("mode", ["role", "job"])
def test_several_gpus_have_a_training_process_each(mode: str, tmp_path: Path) -> None:
    rendered = _render("-f", BY_JOB, "--set", f"roles.learn.mode={mode}")
    (pod,) = _pods(rendered) if mode == "role" else _jobs(rendered)
    (learner,) = [container for container in pod["containers"] if container["name"] == "learn"]
    assert learner["resources"]["limits"]["nvidia.com/gpu"] == 4
    variables = {each["name"]: each.get("value") for each in learner["env"]}
    file = Path(str(variables["RATCHET_LEARNER__ACCELERATE"]))
    mounts = {mount["mountPath"]: mount["name"] for mount in learner["volumeMounts"]}
    assert "/dev/shm" in mounts
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mounts[str(file.parent)]]
    (named,) = [found for found in rendered if found["kind"] == "ConfigMap"]
    assert volume["configMap"]["name"] == named["metadata"]["name"]
    (tmp_path / file.name).write_text(named["data"][file.name])
    read = load_config_from_file(str(tmp_path / file.name))
    assert (str(read.distributed_type.value), read.num_processes, read.num_machines) == ("MULTI_GPU", 4, 1)
    one = _render("-f", BY_JOB, "--set", f"roles.learn.mode={mode},roles.learn.gpu.count=1")
    assert "ConfigMap" not in {found["kind"] for found in one}


def test_a_chart_of_an_agent_takes_the_sidecar_into_its_own_pod(tmp_path: Path) -> None:
    (tmp_path / "Chart.yaml").write_text(
        "apiVersion: v2\nname: agent\nversion: 0.1.0\n"
        'dependencies: [{name: ratchet, version: 0.1.0, repository: "file://ratchet"}]\n'
    )
    (tmp_path / "values.yaml").write_text(
        'ratchet:\n  roles: {enabled: false}\n  kafka: {bootstrap: "kafka:9092"}\n'
        "  persistence: {existingClaim: mine}\n"
    )
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "ratchet").symlink_to(CHART)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "pod.yaml").write_text(
        "kind: Pod\nspec:\n"
        '  initContainers: {{- include "ratchet.sidecar" .Subcharts.ratchet | nindent 4 }}\n'
        '  volumes: {{- include "ratchet.sidecarVolumes" .Subcharts.ratchet | nindent 4 }}\n'
    )
    (pod,) = _render(chart=tmp_path)
    (sidecar,) = pod["spec"]["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert {mount["name"] for mount in sidecar["volumeMounts"]} == {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {"claimName": "mine"} in [volume.get("persistentVolumeClaim") for volume in pod["spec"]["volumes"]]


def test_a_service_monitor_asks_every_role_with_a_token() -> None:
    values = OPS / "helm" / "ci" / "roles-full.yaml"
    rendered = _render("-f", values, "--set", "serviceMonitor.enabled=true")
    (monitor,) = [found for found in rendered if found["kind"] == "ServiceMonitor"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    services = [found for found in rendered if found["kind"] == "Service"]
    (service,) = [found for found in services if found["metadata"]["labels"].items() >= wanted]
    ports = [port["name"] for port in service["spec"]["ports"]]
    assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == ports
    assert set(ports) == set(Role)
    for endpoint in monitor["spec"]["endpoints"]:
        assert endpoint["authorization"]["credentials"] == {"name": "ratchet-tokens", "key": "token"}


@pytest.mark.parametrize("variable", sorted(secret_variables()))
def test_a_secret_cannot_be_given_as_a_value(variable: str) -> None:
    said = _refused("-f", OPS / "helm" / "ci" / "roles.yaml", "--set-string", f"settings.{variable}=x")
    assert f"invalid propertyName '{variable}'" in said


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("auth.existingSecret=", "refuse to without tokens"),
        ("engine.url=", "name an inference server"),
        ("kafka.bootstrap=", "name a Kafka cluster"),
        ("branchWorkers.replicas=2", "redaction.key"),
        ("roles.learn.enabled=true", "the folder of the engine's base model"),
        ("engine.url=vllm:8000", "does not match pattern"),
        ("roles.learner=true", "additional properties"),
        ("roles.learn.mode=cron", "value must be one of"),
    ],
)
def test_values_that_cannot_work_are_refused_with_a_reason(flag: str, reason: str) -> None:
    assert reason in _refused("-f", OPS / "helm" / "ci" / "roles.yaml", "--set", flag)


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("persistence.accessModes={ReadWriteOnce}", "needs a home with the access mode ReadWriteMany"),
        ("persistence.accessModes={ReadWriteOncePod}", "which ReadWriteOncePod does not allow"),
        ("roles.learn.job.schedule=nightly", "does not match pattern"),
    ],
)
def test_a_job_that_could_not_have_the_home_is_refused_with_a_reason(flag: str, reason: str) -> None:
    assert reason in _refused("-f", BY_JOB, "--set", flag)


def _refused(*flags: str | Path) -> str:
    done = subprocess.run([tool("helm"), "template", CHART, *flags], capture_output=True, text=True)
    assert done.returncode != 0
    return done.stderr
