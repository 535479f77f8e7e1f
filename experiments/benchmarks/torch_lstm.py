"""The LSTM training step in PyTorch eager, on torch.nn.LSTM: a yardstick of `lmlab bench`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def make(
    *, vocab: int, width: int, layers: int, heads: int, seq_len: int, batch: int, learning_rate: float
) -> tuple[Any, Callable[..., Any]]:
    """A training state (model and optimizer) and `step(state, tokens, targets) -> (state, loss)`, tokens (B, T) int."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class LSTM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocab, width)
            self.layers = nn.LSTM(width, width, layers, batch_first=True)
            self.project = nn.Linear(width, vocab)
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -0.05, 0.05)

        def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            hidden, _ = self.layers(self.embedding(tokens))
            return F.cross_entropy(self.project(hidden).view(-1, vocab), targets.view(-1))

    torch.manual_seed(0)
    model = LSTM()
    decayed = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95))

    def step(state: Any, tokens: np.ndarray, targets: np.ndarray) -> tuple[Any, torch.Tensor]:
        model, optimizer = state
        loss = model(torch.from_numpy(tokens).long(), torch.from_numpy(targets).long())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return state, loss.detach()

    return (model, optimizer), step


def sync(loss: Any) -> float:
    """The loss as a number (PyTorch eager on CPU has finished by then)."""
    return float(loss)
