"""lm-evaluation-harness on an imported model: what it asks is answered as its own `hf` back end answers it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("safetensors")
pytest.importorskip("lm_eval")
from lm_eval import simple_evaluate  # noqa: E402  # behind what skips without it
from lm_eval.api.instance import Instance  # noqa: E402

HFLM = pytest.importorskip("lm_eval.models.huggingface", exc_type=ImportError).HFLM  # which needs accelerate
from tokenizers import ByteLevelBPETokenizer  # noqa: E402
from tokenizers.processors import TemplateProcessing  # noqa: E402

from lmlab.cli.main import main  # noqa: E402
from lmlab.errors import ConfigError  # noqa: E402
from lmlab.generation.saved import SavedRun  # noqa: E402
from lmlab.interop.harness import task_manager  # noqa: E402
from lmlab.interop.harness_model import HarnessModel  # noqa: E402
from lmlab.interop.hugging_face import import_checkpoint  # noqa: E402

T, L, H, K = 29, 2, 3, 4  # positions, layers, heads, width of a head
TEXTS = [
    "The dog barks at the cat. ", "Whether the weather is cold, or whether the weather is hot, ", "we'll weather",
    "She sells sea shells by the sea shore; the shells she sells are sea shells, I'm sure. So if she sells sea shells",
]  # fmt: skip
END, BEGIN = "<|endoftext|>", "<s>"


def tokenizer(begins: bool) -> Any:
    """As GPT-2 has it, or as Llama does: with a beginning of text before every text."""
    made, special = ByteLevelBPETokenizer(), [END, BEGIN] if begins else [END]
    made.train_from_iterator(TEXTS * 5, vocab_size=331, min_frequency=2, special_tokens=special, show_progress=False)
    if begins:
        made.post_processor = TemplateProcessing(
            single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, made.token_to_id(BEGIN))]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, eos_token=END, bos_token=BEGIN if begins else END, model_max_length=T
    )


def network(kind: str, words: Any) -> Any:
    ids = {"vocab_size": len(words), "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    if kind == "gpt2":
        config = transformers.GPT2Config(n_positions=T, n_embd=H * K, n_layer=L, n_head=H, **ids)
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        hidden_size=H * K, intermediate_size=23, num_hidden_layers=L, num_attention_heads=H,
        max_position_embeddings=T, pad_token_id=None, **ids,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


class Pair:
    """One model, ours and theirs."""

    def __init__(self, kind: str, folder: Path) -> None:
        words = tokenizer(begins=kind == "llama")
        theirs = network(kind, words)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for path, weight in theirs.named_parameters():
                scale = weight.ndim == 1 and path.endswith("weight")
                weight.copy_(scale + 0.3 * torch.randn(weight.shape, generator=generator))
        theirs.eval().save_pretrained(folder / "checkpoint")
        words.save_pretrained(folder / "checkpoint")
        self.run = folder / "run"
        import_checkpoint(folder / "checkpoint", self.run)
        saved = SavedRun(str(self.run))
        self.ours = HarnessModel(saved.program, saved.params())
        # Their cache of logits is off: it mistakes one text that is cut in two at several places.
        self.theirs = HFLM(pretrained=theirs, tokenizer=words, batch_size=3, device="cpu", logits_cache=False)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(request.param, tmp_path_factory.mktemp(request.param))


def asked(kind: str, *each: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, args, i) for i, args in enumerate(each)]


LONG = " ".join(TEXTS)


def test_continuations_have_the_log_likelihood_that_the_hf_back_end_gives_them(pair: Pair) -> None:
    requests = asked(
        "loglikelihood",
        ("The dog", " barks"),
        ("The dog ", "barks"),  # the space belongs to the continuation
        ("The do", "g barks"),  # what is one token when they stand together
        ("", "Whether the weather"),
        (f"{END}The dog", f" barks{END}"),  # special tokens that are meant
        (f"{BEGIN}The dog", " barks"),  # the text brings its own beginning
        (LONG, " sea shells"),  # the beginning of the context is left out
        ("She sells", TEXTS[0] * 2),
        *((text[:n], text[n:40]) for text in TEXTS if len(text) > 20 for n in range(3, 10)),
    )
    assert len(pair.theirs.tok_encode(LONG)) > T + 5, "the test needs a context that is too long"
    whole, first = (pair.theirs.tok_encode(text) for text in ("The dog barks", "The do"))
    assert whole[: len(first)] != first, "the test needs a token across the edge"
    found, wanted = pair.ours.loglikelihood(requests), pair.theirs.loglikelihood(requests, disable_tqdm=True)
    np.testing.assert_allclose([f for f, _ in found], [w for w, _ in wanted], atol=1e-4)
    assert [f for _, f in found] == [w for _, w in wanted]
    context = pair.theirs.tok_encode("She sells")
    ids = torch.tensor([context])
    with torch.no_grad():
        best = pair.theirs.model.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0)[0, len(context) :]
    others = [*best.tolist()[:-1], int(best[-1]) ^ 1]
    greedy = pair.ours._loglikelihood_tokens([(None, context, best.tolist()), (None, context, others)])
    assert [is_greedy for _, is_greedy in greedy] == [True, False]


def test_whole_texts_are_read_in_the_windows_of_the_hf_back_end(pair: Pair) -> None:
    requests = asked("loglikelihood_rolling", (LONG,), (TEXTS[0],), (LONG * 2,), ("x",), ("",))
    found = pair.ours.loglikelihood_rolling(requests)
    np.testing.assert_allclose(found, pair.theirs.loglikelihood_rolling(requests, disable_tqdm=True), atol=1e-3)
    assert (found[-1] == 0) == (len(pair.theirs.tok_encode("")) == 0)


def test_texts_are_those_that_the_hf_back_end_writes(pair: Pair) -> None:
    how = ({"until": ["e"], "max_gen_toks": 7}, {"until": ["zz"], "max_gen_toks": 11, "do_sample": False})
    requests = asked("generate_until", *((text, kwargs) for kwargs in how for text in (*TEXTS, LONG, "S")))
    found = pair.ours.generate_until(requests)
    assert found == pair.theirs.generate_until(requests, disable_tqdm=True)
    assert len(set(found)) > 5


TASKS = {
    "tiny_choice": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "tiny_text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
    "tiny_write": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{written}}"
generation_kwargs: {until: ["e"], max_gen_toks: 5, do_sample: false}
metric_list: [{metric: exact_match}]
""",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    drawn = np.random.default_rng(0)
    words = LONG.split()
    rows = []
    for n in range(17):
        start = int(drawn.integers(0, len(words) - 9))
        choices = [" " + " ".join(drawn.permutation(words)[: 1 + k]) for k in range(3)]
        rows.append({"question": " ".join(words[start : start + 3 + n % 5]), "choices": choices, "answer": n % 3})
        rows[-1]["written"] = "" if n % 2 else "nothing of the kind"
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        data = f"dataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl}}, cache_dir: {folder}/cache}}"
        (folder / f"{name}.yaml").write_text(f"task: {name}\ndataset_path: json\n{data}\ntest_split: test\n{text}")
    (folder / "broken.yaml").write_text(
        "task: tiny_broken\ndataset_path: json\ndataset_kwargs: {data_files: gone.jsonl}\n"
    )
    return folder


def test_tasks_have_equal_scores(pair: Pair, tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ",".join(TASKS)
    assert main(["eval", str(pair.run), "--harness", names, "--include", str(tasks)]) == 0
    assert "tiny_choice/acc_norm" in capsys.readouterr().out
    saved = json.loads((pair.run / "eval" / f"0-harness-{names.replace(',', '-')}.json").read_text())["results"]
    theirs = simple_evaluate(
        model=pair.theirs,
        tasks=list(TASKS),
        task_manager=task_manager(str(tasks)),
        log_samples=False,
        bootstrap_iters=9,
    )["results"]
    for task, metrics in {
        "tiny_choice": ("acc", "acc_norm", "acc_stderr"), "tiny_write": ("exact_match",),
        "tiny_text": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    }.items():  # fmt: skip
        for metric in metrics:
            wanted = theirs[task][f"{metric},none"]
            assert saved[task][metric] == (pytest.approx(wanted, rel=1e-5) if task == "tiny_text" else wanted)
    assert 0 < saved["tiny_choice"]["acc"] < 1


def test_what_cannot_be_done_is_one_line(pair: Pair, tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(pair.run)
    for words, code, said in (
        (["--harness", "tiny_txt", "--include", str(tasks)], 2, "no task 'tiny_txt'"),
        (["--harness", ","], 2, "name a task"),
        (["--harness", "tiny_broken", "--include", str(tasks)], 3, "the harness cannot load it: FileNotFoundError"),
        (["--harness", "tiny_text", "--split", "test"], 2, "--harness brings its own data: leave --split out"),
        (["--harness", "tiny_text", "--include", "nowhere"], 2, "--include nowhere: there is no such folder"),
        (["--harness", "tiny_choice", "--include", str(tasks), "--fewshot", "99"], 3, "cannot use it: ValueError"),
        (["--include", str(tasks)], 2, "--include is of --harness TASK"),
        (["--harness", "tiny_text", "--include", str(tasks), "--limit", "0"], 2, "--limit 0: it must be at least 1"),
    ):
        assert main(["eval", run, *words]) == code
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("lmlab: ") and said in last
    with pytest.raises(ConfigError, match="ask for num_beams; lmlab knows"):
        pair.ours.generate_until(asked("generate_until", ("a", {"num_beams": 3, "max_gen_toks": 2})))
    with pytest.raises(ConfigError, match=f"asks for texts of {T} tokens, and the model reads {T}"):
        pair.ours.generate_until(asked("generate_until", ("a", {"max_gen_toks": T})))
