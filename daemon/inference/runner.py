"""Batches the sequences of one loaded model. The engine's thread calls `step` as long as there is work.

A step is one forward pass: one token of every reply under way, with a draft of those behind it where there are few, and
as many prompt tokens as the budget allows.
"""

import itertools
from collections import deque
from dataclasses import dataclass, fields

import numpy as np
import torch
from transformers import PreTrainedModel

from daemon.inference.attention import SlotBatch, SlotStorage
from daemon.inference.drafting import draft, draft_length
from daemon.inference.sampling import draw_tokens, likeliest, log_probabilities
from daemon.inference.segments import NewTokens, plan_attention
from daemon.inference.sequence import Sequence
from daemon.inference.slots import SlotTable, Tokens
from learners.architecture import attention_windows
from learners.output_head import OutputHead

# Scoring a prompt needs the logits of all its tokens; this many at a time bound the memory (50 MB for 49,152 words).
_SCORED_AT_ONCE = 256


@dataclass(slots=True)
class Counters:
    """Tokens of a model since it was loaded: computed of prompts, reused of prompts, drawn for replies, and of drafts.

    `accepted` ones of those `drafted` were drawn, and needed no pass of their own.
    """

    prefilled: int = 0
    reused: int = 0
    decoded: int = 0
    drafted: int = 0
    accepted: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(frozen=True, slots=True)
class _Piece:
    """The tokens that one sequence gets computed in this step: `known` ones, and a draft of those behind them."""

    sequence: Sequence
    known: int
    draft: Tokens

    @property
    def count(self) -> int:
        return self.known + len(self.draft)


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
        replies = sum(not sequence.prefilling for sequence in self._active)
        pieces = []
        for sequence in self._active:
            if not sequence.prefilling:
                pieces.append(_Piece(sequence, 1, self._drafted(sequence, draft_length(replies))))
            elif budget > 0:
                tokens = min(len(sequence.prompt) - sequence.computed, budget)
                budget -= tokens
                pieces.append(_Piece(sequence, tokens, sequence.prompt[:0]))
        return sorted(pieces, key=lambda piece: piece.sequence.slot)

    def _drafted(self, sequence: Sequence, most: int) -> Tokens:
        assert sequence.sampling is not None
        # The last token of a reply is never computed itself.
        left = sequence.sampling.max_tokens - len(sequence.drawn) - 1
        drafted = draft(self._table.tokens(sequence.slot), min(most, left))
        self.counters.drafted += len(drafted)
        return drafted

    def _forward(self, pieces: list[_Piece]) -> torch.Tensor:
        """The last hidden states of all new tokens, (tokens, size); stores their keys and values."""
        tokens = np.concatenate(
            [part for piece in pieces for part in (piece.sequence.pending[: piece.known], piece.draft)]
        )
        slots = np.repeat([piece.sequence.slot for piece in pieces], [piece.count for piece in pieces])
        positions = np.concatenate(
            [np.arange(piece.sequence.computed, piece.sequence.computed + piece.count) for piece in pieces]
        )
        place = torch.from_numpy(positions)
        new = [NewTokens(piece.sequence.slot, piece.sequence.computed, piece.count) for piece in pieces]
        plan = plan_attention(new, self._table, groups=self._groups, dtype=self._dtype, windows=self._windows)
        batch = SlotBatch(self._storage, torch.from_numpy(slots), place, plan)
        hidden: torch.Tensor = self._model.base_model(
            input_ids=torch.from_numpy(tokens).long()[None], position_ids=place[None], use_cache=False, slot_batch=batch
        ).last_hidden_state[0]
        for piece in pieces:
            sequence = piece.sequence
            self.counters.prefilled += piece.known if sequence.prefilling else 0
            sequence.computed += piece.known
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
            end += piece.count
            sequence = piece.sequence
            if sequence.scored_from is not None:
                # The state of a token predicts the one behind it; the last state of the prompt predicts nothing known.
                first = max(sequence.scored_from, sequence.computed - piece.known + 1)
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
        """Draw the next token of each reply, and those behind it for as long as the ones before are as drafted."""
        drawing: list[tuple[_Piece, int]] = []
        rows: list[int] = []
        end = 0
        for piece in pieces:
            end += piece.count
            if piece.sequence.sampling is not None and not piece.sequence.prefilling:
                drawing.append((piece, len(rows)))
                rows += range(end - 1 - len(piece.draft), end)
        if not rows:
            return
        logits = self._logits(hidden[rows])
        ahead = 0
        while drawing:
            self._draw_one_each([piece.sequence for piece, _ in drawing], logits[[row + ahead for _, row in drawing]])
            drawing = [(piece, row) for piece, row in drawing if self._accepts(piece, ahead)]
            ahead += 1

    def _draw_one_each(self, sequences: list[Sequence], logits: torch.Tensor) -> None:
        tokens = draw_tokens(_steered(logits, sequences), [sequence.draw for sequence in sequences])
        wanted = any(sequence.logprobs for sequence in sequences)
        logprobs = log_probabilities(logits, tokens) if wanted else [0.0] * len(tokens)
        self.counters.decoded += len(sequences)
        for row, (sequence, token, logprob) in enumerate(zip(sequences, tokens, logprobs, strict=True)):
            sequence.take(
                token,
                logprob if sequence.logprobs else None,
                tuple(likeliest(logits[row], sequence.likeliest)) if sequence.likeliest else None,
            )
            if sequence.finish_reason is None:
                self._table.append(sequence.slot, token)

    def _accepts(self, piece: _Piece, ahead: int) -> bool:
        """Return whether the token just drawn is the drafted one, whose keys and values are there already."""
        sequence = piece.sequence
        if sequence.finish_reason is not None or ahead == len(piece.draft) or sequence.drawn[-1] != piece.draft[ahead]:
            return False
        sequence.computed += 1
        self._table.computed(sequence.slot, sequence.computed)
        self.counters.accepted += 1
        return True


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
