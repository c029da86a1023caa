"""The training process: `python -m learners.trainer JOB.json` trains one LoRA adapter.

It runs apart from everything that serves, so that its memory and its failures are its own. Each update prints one
`Progress` line; the last thing written is the adapter, so a folder without `adapter_model.safetensors` is not an
adapter. Started again on the same job it goes on from its newest checkpoint. `accelerate` chooses the device, and
starts several such processes where its configuration says so.
"""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator, DistributedType
from peft import PeftModel
from transformers import PreTrainedModel

from learners.adapted_model import adapted_model
from learners.architecture import adapted_layers
from learners.batches import Limits, Packer
from learners.chat import ChatTokenizer
from learners.checkpoints import Checkpoints
from learners.lower_layers import LowerLayers
from learners.optimisation import Learning, Optimisation, is_out_of_memory
from learners.packing import TreePacker
from learners.precision import compute_dtype
from learners.probes import write_probes
from learners.reflections.records import counts, read_reflections, with_rationales
from learners.scoring import set_values
from learners.settings import (
    REFLECTIONS,
    TRAINING_REPORT,
    LearnerSettings,
    Progress,
    TrainingJob,
    TrainingReport,
)
from learners.sharding import shard
from learners.snapshots import read_trajectories
from ratchet_client.errors import ConfigurationError, RatchetError
from streams.runtime.processes import die_with_parent

_WHOLE = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def train(job: TrainingJob) -> None:
    """Run the stages in order and write the adapter. Raises `TrainingError` when there is nothing to learn from."""
    settings = job.settings
    accelerator = _accelerator(settings)
    sharded = accelerator.distributed_type is DistributedType.FSDP
    dtype = compute_dtype(device=accelerator.device)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(job.seed)
    trajectories = read_trajectories(job.snapshot)
    reflections = [] if job.reflections is None else read_reflections(job.reflections, job.reflections_sha256)
    trajectories = with_rationales(trajectories, reflections)
    tokenizer = ChatTokenizer(job.base)
    tokenizer.check_replies()
    # What is sharded may be too large for one device.
    place = torch.device("cpu") if sharded else accelerator.device
    adapted = adapted_model(job.base, settings.lora, job.parent, dtype, settings.quantisation, place)
    adapted.train()
    model = cast(PreTrainedModel, adapted.get_base_model())
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if sharded:
        shard(adapted, accelerator.device, accelerator.num_processes)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in parameters]
    lower = LowerLayers(model, settings.lower_layers_mib * 2**20)
    learning = Learning(model, parameters, lower, accelerator, sharded, settings.max_length)
    left_out: dict[str, str] = {}
    packer = Packer(TreePacker(tokenizer, settings.max_length, reasoning=settings.reasoning), Limits(model), left_out)
    Optimisation(job, learning, packer, _print if accelerator.is_main_process else _keep_quiet).run(trajectories)
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return
    if job.parent is not None and settings.interpolation < 1:
        # Reptile, between tasks, as in *Learning to Learn without Forgetting* (arXiv 1810.11910), algorithm 1.
        trained = [parameter.detach() for parameter in parameters]
        set_values(
            parameters, [torch.lerp(*pair, settings.interpolation) for pair in zip(before, trained, strict=True)]
        )
    if sharded or settings.quantisation is not None:
        adapted = _as_served(job, parameters, dtype)
    adapted.eval()
    adapted.to("cpu")
    write_probes(adapted, tokenizer, [one for one in trajectories if one.episode_id not in left_out], job.output)
    report = TrainingReport(
        adapted=adapted_layers(adapted), left_out=dict(Counter(left_out.values())), reflections=counts(reflections)
    )
    if job.reflections is not None:
        shutil.copyfile(job.reflections, job.output / REFLECTIONS)
    (job.output / TRAINING_REPORT).write_text(report.model_dump_json())
    adapted.save_pretrained(str(job.output))
    Checkpoints(job.output, job.job_id).remove()


def _as_served(job: TrainingJob, parameters: Sequence[torch.nn.Parameter], dtype: torch.dtype) -> PeftModel:
    """The trained adapter on the base as it is: whole, on CPU, and not quantised."""
    adapted = adapted_model(job.base, job.settings.lora, job.parent, dtype)
    set_values([parameter for parameter in adapted.parameters() if parameter.requires_grad], parameters)
    return adapted


def _accelerator(settings: LearnerSettings) -> Accelerator:
    """The device, and this process' place among others. Raises `ConfigurationError` for what cannot be trained so."""
    # The data type is chosen with the model's weights, not by autocasting.
    accelerator = Accelerator(mixed_precision="no")
    kind = accelerator.distributed_type
    if kind is DistributedType.FSDP:
        if settings.quantisation is not None:
            raise ConfigurationError(
                f"training under FSDP is not implemented for {settings.quantisation}: leave learner.quantisation out, "
                "or set distributed_type to NO, MULTI_GPU or MULTI_CPU in the file that learner.accelerate names"
            )
    elif kind not in _WHOLE:
        raise ConfigurationError(
            f"training is not implemented for accelerate's {kind.value}: set distributed_type to NO, MULTI_GPU, "
            "MULTI_CPU or FSDP in the file that learner.accelerate names"
        )
    return accelerator


def _print(progress: Progress) -> None:
    print(progress.model_dump_json(), flush=True)


def _keep_quiet(_: Progress) -> None:
    """The main process tells of the update."""


def main() -> int:
    die_with_parent(int(sys.argv[2]) if len(sys.argv) > 2 else None)
    job = TrainingJob.model_validate_json(Path(sys.argv[1]).read_text())
    try:
        train(job)
    except RatchetError as error:
        return _refuse(str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _refuse(f"out of memory before the first update: {job.base} does not fit; choose a smaller base model")
    return 0


def _refuse(reason: str) -> int:
    print(json.dumps({"error": reason}), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
