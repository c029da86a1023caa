"""Inference servers as processes of their own, which a test can stop and start again: the embedded one, and vLLM."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from streams.runtime.processes import free_port
from tests.waiting import until

ROOT = Path(__file__).parents[2]
VLLM = ROOT / ".venv-vllm"
_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass
class Engine:
    """A server of the model in `base`; it keeps its port when it is started again."""

    base: Path
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        command = [sys.executable, "-m", "daemon.inference", "--model", str(self.base), "--port", str(self.port)]
        return [*command, "--threads", "1", "--dtype", "float32"]

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def begin(self) -> None:
        """Start it; `ready` waits until it answers."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command(), stdout=output, stderr=output, env=self.environment(), start_new_session=True
            )

    def ready(self) -> None:
        def answers() -> bool:
            assert self.process is not None
            return self.process.poll() is not None or httpx.get(f"{self.url}/health").is_success

        until(answers, lambda: f"{self.url} starts: {self.tail()}", within_s=300, errors=(httpx.TransportError,))
        assert self.process is not None
        assert self.process.poll() is None, self.tail()

    def start(self) -> None:
        self.begin()
        self.ready()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def kill(self) -> None:
        """End it and all its processes at once, if it runs."""
        if self.process is not None and not self.has_ended():
            self.signal(signal.SIGKILL)
            self.process.wait()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


@dataclass
class VllmEngine(Engine):
    """vLLM's build for CPUs, as docs/inference.md starts it; the base model is called `base_name` there."""

    base_name: str = "base"
    key: str = ""
    max_loras: int = 3

    def command(self) -> list[str]:
        given = ["--port", str(self.port), *(["--api-key", self.key] if self.key else [])]
        return [
            *(str(VLLM / "bin/python"), "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", *given),
            *("--model", str(self.base), "--served-model-name", self.base_name, "--dtype", "float32"),
            *("--enable-lora", "--max-loras", str(self.max_loras), "--max-lora-rank", "8"),
            *("--lora-target-modules", *_TARGETS),
            *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
            *("--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "16"),
        ]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "KMP_BLOCKTIME": "0",
            "LD_PRELOAD": str(VLLM / "lib/libiomp5.so"),
        }
