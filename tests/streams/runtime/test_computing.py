"""Memory of a process that multiplies matrices of many shapes, as an engine does with prompts of all lengths."""

import os
import subprocess
import sys

import pytest
import torch

from streams.runtime.computing import COMPUTE_VARIABLES

MULTIPLIED_IN_MANY_SHAPES = """
import torch
from pathlib import Path

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

weights = [torch.ops.mkldnn._reorder_linear_weight(torch.ones(rows, 64), None) for rows in (64, 128, 192, 256)]
before = resident_mib()
with torch.inference_mode():
    for rows in range(1, 400):
        for weight in weights:
            torch.ops.mkldnn._linear_pointwise(torch.ones(rows, 64), weight, None, "none", [], "")
print(resident_mib() - before)
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="Torch multiplies without oneDNN here")
def test_a_process_keeps_few_of_the_products_that_it_compiled() -> None:
    def growth_mib(variables: dict[str, str]) -> int:
        inherited = {name: value for name, value in os.environ.items() if name not in COMPUTE_VARIABLES}
        command = [sys.executable, "-c", MULTIPLIED_IN_MANY_SHAPES]
        environment = inherited | variables
        return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)

    assert growth_mib(COMPUTE_VARIABLES) < growth_mib({}) / 2
