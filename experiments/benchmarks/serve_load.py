"""How fast `lmlab serve` is, and what becomes of its clients: GPT-2 124M with random weights, on this machine.

    python experiments/benchmarks/serve_load.py runs/serve_load       # makes the run first, if it is not there

It starts the server, waits until it is warm, and asks one client after the other, then all at once, with some requests
among them that are malformed or too long. Every request must get its answer: the greedy texts that come beside others
must be those that came alone, or the script fails.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

VOCAB, WIDTH, LAYERS, POSITIONS = 50257, 768, 12, 1024
WRONG = [b"{", b'{"prompt": 3}', b'{"prompt": "w1", "max_tokens": 100000}', b"x" * (1 << 21)]
"""Requests that must be refused, each with a status from 400 to 499."""


@dataclass
class Written:
    """What a client saw: when the first token came, the whole time, tokens, and the text."""

    first: float
    whole: float
    tokens: int
    text: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder; made with random weights where there is none")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=32, help="tokens of a prompt (default: 32)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to write (default: 64)")
    parser.add_argument("--rounds", type=int, default=2, help="requests of each client (default: 2)")
    args = parser.parse_args()
    if not Path(args.run).exists():
        make_run(args.run)
    command = [sys.executable, "-m", "lmlab", "serve", args.run, "--port", "0", "--slots", str(args.clients)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = started(server)
        measure(port, args)
    finally:
        server.send_signal(signal.SIGTERM)
        print(f"the server ended with {server.wait()}")


def make_run(run: str) -> None:
    """GPT-2 124M with random weights and a vocabulary of 50,256 numbered words, by way of `lmlab import`."""
    from safetensors.numpy import save_file

    draw = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (0.02 * draw.standard_normal(shape)).astype(np.float32)

    tensors = {"wte.weight": normal(VOCAB, WIDTH), "wpe.weight": normal(POSITIONS, WIDTH)}
    norms = ["ln_f"]
    for layer in range(LAYERS):
        products = {"attn.c_attn": 3, "attn.c_proj": 1, "mlp.c_fc": 4}
        for name, times in products.items():
            tensors[f"h.{layer}.{name}.weight"] = normal(WIDTH, times * WIDTH)
            tensors[f"h.{layer}.{name}.bias"] = np.zeros(times * WIDTH, np.float32)
        tensors[f"h.{layer}.mlp.c_proj.weight"] = normal(4 * WIDTH, WIDTH)
        tensors[f"h.{layer}.mlp.c_proj.bias"] = np.zeros(WIDTH, np.float32)
        norms += [f"h.{layer}.ln_1", f"h.{layer}.ln_2"]
    for name in norms:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    config = {
        "model_type": "gpt2", "vocab_size": VOCAB, "n_positions": POSITIONS, "n_embd": WIDTH, "n_layer": LAYERS,
        "n_head": 12, "activation_function": "gelu_new",
    }  # fmt: skip
    end = {"id": VOCAB - 1, "content": "<|endoftext|>", "special": True} | dict.fromkeys(
        ("single_word", "lstrip", "rstrip", "normalized"), False
    )
    words = {f"w{i}": i for i in range(VOCAB - 1)} | {"<|endoftext|>": VOCAB - 1}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [end], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        save_file(tensors, Path(folder) / "model.safetensors")
        (Path(folder) / "config.json").write_text(json.dumps(config))
        (Path(folder) / "tokenizer.json").write_text(json.dumps(tokenizer))
        data = "experiment.dataset = @stdlib"
        subprocess.run([sys.executable, "-m", "lmlab", "import", folder, "--run", run, "--set", data], check=True)


def started(server: subprocess.Popen[str]) -> int:
    """The port, once the server is warm."""
    assert server.stdout is not None
    for line in server.stdout:
        print(line, end="", flush=True)
        if line.startswith("serving"):
            return int(line.split("http://127.0.0.1:")[1].split(",")[0])
    raise SystemExit("the server did not start.")


def measure(port: int, args: argparse.Namespace) -> None:
    draw = np.random.default_rng(1)
    prompts = draw.integers(0, VOCAB - 1, (args.clients, args.prompt)).tolist()

    def write(client: int, tokens: int = args.tokens) -> Written:
        return completion(port, prompts[client], tokens)

    write(0, 2)
    first = [write(client, 1).first for client in range(min(16, args.clients))]
    print(f"first token, idle server: median {statistics.median(first):.3f} s, worst {max(first):.3f} s")

    begun = time.perf_counter()
    alone = [write(client) for client in range(min(4, args.clients))]
    single = sum(one.tokens for one in alone) / (time.perf_counter() - begun)
    print(f"one client: {single:.1f} tokens/s")

    def client(number: int) -> list[Written]:
        return [write(number) for _ in range(args.rounds)]

    begun = time.perf_counter()
    with ThreadPoolExecutor(args.clients + 1) as clients:
        wrong = clients.submit(lambda: [refused(port, body) for body in WRONG * args.rounds])
        together = list(clients.map(client, range(args.clients)))
    seconds = time.perf_counter() - begun
    total = sum(one.tokens for several in together for one in several)
    rates = [sum(one.tokens for one in several) / sum(one.whole for one in several) for several in together]
    firsts = [one.first for several in together for one in several]
    print(f"{args.clients} clients: {total / seconds:.1f} tokens/s, {total / seconds / single:.2f} times one client")
    print(f"  tokens/s of a client: slowest {min(rates):.2f}, fastest {max(rates):.2f}")
    print(f"  first token: median {statistics.median(firsts):.2f} s, worst {max(firsts):.2f} s")
    print(f"  refused: {wrong.result()}")
    assert all(one.tokens == args.tokens for several in together for one in several), "a text is not complete"
    for number, one in enumerate(alone):
        assert all(other.text == one.text for other in together[number]), "beside others a text is another one"
    print(
        f"  {args.clients * args.rounds} of {args.clients * args.rounds} texts complete; equal to those written alone"
    )


def completion(port: int, prompt: list[int], tokens: int) -> Written:
    """Asks for a greedy text and reads it while it appears."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    asked: dict[str, Any] = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True,
                             "stream_options": {"include_usage": True}}  # fmt: skip
    begun = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(asked), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    text, first, written = "", 0.0, 0
    for line in answer:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        event = json.loads(line[6:])
        first = first or time.perf_counter() - begun
        text += "".join(choice["text"] for choice in event["choices"])
        written = event.get("usage", {}).get("completion_tokens", written)
    return Written(first, time.perf_counter() - begun, written, text)


def refused(port: int, body: bytes) -> int:
    """The status of a request that cannot be served."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    status = connection.getresponse().status
    assert 400 <= status < 500, status
    return status


if __name__ == "__main__":
    main()
