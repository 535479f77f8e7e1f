"""Update rules against PyTorch or NumPy, by role, and with traced numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.errors import ConfigError
from lmlab.optim.optimizers import SGD, Adafactor, AdamW, Lion, Muon
from lmlab.optim.schedules import Linear

SHAPES = {"blocks/kernel": (2, 5, 7), "blocks/bias": (2, 7), "embedding": (11, 5), "scale": (5,)}
ROLES = {"blocks/kernel": "kernel", "blocks/bias": "bias", "embedding": "embedding", "scale": "scale"}
STEPS = 5
EVERY = [SGD(0.1, momentum=0.9), AdamW(0.1), Lion(0.1), Adafactor(0.1, momentum=0.9), Muon(0.1, 0.2)]
name_of = lambda optimizer: type(optimizer).__name__  # noqa: E731


def draw(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}


def descend(optimizer, steps=STEPS, params=None, roles=ROLES):
    rule = optimizer.transformation(roles)
    params = draw(0) if params is None else params
    state = rule.init(params)
    for step in range(steps):
        gradients = {path: value for path, value in draw(step + 1).items() if path in params}
        updates, state = rule.update(gradients, state, params, step=jnp.int32(step))
        params = {path: params[path] + updates[path] for path in params}
    return params


def by_torch(make, decayed=("blocks/kernel", "embedding"), weight_decay=0.0, steps=STEPS):
    torch = pytest.importorskip("torch")
    params = {path: torch.tensor(value, requires_grad=True) for path, value in draw(0).items()}
    groups = [
        {"params": [params[p] for p in params if p in decayed], "weight_decay": weight_decay},
        {"params": [params[p] for p in params if p not in decayed], "weight_decay": 0.0},
    ]
    optimizer = make(torch.optim, groups)
    for step in range(steps):
        for path, gradient in draw(step + 1).items():
            params[path].grad = torch.tensor(gradient)
        optimizer.step()
    return {path: value.detach().numpy() for path, value in params.items()}


def assert_same(got, expected, rtol=2e-5):
    for path in expected:
        np.testing.assert_allclose(got[path], expected[path], rtol=rtol, atol=2e-6, err_msg=path)


def test_adamw_is_pytorchs():
    expected = by_torch(
        lambda optim, groups: optim.AdamW(groups, lr=0.03, betas=(0.8, 0.9), eps=1e-6), weight_decay=0.3
    )
    assert_same(descend(AdamW(0.03, b1=0.8, b2=0.9, eps=1e-6, weight_decay=0.3)), expected)


@pytest.mark.parametrize(("momentum", "nesterov"), [(None, False), (0.9, False), (0.9, True)])
def test_sgd_is_pytorchs(momentum, nesterov):
    expected = by_torch(
        lambda optim, groups: optim.SGD(groups, lr=0.03, momentum=momentum or 0.0, nesterov=nesterov), weight_decay=0.3
    )
    assert_same(descend(SGD(0.03, momentum=momentum, nesterov=nesterov, weight_decay=0.3)), expected)


def test_lion_is_the_papers_algorithm_2():
    rate, b1, b2, decay = 0.03, 0.9, 0.99, 0.5
    expected = {path: value.astype(np.float64) for path, value in draw(0).items()}
    momentum = {path: np.zeros_like(value) for path, value in expected.items()}
    for step in range(STEPS):
        for path, g in draw(step + 1).items():
            shrink = decay if ROLES[path] in ("kernel", "embedding") else 0.0
            update = np.sign(b1 * momentum[path] + (1 - b1) * g)
            expected[path] = expected[path] - rate * (update + shrink * expected[path])
            momentum[path] = b2 * momentum[path] + (1 - b2) * g
    assert_same(descend(Lion(rate, b1, b2, weight_decay=decay)), expected)


def test_adafactor_is_the_papers_algorithm_4():
    rate, shapes = 0.03, {"blocks/kernel": (5, 7), "scale": (5,)}
    expected = {path: value.astype(np.float64) for path, value in draw(0, shapes).items()}
    row, column, full = np.zeros(5), np.zeros(7), np.zeros(5)
    rule = Adafactor(rate, min_size_to_factor=2).transformation({"blocks/kernel": "kernel", "scale": "scale"})
    params = draw(0, shapes)
    state = rule.init(params)
    for step in range(STEPS):
        gradients = draw(step + 1, shapes)
        decay = 1 - (step + 1) ** -0.8
        squares = {path: g.astype(np.float64) ** 2 + 1e-30 for path, g in gradients.items()}
        row = decay * row + (1 - decay) * squares["blocks/kernel"].mean(1)
        column = decay * column + (1 - decay) * squares["blocks/kernel"].mean(0)
        full = decay * full + (1 - decay) * squares["scale"]
        for path, moment in {"blocks/kernel": np.outer(row, column) / row.mean(), "scale": full}.items():
            update = gradients[path] / np.sqrt(moment)
            update /= max(1.0, np.sqrt(np.mean(update**2)))
            expected[path] -= rate * max(1e-3, np.sqrt(np.mean(expected[path] ** 2))) * update
        updates, state = rule.update(gradients, state, params, step=jnp.int32(step))
        params = {path: params[path] + updates[path] for path in params}
    assert_same(params, expected)


@pytest.mark.parametrize("shape", [(3, 5, 7), (3, 7, 5), (3, 31, 29)])
def test_muon_orthogonalizes_each_layer_alone(shape):
    gradient = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def updated(kernel, roles):
        rule = Muon(1.0, 1.0, weight_decay=0.0).transformation(roles)
        params = jax.tree.map(jnp.zeros_like, kernel)
        return rule.update(kernel, rule.init(params), params, step=jnp.int32(0))[0]

    stacked = updated({"kernel": gradient}, {"kernel": "kernel"})["kernel"]
    alone = updated({str(i): gradient[i] for i in range(3)}, {str(i): "kernel" for i in range(3)})
    for i in range(3):
        np.testing.assert_allclose(stacked[i], alone[str(i)], atol=1e-5)
        values = np.linalg.svd(stacked[i] / max(1, shape[2] / shape[1]) ** 0.5, compute_uv=False)
        assert values.min() > 0.3, values
        assert values.max() < 1.3, values
        left, _, right = np.linalg.svd(gradient[i], full_matrices=False)
        assert np.sum(-stacked[i] * (left @ right)) > 0  # downhill, along the gradient's own singular vectors


def test_muon_gives_everything_but_kernels_to_adamw():
    muon = descend(Muon(0.5, 0.03, adam_b1=0.8, adam_b2=0.9, weight_decay=0.3))
    adamw = descend(AdamW(0.03, b1=0.8, b2=0.9, weight_decay=0.3))
    assert not np.allclose(muon.pop("blocks/kernel"), adamw.pop("blocks/kernel"))
    assert_same(muon, adamw)


@pytest.mark.parametrize("optimizer", EVERY, ids=name_of)
def test_the_learning_rate_follows_the_trainers_step(optimizer):
    rule = type(optimizer)(**{**vars(optimizer), "learning_rate": Linear(11, 0.1, final=0.0)}).transformation(ROLES)
    params = draw(0)
    updates, _ = rule.update(draw(1), rule.init(params), params, step=jnp.int32(10))
    assert np.all(updates["blocks/kernel"] == 0)
    updates, _ = rule.update(draw(1), rule.init(params), params, step=jnp.int32(3))
    assert np.all(updates["blocks/kernel"] != 0)


@pytest.mark.parametrize("optimizer", EVERY, ids=name_of)
def test_every_number_may_be_traced(optimizer):
    integers = {"iterations", "min_size_to_factor"}
    numbers = {
        name: value
        for name, value in vars(optimizer).items()
        if isinstance(value, float | int) and not isinstance(value, bool) and name not in integers
    }
    fixed = {name: value for name, value in vars(optimizer).items() if name not in numbers}
    together = jax.jit(jax.vmap(lambda numbers: descend(type(optimizer)(**numbers, **fixed))))(
        {name: jnp.array([value, 0.5 * value]) for name, value in numbers.items()}
    )
    assert_same({path: value[0] for path, value in together.items()}, descend(optimizer), rtol=1e-4)


@pytest.mark.parametrize("optimizer", EVERY, ids=name_of)
def test_weight_decay_shrinks_the_chosen_roles_only(optimizer):
    chosen = {**vars(optimizer), "weight_decay": 0.5, "decay_roles": ("scale",)}
    decayed = descend(type(optimizer)(**chosen), steps=1)
    plain = descend(type(optimizer)(**{**chosen, "weight_decay": 0.0}), steps=1)
    assert {path for path in SHAPES if not np.array_equal(decayed[path], plain[path])} == {"scale"}


def test_a_role_that_does_not_exist_is_refused_with_near_names():
    with pytest.raises(
        ConfigError, match=r"adamw.decay_roles: no parameter role named 'kernels'. Did you mean 'kernel'"
    ):
        AdamW(0.1, decay_roles=("kernels",)).transformation(ROLES)


def test_adafactor_keeps_a_row_and_a_column_of_large_arrays():
    shapes = {"kernel": (3, 128, 131)}
    state = Adafactor(0.1).transformation({"kernel": "kernel"}).init(draw(0, shapes))
    assert sum(np.size(leaf) for leaf in jax.tree.leaves(state)) < 3 * (128 + 131) + 10
