"""The loop of updates: the stages of a job in order, from the beginning or from a checkpoint.

Several processes may share each update. All of them pack the same batch; each computes its part of the trees, and their
gradients are added up: losses are normalised by the whole batch's size, so the sum is the gradient of one process.
Where the base is sharded, too, all compute equally many trees, none of them joined; the surplus does not count.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from transformers import PreTrainedModel

from learners.batches import Packer
from learners.checkpoints import Checkpoint, Checkpoints
from learners.joined_trees import join_alike
from learners.lower_layers import LowerLayers
from learners.packed_tree import Tree
from learners.scoring import Reference, log_probabilities, set_values
from learners.settings import Progress, Stage, TrainingJob
from learners.stages import Batch, StageLosses, stage_losses
from learners.trajectories import Trajectory
from streams.errors import TrainingError
from streams.runtime.processes import peak_memory

_WARM_UP_UPDATES = 5


@dataclass(frozen=True, slots=True)
class Learning:
    """The model under training: its weights that are trained, and what need not be computed again.

    Trees of an update that begin alike are computed as one of up to `most_joined` tokens.
    """

    model: PreTrainedModel
    parameters: Sequence[torch.nn.Parameter]
    lower: LowerLayers
    accelerator: Accelerator
    sharded: bool = False
    most_joined: int = 0

    def gradients(self, batches: Sequence[Batch]) -> list[float]:
        """Add the gradients of the weighted sum of the batches' losses to the weights'; returns the losses, unweighted.

        Raises `TrainingError` out of memory.
        """
        losses = [self._loss(batch) for batch in batches]
        return losses if self.accelerator.num_processes == 1 else self._added_up(losses)

    def _loss(self, batch: Batch) -> float:
        # All processes have the whole batch, so that each knows its size.
        size = sum(map(batch.objective.size, batch.trees))
        accelerator = self.accelerator
        loss = 0.0
        for tree, counts in self._share(batch.trees):
            try:
                loss += self._backward(tree.on(accelerator.device), batch, size, counts)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise TrainingError(_out_of_memory(tree, accelerator.device)) from error
        return loss

    def _share(self, trees: Sequence[Tree]) -> list[tuple[Tree, float]]:
        """This process' trees, each with 1, or with 0 where it is run for the other processes' sake."""
        first, step = self.accelerator.process_index, self.accelerator.num_processes
        own = trees[first::step]
        if not self.sharded:
            return [(tree, 1.0) for tree in join_alike(own, self.most_joined)]
        surplus = -(-len(trees) // step) - len(own)
        return [(tree, 1.0) for tree in own] + [(trees[0], 0.0)] * surplus

    def _backward(self, tree: Tree, batch: Batch, size: float, counts: float) -> float:
        objective, reference = batch.objective, batch.reference
        expected = None if reference is None else reference.log_probabilities(tree)
        found = tree.split(log_probabilities(self.model, tree, self.lower))
        before = [None] * len(found) if expected is None else [part for _, part in tree.split(expected)]
        losses = [objective.loss(part, own, old) for (part, own), old in zip(found, before, strict=True)]
        loss = torch.stack(losses).sum() / size * counts
        (loss * batch.weight).backward()
        return loss.item()

    def _added_up(self, losses: list[float]) -> list[float]:
        """Give every process the sum of all processes' gradients; returns the sums of their losses."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        whole = torch.cat([torch.tensor(losses, device=self.accelerator.device), parameters_to_vector(gradients)])
        whole = self.accelerator.reduce(whole, reduction="sum")
        vector_to_parameters(whole[len(losses) :], gradients)
        added: list[float] = whole[: len(losses)].tolist()
        return added


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

        def reference() -> Reference:
            return Reference(learning.model, learning.parameters, learning.lower)

        losses = stage_losses(stage, self._job, trajectories, self._packer, self._generator, reference)
        if checkpoint is not None:
            losses.restore(checkpoint.pools, checkpoint.reference, learning.accelerator.device)
        until = sum(each.updates for each in settings.stages[: number + 1])
        while self._done < until:
            self._update(stage, losses.next())
            if self._done % settings.checkpoint_every == 0:
                self._write(number, losses)

    def _update(self, stage: Stage, batches: Sequence[Batch]) -> None:
        began = time.monotonic()
        losses = self._learning.gradients(batches)
        norm = torch.nn.utils.clip_grad_norm_(self._learning.parameters, self._job.settings.max_gradient_norm)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        self._done += 1
        now, tokens = time.monotonic(), sum(tree.length for batch in batches for tree in batch.trees)
        since = self._done - self._first
        left_s = None if since < 2 else (now - self._began) / since * (self._updates - self._done)
        self._tell(
            Progress(
                objective=stage.objective,
                update=self._done,
                updates=self._updates,
                loss=sum(batch.weight * loss for batch, loss in zip(batches, losses, strict=True)),
                losses=dict(zip(stage.objectives, losses, strict=True)),
                tokens=tokens,
                memory_bytes=_peak_memory(self._learning.accelerator.device),
                tokens_per_s=tokens / max(now - began, 1e-9),
                gradient_norm=norm.item(),
                left_s=left_s,
            )
        )

    def _write(self, stage: int, losses: StageLosses) -> None:
        if not self._learning.accelerator.is_main_process:
            return
        self._checkpoints.write(
            Checkpoint(
                job=self._job.job_id,
                updates=self._done,
                stage=stage,
                pools=losses.pools,
                left_out=self._packer.left_out,
                generator=self._generator.get_state(),
                random=torch.get_rng_state(),
                parameters=[parameter.detach() for parameter in self._learning.parameters],
                reference=None if losses.reference is None else losses.reference.kept,
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
    if tree.parts:
        where = f"{len(tree.parts)} episodes that are {tree.length} tokens with what they share"
        length = "learner.max_length"
    else:
        own = tree.layout.reference
        where = f"an episode that is {tree.length} tokens with its branches, of which {own} are its own"
        length = "learner.max_length (branches)"
    return (
        f"out of memory on {device.type} in {where}: set learner.gradient_checkpointing, lower {length} or "
        "learner.lora.layers, or choose a smaller base model"
    )


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
