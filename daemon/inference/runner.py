"""Batches the sequences of one loaded model. The engine's thread calls `step` as long as there is work.

A step is one forward pass: one token of every reply under way and as many prompt tokens as the budget allows.
"""

import itertools
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from daemon.inference.attention import SlotBatch, SlotStorage
from daemon.inference.sampling import draw_tokens, likeliest, log_probabilities
from daemon.inference.segments import NewTokens, plan_attention
from daemon.inference.sequence import Sequence
from daemon.inference.slots import SlotTable
from learners.architecture import attention_windows
from learners.output_head import OutputHead

# Scoring a prompt needs the logits of all its tokens; this many at a time bound the memory (50 MB for 49,152 words).
_SCORED_AT_ONCE = 256


@dataclass(slots=True)
class Counters:
    """Tokens of a model since it was loaded: computed of prompts, reused of prompts, drawn for replies."""

    prefilled: int = 0
    reused: int = 0
    decoded: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(self.prefilled + other.prefilled, self.reused + other.reused, self.decoded + other.decoded)


@dataclass(frozen=True, slots=True)
class _Piece:
    """The tokens that one sequence gets computed in this step."""

    sequence: Sequence
    tokens: int


class Runner:
    """One model with its slots. One thread at a time steps it; any may read the two counts and `counters`."""

    def __init__(self, model: PreTrainedModel, *, slots: int, max_length: int, prefill_budget: int) -> None:
        config = model.config.get_text_config()
        self._model = model
        self._head = OutputHead(model)
        # Kept apart, since prepared linear layers hide the data type that the model was loaded in.
        self._dtype = model.dtype
        self._budget = prefill_budget
        self.counters = Counters()
        heads = config.num_attention_heads
        key_heads = getattr(config, "num_key_value_heads", None) or heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        self._groups = heads // key_heads
        self._windows = attention_windows(config)
        self._storage = SlotStorage((config.num_hidden_layers, slots, key_heads, max_length, size), model.dtype)
        self._table = SlotTable(slots, max_length)
        self._waiting: deque[Sequence] = deque()
        self._active: list[Sequence] = []

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @property
    def active_count(self) -> int:
        return len(self._active)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._active

    def cancel_all(self) -> None:
        """Cancel what is unfinished, and tell."""
        for sequence in (*self._active, *self._waiting):
            sequence.cancelled = True
        self._drop_cancelled()

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    @torch.inference_mode()
    def step(self) -> bool:
        """Do one forward pass; False if there was nothing to do."""
        self._drop_cancelled()
        self._admit()
        pieces = self._pieces()
        if not pieces:
            return False
        hidden = self._forward(pieces)
        self._score_prompts(pieces, hidden)
        self._draw(pieces, hidden)
        self._retire()
        # After the slots are free, so that a client that hears of an end and asks again finds them free.
        for piece in pieces:
            piece.sequence.tell()
        return True

    def _drop_cancelled(self) -> None:
        for sequence in (*self._active, *self._waiting):
            if sequence.cancelled:
                sequence.finish_reason = "cancelled"
                sequence.tell()
        self._waiting = deque(sequence for sequence in self._waiting if sequence.finish_reason is None)
        self._retire()

    def _retire(self) -> None:
        for sequence in self._active:
            if sequence.finish_reason is not None:
                self._table.release(sequence.slot)
        self._active = [sequence for sequence in self._active if sequence.finish_reason is None]

    def _admit(self) -> None:
        # The oldest that could fit, longest first: what is a prefix of another prompt then finds that one being
        # computed, and waits to copy it.
        window = itertools.islice(self._waiting, self._table.idle_count)
        placed: set[int] = set()
        for sequence in sorted(window, key=lambda waiting: -len(waiting.prompt)):
            # What predicts the first scored token is computed again, for its state.
            most = None if sequence.scored_from is None else sequence.scored_from - 1
            placement = self._table.place(sequence.prompt, most=most)
            if placement is None:
                continue
            if placement.copy_from is not None:
                self._storage.copy(placement.copy_from, placement.slot, placement.reused)
            sequence.slot = placement.slot
            sequence.computed = sequence.cached = placement.reused
            self.counters.reused += placement.reused
            self._active.append(sequence)
            placed.add(id(sequence))
        if placed:
            self._waiting = deque(sequence for sequence in self._waiting if id(sequence) not in placed)

    def _pieces(self) -> list[_Piece]:
        """Every reply under way, and prompts in the order of their arrival up to the budget; ordered by slot."""
        budget = self._budget
        pieces = []
        for sequence in self._active:
            if not sequence.prefilling:
                pieces.append(_Piece(sequence, 1))
            elif budget > 0:
                tokens = min(len(sequence.prompt) - sequence.computed, budget)
                budget -= tokens
                pieces.append(_Piece(sequence, tokens))
        return sorted(pieces, key=lambda piece: piece.sequence.slot)

    def _forward(self, pieces: list[_Piece]) -> torch.Tensor:
        """The last hidden states of all new tokens, (tokens, size); stores their keys and values."""
        tokens = np.concatenate([piece.sequence.pending[: piece.tokens] for piece in pieces])
        slots = np.repeat([piece.sequence.slot for piece in pieces], [piece.tokens for piece in pieces])
        positions = np.concatenate(
            [np.arange(piece.sequence.computed, piece.sequence.computed + piece.tokens) for piece in pieces]
        )
        place = torch.from_numpy(positions)
        new = [NewTokens(piece.sequence.slot, piece.sequence.computed, piece.tokens) for piece in pieces]
        plan = plan_attention(new, self._table, groups=self._groups, dtype=self._dtype, windows=self._windows)
        batch = SlotBatch(self._storage, torch.from_numpy(slots), place, plan)
        hidden: torch.Tensor = self._model.base_model(
            input_ids=torch.from_numpy(tokens).long()[None], position_ids=place[None], use_cache=False, slot_batch=batch
        ).last_hidden_state[0]
        for piece in pieces:
            sequence = piece.sequence
            self.counters.prefilled += piece.tokens if sequence.prefilling else 0
            sequence.computed += piece.tokens
            self._table.computed(sequence.slot, sequence.computed)
        return hidden

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._head(hidden).float()

    def _score_prompts(self, pieces: list[_Piece], hidden: torch.Tensor) -> None:
        wanted: list[Sequence] = []
        tokens: list[int] = []
        states: list[int] = []
        end = 0
        for piece in pieces:
            end += piece.tokens
            sequence = piece.sequence
            if sequence.scored_from is not None:
                # The state of a token predicts the one behind it; the last state of the prompt predicts nothing known.
                first = max(sequence.scored_from, sequence.computed - piece.tokens + 1)
                for position in range(first, min(sequence.computed + 1, len(sequence.prompt))):
                    wanted.append(sequence)
                    tokens.append(int(sequence.prompt[position]))
                    states.append(end - 1 - sequence.computed + position)
            if sequence.sampling is None and not sequence.prefilling:
                sequence.finish_reason = "length"
        for at in range(0, len(states), _SCORED_AT_ONCE):
            part = slice(at, at + _SCORED_AT_ONCE)
            values = log_probabilities(self._logits(hidden[states[part]]), tokens[part])
            for sequence, value in zip(wanted[part], values, strict=True):
                sequence.prompt_logprobs.append(value)

    def _draw(self, pieces: list[_Piece], hidden: torch.Tensor) -> None:
        ends = np.cumsum([piece.tokens for piece in pieces])
        ready = [
            (piece.sequence, int(end) - 1)
            for piece, end in zip(pieces, ends, strict=True)
            if piece.sequence.sampling is not None and not piece.sequence.prefilling
        ]
        if not ready:
            return
        sequences = [sequence for sequence, _ in ready]
        logits = self._logits(hidden[[last for _, last in ready]])
        tokens = draw_tokens(_steered(logits, sequences), [sequence.draw for sequence in sequences])
        wanted = any(sequence.logprobs for sequence in sequences)
        logprobs = log_probabilities(logits, tokens) if wanted else [0.0] * len(tokens)
        self.counters.decoded += len(ready)
        for row, (sequence, token, logprob) in enumerate(zip(sequences, tokens, logprobs, strict=True)):
            sequence.take(
                token,
                logprob if sequence.logprobs else None,
                tuple(likeliest(logits[row], sequence.likeliest)) if sequence.likeliest else None,
            )
            if sequence.finish_reason is None:
                self._table.append(sequence.slot, token)


def _steered(logits: torch.Tensor, sequences: list[Sequence]) -> torch.Tensor:
    """The logits to draw from; `logits` itself, which log-probabilities are told of, stays as it is."""
    if all(sequence.steering is None for sequence in sequences):
        return logits
    return torch.stack(
        [
            row if sequence.steering is None else sequence.steering.steer(row, sequence.drawn)
            for row, sequence in zip(logits, sequences, strict=True)
        ]
    )
