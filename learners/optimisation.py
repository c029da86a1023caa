"""The loop of updates: the stages of a job in order, from the beginning or from a checkpoint.

Several processes may share each update. All of them pack the same batch; each computes its part of the trees, and their
gradients are added up: losses are normalised by the whole batch's size, so the sum is the gradient of one process.
Where the base is sharded, too, all compute equally many trees, of which the surplus does not count.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from transformers import PreTrainedModel

from learners.batches import Batches, Packer, Pool
from learners.checkpoints import Checkpoint, Checkpoints
from learners.lower_layers import LowerLayers
from learners.objectives import OBJECTIVES
from learners.objectives.objective import Objective
from learners.packed_tree import Tree
from learners.scoring import Reference, log_probabilities, set_values
from learners.settings import Progress, Stage, TrainingJob
from learners.trajectories import Trajectory
from streams.errors import TrainingError
from streams.runtime.processes import peak_memory

_WARM_UP_UPDATES = 5


@dataclass(frozen=True, slots=True)
class Learning:
    """The model under training: its weights that are trained, and what need not be computed again."""

    model: PreTrainedModel
    parameters: Sequence[torch.nn.Parameter]
    lower: LowerLayers
    accelerator: Accelerator
    sharded: bool = False

    def gradients(self, trees: Sequence[Tree], objective: Objective, reference: Reference | None) -> float:
        """Add the gradients of a batch to the weights'; returns its loss. Raises `TrainingError` out of memory."""
        # All processes have the whole batch, so that each knows its size.
        size = sum(map(objective.size, trees))
        accelerator = self.accelerator
        loss = 0.0
        for tree, counts in self._share(trees):
            try:
                loss += self._backward(tree.on(accelerator.device), objective, reference, size, counts)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise TrainingError(_out_of_memory(tree, accelerator.device)) from error
        return loss if accelerator.num_processes == 1 else self._added_up(loss)

    def _share(self, trees: Sequence[Tree]) -> list[tuple[Tree, float]]:
        """This process' trees, each with 1, or with 0 where it is run for the other processes' sake."""
        first, step = self.accelerator.process_index, self.accelerator.num_processes
        share = [(tree, 1.0) for tree in trees[first::step]]
        most = -(-len(trees) // step)
        return share + [(trees[0], 0.0)] * (most - len(share)) if self.sharded else share

    def _backward(
        self, tree: Tree, objective: Objective, reference: Reference | None, size: float, counts: float
    ) -> float:
        expected = None if reference is None else reference.log_probabilities(tree)
        part = objective.loss(tree, log_probabilities(self.model, tree, self.lower), expected) / size * counts
        part.backward()
        return part.item()

    def _added_up(self, loss: float) -> float:
        """Give every process the sum of all processes' gradients; returns the sum of their losses."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        whole = torch.cat([parameters_to_vector(gradients), torch.tensor([loss], device=self.accelerator.device)])
        whole = self.accelerator.reduce(whole, reduction="sum")
        vector_to_parameters(whole[:-1], gradients)
        return float(whole[-1])


class Optimisation:
    """One training. `tell` is called after each update, in the main process."""

    def __init__(self, job: TrainingJob, learning: Learning, packer: Packer, tell: Callable[[Progress], None]) -> None:
        self._job = job
        self._learning = learning
        self._packer = packer
        self._tell = tell
        self._updates = updates = sum(stage.updates for stage in job.settings.stages)
        self._generator = torch.Generator().manual_seed(job.seed)
        self._optimizer = torch.optim.AdamW(learning.parameters, lr=job.settings.learning_rate, weight_decay=0.0)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda done: min((done + 1) / _WARM_UP_UPDATES, (updates - done) / updates)
        )
        self._checkpoints = Checkpoints(job.output, job.job_id)
        self._done = 0
        self._began = time.monotonic()
        self._first = 0

    def run(self, trajectories: Sequence[Trajectory]) -> None:
        """Run the stages that are not done yet. Raises `TrainingError` when there is nothing to learn from."""
        checkpoint = self._checkpoints.read()
        if checkpoint is not None:
            self._restore(checkpoint)
        self._began, self._first = time.monotonic(), self._done
        for number, stage in enumerate(self._job.settings.stages):
            if checkpoint is None or number >= checkpoint.stage:
                self._run(number, stage, trajectories, checkpoint)
                checkpoint = None

    def _run(
        self, number: int, stage: Stage, trajectories: Sequence[Trajectory], checkpoint: Checkpoint | None
    ) -> None:
        """Run one stage, from `checkpoint` if there is one."""
        learning, settings = self._learning, self._job.settings
        objective = OBJECTIVES[stage.objective]
        examples = objective.examples(trajectories)
        if not examples:
            raise TrainingError(
                f"the snapshot {self._job.snapshot} holds nothing that {stage.objective} could learn from"
            )
        reference = None
        if objective.needs_reference:
            reference = Reference(learning.model, learning.parameters, learning.lower)
            if checkpoint is not None and checkpoint.reference is not None:
                reference.kept = [kept.to(learning.accelerator.device) for kept in checkpoint.reference]
        pool = Pool(len(examples), self._generator, [] if checkpoint is None else checkpoint.pool)
        batches = Batches(examples, objective, self._packer, pool, stage.trajectories, settings.tokens_per_update)
        until = sum(each.updates for each in settings.stages[: number + 1])
        while self._done < until:
            self._update(batches.next(), objective, reference)
            if self._done % settings.checkpoint_every == 0:
                self._write(number, pool, reference)

    def _update(self, trees: Sequence[Tree], objective: Objective, reference: Reference | None) -> None:
        began = time.monotonic()
        loss = self._learning.gradients(trees, objective, reference)
        norm = torch.nn.utils.clip_grad_norm_(self._learning.parameters, self._job.settings.max_gradient_norm)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        self._done += 1
        now, tokens = time.monotonic(), sum(tree.length for tree in trees)
        since = self._done - self._first
        left_s = None if since < 2 else (now - self._began) / since * (self._updates - self._done)
        self._tell(
            Progress(
                objective=objective.name,
                update=self._done,
                updates=self._updates,
                loss=loss,
                tokens=tokens,
                memory_bytes=_peak_memory(self._learning.accelerator.device),
                tokens_per_s=tokens / max(now - began, 1e-9),
                gradient_norm=norm.item(),
                left_s=left_s,
            )
        )

    def _write(self, stage: int, pool: Pool, reference: Reference | None) -> None:
        if not self._learning.accelerator.is_main_process:
            return
        self._checkpoints.write(
            Checkpoint(
                job=self._job.job_id,
                updates=self._done,
                stage=stage,
                pool=pool.left,
                left_out=self._packer.left_out,
                generator=self._generator.get_state(),
                random=torch.get_rng_state(),
                parameters=[parameter.detach() for parameter in self._learning.parameters],
                reference=None if reference is None else reference.kept,
                optimizer=self._optimizer.state_dict(),
                schedule=self._schedule.state_dict(),
            )
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        set_values(self._learning.parameters, checkpoint.parameters)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        self._schedule.load_state_dict(checkpoint.schedule)
        self._generator.set_state(checkpoint.generator)
        torch.set_rng_state(checkpoint.random)
        self._packer.left_out.update(checkpoint.left_out)
        self._done = checkpoint.updates


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether Torch or Python could not have the memory that it asked for."""
    # On CPU Torch raises a plain RuntimeError.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _out_of_memory(tree: Tree, device: torch.device) -> str:
    return (
        f"out of memory on {device.type} in an episode that is {tree.length} tokens with its branches, of which "
        f"{tree.layout.reference} are its own: set learner.gradient_checkpointing, lower learner.max_length (branches) "
        "or learner.lora.layers, or choose a smaller base model"
    )


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
