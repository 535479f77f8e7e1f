"""`lmlab sweep` on a terminal: a table of what goes on, lines above it, and nothing left of it afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress

FILE = """
experiment.model = @elman
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @sgd
experiment.steps = 500
experiment.global_batch_size = 3
experiment.seq_len = 5
experiment.hooks = []
random_tokens.vocab = 11
elman.width = 4
elman.layers = 1
mesh.data = 1
sweep.axes = {'sgd.learning_rate': [0.1, 0.3]}
"""


def test_a_table_shows_who_is_at_work_how_far_all_is_and_what_is_best(tmp_path, monkeypatch):
    file, sweep = tmp_path / "mine.gin", tmp_path / "sweep"
    file.write_text(FILE)
    said: list[bytes] = []

    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    words = [sys.executable, "-m", "lmlab", "sweep", str(file), "--folder", str(sweep), "--workers", "1"]
    terminal, its_end = os.openpty()
    process = subprocess.Popen(words, stdin=its_end, stdout=its_end, stderr=its_end)
    os.close(its_end)
    with suppress(OSError):  # which is how a terminal without anybody at its other end is read
        while found := os.read(terminal, 10_000):
            said.append(found)
    os.close(terminal)
    assert process.wait() == 0, b"".join(said)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", b"".join(said).decode()).replace("\r", "")
    assert re.search(r"trial +seed +step +setting\n", shown)
    assert re.search(r"[0-9a-f]{12} +0 +[\d,]+/500 +sgd.learning_rate = 0.1", shown)
    assert re.search(r"1 running, 1 pending", shown)
    assert re.search(r"best so far: valid/\w+(/\w+)? \d+(\.\d+)?, seed 0, sgd.learning_rate = 0\.\d", shown)
    assert re.search(r"\[2/2\] [0-9a-f]{12} seed 0, sgd.learning_rate = 0.3: ok", shown)
    assert shown.rstrip().endswith(f"2 ok: {sweep}")
