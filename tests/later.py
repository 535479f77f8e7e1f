"""Cases of a parametrised test that show a law once more: for `pytest -m long`, so that the suite stays short."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest


def later(cases: Iterable[Any]) -> list[Any]:
    """The cases, marked `long`; a tuple is the values of several arguments."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long) for case in cases]


REPEATED = (
    # These show once more what stands behind them shows at once.
    r"sweeps/test_together.py::test_a_member_is_",  # test_population.py, by the same program
    r"acceptance/test_sweep_command.py::test_each_strategy",  # test_population.py
    r"sweeps/test_halving.py::test_the_best_go_on",  # test_study.py has a sweep with rungs
    r"sweeps/test_launchers.py::test_a_(line|worker)_.*elsewhere",
    r"interop/test_stablehlo.py::test_encoders\[bilstm-tagging\]",  # the other encoder
    r"acceptance/test_embed_command.py::test_a_vector_is_that_of_the_text_read_alone\[bert\]",  # the other model
    r"nn/test_quantized.py::test_a_model_of_integers_.*mamba-int4",  # the other widths and models
    r"conformance/test_matrix.py::test_what_fits_is_trained_.*bilstm-(masked_diffusion-TokenSequence|choice|tagging)",
    r"training/test_updates.py::test_several_updates_keep_the_laws_of_training\[goes_on",  # of_runs, of one update
    r"training/test_adapter_runs.py::test_parameters_split_over_devices",  # tests/parallel
    r"data/test_joint.py::test_an_evaluation_has_the_mean",  # the gradients of the same sums
    r"acceptance/test_generate_and_eval.py::test_(a_run_on_ids|contrastive_search|the_first_of_several|the_same_seed)",
    r"acceptance/test_smoke.py",  # by CI in its second environment, as `-m smoke`
    r"acceptance/test_train_command.py::test_a_signal_during_training_saves_and_exits_with_75\[15\]",
    r"acceptance/test_prepare_command.py::test_killed_before_a_file_is_whole.*\[11\]",
    r"acceptance/test_write_targets.py",  # tests/generation, part by part
    r"conformance/test_every_.*\[(text_files|mixture|held_out|pmap|mesh)-goes_on_where",  # of autoregressive
    r"conformance/test_every_.*\[gpt-(microbatches_change_nothing|learns_one_batch)\]",  # of autoregressive
    r"evaluation/test_coordinates.py::test_sizes_grow",  # test_mup.py, rule by rule
    r"models/test_lstm.py::.*(unrolled|remat)",  # test_gpt.py, of the same stack
    r"training/test_replay.py::test_a_parameter_that_is_not_finite_already",
    r"acceptance/test_hostile.py::test_a_run_that_is_not_finite_and_its_replay",  # test_replay.py
    r"papers/test_reproduce_command.py::test_an_early_look_is_gone_on_with",  # of the sweep engine
    r"acceptance/test_bench.py::test_the_program_written_by_hand.*lstm",  # the other model
    r"conformance/test_every_.*\[(sop|mlm_nsp|prefix_lm|span|choice)-sums_over_rows",  # of mlm, classification
    r"conformance/test_matrix.py::test_what_fits_is_trained_.*bilstm-masked_diffusion-Text",
    r"losses/test_adversarial.py::test_the_policy_gradient_.*previous",
    r"losses/test_weighted.py::test_the_gradient_is_the_sum",  # test_joint.py, over datasets
    r"models/test_encoder_decoder.py::test_it_never_looks_ahead.*t5",
    r"models/test_encoder_decoder.py::test_embedded_tokens_start",
    r"models/test_gpt.py::test_(unrolled|packed)_.*rotary",
    r"models/test_rnn_seq2seq.py::test_logits_are_those_of_float64.*(elman|gru)",
    r"nn/test_blockwise.py::test_every_sight_.*\[7-",
    r"nn/test_experts.py::test_experts_that_are_all_alike.*both",
    r"nn/test_quantized.py::test_qwix_rounds_.*\[-2-",
)
"""Node ids, as regular expressions, of tests that are long because the suite shows the same elsewhere at once."""


def repeats(node: str) -> bool:
    """Whether a test is one of `REPEATED`."""
    return any(re.search(pattern, node) for pattern in REPEATED)
