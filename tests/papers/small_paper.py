"""A paper that is measured in seconds: a tiny network on random tokens, and a check."""

from pathlib import Path

GIN = """
experiment.model = @elman
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @sgd
experiment.steps = {steps}
experiment.global_batch_size = 3
experiment.seq_len = 5
experiment.hooks = []
experiment.writers = []
experiment.evaluators = [@perplexity]
experiment.log_every = 5
perplexity.batches = 1
random_tokens.vocab = 11
elman.width = 4
elman.layers = 1
sgd.learning_rate = 0.1
mesh.data = 1
"""

CLAIMS = """
title = "A tiny network"
source = "nowhere"

[runs.tiny]
file = "tiny.gin"
seeds = [0, 1]
minutes = { two_cores = 4.0, h100 = 1.0 }

[[claims]]
id = "loss"
statement = "It learns little."
source = "table 1"
runs = ["tiny"]
metric = "valid/nats_per_token"
unit = "nats"
published = 2.4
band = [0.1, 3.0]
why = "log 11"
early = [{ at = 0.5, band = [0.1, 2.9] }]

[[claims]]
id = "gain"
statement = "It loses less at the end."
source = "figure 1"
runs = ["tiny"]
judge = "gain"
band = [-1.0, 5.0]
why = "so it is"

[[claims]]
id = "seven"
statement = "Seven is seven."
source = "page 7"
check = "counts"
metric = "seven"
published = 7
band = [7, 7]
why = "exact"
minutes = { two_cores = 0.1, h100 = 0.1 }
"""

CHECKS = '''
def counts():
    """Numbers that need no training."""
    return {"seven": 7.0}


def gain(runs):
    losses = runs["tiny"].curve("train/loss")[1]
    return losses[0] - losses[-1]
'''


def write_paper(folder: Path, claims: str = CLAIMS, checks: str = CHECKS, steps: int = 20, name: str = "tiny") -> Path:
    """Writes experiments/papers/tiny; gives the folder of papers."""
    paper = folder / "papers" / name
    paper.mkdir(parents=True, exist_ok=True)
    (paper / "claims.toml").write_text(claims)
    (paper / "checks.py").write_text(checks)
    (paper / "tiny.gin").write_text(GIN.format(steps=steps))
    return folder / "papers"
