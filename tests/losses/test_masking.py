"""Masking on the device: the shares are what they are said to be, and nothing is chosen that may not be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.losses.masking import mask_tokens

B, T, V, MASK = 401, 53, 29, 3
SPECIAL = (0, 3, 4)


@pytest.fixture(scope="module")
def rows():
    """Tokens, which may be chosen, and where words begin: words of 1 to 4 tokens, special ids between some."""
    drawn = np.random.default_rng(0)
    tokens = drawn.integers(5, V, (B, T))
    tokens[drawn.random((B, T)) < 0.1] = 0
    allowed = tokens != 0
    allowed[:, -7:] = False
    starts = allowed & ((drawn.random((B, T)) < 0.4) | np.roll(~allowed, 1, axis=1))
    starts[:, 0] = allowed[:, 0]
    return jnp.asarray(tokens), jnp.asarray(allowed), jnp.asarray(starts)


def masked(rows, seed=0, words=False, **settings):
    tokens, allowed, starts = rows
    keys = jax.random.split(jax.random.key(seed), B)
    given = {"mask": MASK, "vocab": V, "special": SPECIAL, "word_starts": starts if words else None, **settings}
    return [np.asarray(part) for part in mask_tokens(tokens, allowed, keys, **given)]


def near(share, expected, count):
    """Within four standard errors of a share of so many independent trials."""
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / count), (share, expected, count)


def test_fifteen_per_cent_are_chosen_of_which_eighty_ten_ten_are_masked_random_and_kept(rows):
    tokens, allowed, _ = map(np.asarray, rows)
    read, chosen = masked(rows)
    assert not (chosen & ~allowed).any() and (read == tokens)[~chosen].all()
    near(chosen.sum() / allowed.sum(), 0.15, allowed.sum())
    n, plain = chosen.sum(), V - len(SPECIAL)
    near((read[chosen] == MASK).mean(), 0.8, n)
    near((read[chosen] == tokens[chosen]).mean(), 0.1 + 0.1 / plain, n)
    assert not np.isin(read[chosen & (read != MASK)], SPECIAL).any()
    random = read[chosen & (read != MASK) & (read != tokens)]
    assert set(random.tolist()) == set(range(V)) - set(SPECIAL)


def test_the_shares_may_be_changed_and_may_be_tracers(rows):
    _, chosen = masked(rows, rate=0.4)
    near(chosen.sum() / np.asarray(rows[1]).sum(), 0.4, np.asarray(rows[1]).sum())
    read, chosen = masked(rows, keep=0.0, random=0.0)
    assert (read[chosen] == MASK).all()
    assert not masked(rows, rate=0.0)[1].any()
    traced = jax.jit(lambda rate: masked_by(rows, rate))
    np.testing.assert_array_equal(traced(0.4), masked(rows, rate=0.4)[1])


def masked_by(rows, rate):
    keys = jax.random.split(jax.random.key(0), B)
    return mask_tokens(rows[0], rows[1], keys, mask=MASK, vocab=V, special=SPECIAL, rate=rate).chosen


def words_of(rows):
    """Numbers of the words, 0 for what belongs to none, by a plain loop."""
    _, allowed, starts = map(np.asarray, rows)
    number = np.zeros((B, T), int)
    for b in range(B):
        word = 0
        for t in range(T):
            word += starts[b, t]
            number[b, t] = word if allowed[b, t] else 0
    return number


def test_whole_words_are_chosen_or_none_of_their_tokens(rows):
    number, (_, chosen) = words_of(rows), masked(rows, words=True)
    picked = total = 0
    for b in range(B):
        for word in set(number[b].tolist()) - {0}:
            values = chosen[b][number[b] == word]
            assert values.all() or not values.any()
            picked, total = picked + values[0], total + 1
    near(picked / total, 0.15, total)


def test_spans_have_the_mean_length_and_the_share_that_were_asked_for(rows):
    everything = (rows[0], jnp.ones((B, T), bool), rows[2])
    lengths, share = [], []
    for seed in range(3):
        _, chosen = masked(everything, seed, rate=0.2, span=3.0)
        share.append(chosen.mean())
        for row in chosen:
            edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(int)))
            inner = [(a, b) for a, b in edges.reshape(-1, 2) if a > 0 and b < T]
            lengths += [b - a for a, b in inner]
    # A run that does not touch an edge is shorter than one that may: compare with the chain, counted by brute force.
    assert abs(np.mean(share) - 0.2) < 0.01
    assert abs(np.mean(lengths) - chain_mean(0.2, 3.0)) < 0.1


def chain_mean(rate, span, draws=20_000):
    drawn, go_on = np.random.default_rng(1), 1 - 1 / span
    begin = rate * (1 - go_on) / (1 - rate)
    chosen, rows = drawn.random(draws) < rate, []
    for _ in range(T):
        rows.append(chosen)
        chosen = drawn.random(draws) < np.where(chosen, go_on, begin)
    padded = np.pad(np.stack(rows, 1).astype(int), ((0, 0), (1, 1)))
    lengths = []
    for row in padded:
        edges = np.flatnonzero(np.diff(row)).reshape(-1, 2)
        lengths += [b - a for a, b in edges if a > 0 and b < T]
    return np.mean(lengths)


def test_a_row_depends_on_its_own_key_only_and_another_step_chooses_others(rows):
    read, chosen = masked(rows)
    keys = jax.random.split(jax.random.key(0), B)
    alone = mask_tokens(rows[0][5:6], rows[1][5:6], keys[5:6], mask=MASK, vocab=V, special=SPECIAL)
    np.testing.assert_array_equal(alone.tokens[0], read[5])
    assert (masked(rows, seed=1)[1] != chosen).any()
