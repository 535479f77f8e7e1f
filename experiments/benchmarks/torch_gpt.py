"""The GPT training step in PyTorch eager, as nanoGPT writes it: a yardstick of `lmlab bench`."""

from __future__ import annotations

import math
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

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows, time, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
            q, k, v = (a.view(rows, time, heads, width // heads).transpose(1, 2) for a in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).contiguous().view(rows, time, width))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.positions = nn.Embedding(vocab, width), nn.Embedding(seq_len, width)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.norm = nn.LayerNorm(width)
            self.project = nn.Linear(width, vocab, bias=False)
            self.project.weight = self.embedding.weight
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2:
                    residual = name.endswith(("out.weight", "down.weight"))
                    nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * layers) if residual else 1))
                elif name.endswith("bias"):
                    nn.init.zeros_(parameter)

        def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            x = self.embedding(tokens) + self.positions(torch.arange(seq_len))
            for block in self.blocks:
                x = block(x)
            logits = self.project(self.norm(x))
            return F.cross_entropy(logits.view(-1, vocab), targets.view(-1))

    torch.manual_seed(0)
    model = GPT()
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
