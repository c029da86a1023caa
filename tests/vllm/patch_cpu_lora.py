"""Corrects a defect of vLLM's LoRA path on CPUs in the environment of `make vllm`, so that its tests can be run at all.

A request to the base model beside one to an adapter gets an adapter's weights: its slot is -1, and the kernels in
PyTorch index the weights with it, which picks the last slot (vLLM's pull request 48421). Attestation then refuses every
adapter, rightly, because it cannot be told from the base model. By their source the kernels for GPUs skip such
requests: this is for the tests alone, and a server that serves is not to be changed.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

_SUM = '    outputs = torch.einsum("bi, boi -> bo", inputs, selected_loras)\n'
_MASK = "    outputs = outputs.masked_fill((lora_indices_tensor < 0)[:, None], 0)\n"
_KERNELS = 3


def main() -> int:
    """Patch the kernels of the interpreter that runs this; the exit status is 1 where they are not those of 0.32."""
    found = find_spec("vllm")
    if found is None or found.origin is None:
        print("vLLM is not installed here: run this with .venv-vllm/bin/python", file=sys.stderr)
        return 1
    path = Path(found.origin).parent / "lora/ops/torch_ops/lora_ops.py"
    text = path.read_text().replace(_SUM + _MASK, _SUM)
    if text.count(_SUM) != _KERNELS:
        print(f"{path} is not that of vLLM 0.32.0: look whether it still needs this patch", file=sys.stderr)
        return 1
    path.write_text(text.replace(_SUM, _SUM + _MASK))
    return 0


if __name__ == "__main__":
    sys.exit(main())
