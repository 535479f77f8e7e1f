import jax
import jax.numpy as jnp
import pytest

from lmlab.training.nonfinite import watch

HERE = "test_nonfinite.py"
ONES = jnp.ones((2, 3))


def fault_of(function, *args):
    return jax.tree.leaves(watch(function, *args), is_leaf=lambda x: hasattr(x, "fault"))[0].fault


def test_values_are_those_of_the_function_itself():
    def function(x):
        carry, rows = jax.lax.scan(lambda c, a: (jnp.tanh(c + a), c * a), x[0], x)
        return {"a": jax.lax.cond(carry[0] > 0, jnp.sin, jnp.cos, carry), "b": rows, "c": jax.nn.relu(x)}

    wanted, found = function(ONES), watch(function, ONES)
    for name, value in wanted.items():
        assert jnp.array_equal(found[name].value, value)
        assert found[name].fault is None


@pytest.mark.parametrize(
    ("function", "primitive", "kind"),
    [
        (lambda x: jnp.log(x - 1), "log", "inf"),
        (lambda x: jnp.sqrt(x - 2), "sqrt", "nan"),
        (lambda x: 1 / (x - 1), "div", "inf"),
        (lambda x: jnp.exp(x * 1000), "exp", "inf"),
        (lambda x: jnp.inf - jnp.where(x > 0, jnp.inf, x), "sub", "nan"),
        (jax.jit(lambda x: jnp.log(x - 1)), "log", "inf"),
        (jax.checkpoint(lambda x: jnp.log(x - 1)), "log", "inf"),
        (jax.grad(lambda x: jax.checkpoint(lambda x: jnp.log(x - 1))(x).sum()), "div", "inf"),
        (lambda x: jax.lax.cond(x.sum() > 0, lambda x: jnp.log(x - 1), lambda x: x, x), "log", "inf"),
        (lambda x: jax.lax.scan(lambda c, a: (jnp.log(c - 1) + a, None), x[0], x)[0], "log", "inf"),
        (lambda x: jax.lax.scan(lambda c, a: (c, jnp.log(a - 1)), x[0], x, reverse=True)[1], "log", "inf"),
        (lambda x: jax.lax.fori_loop(0, 3 + x.shape[0], lambda i, x: jnp.log(x - 1), x), "log", "inf"),
        (lambda x: jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: jnp.log(x - 1), x), "log", "inf"),
    ],
)  # fmt: skip
def test_the_first_operation_at_fault_is_named_with_its_place(function, primitive, kind):
    fault = fault_of(function, ONES)
    assert (fault.first.primitive, fault.first.kind) == (primitive, kind)
    assert HERE in fault.first.place


def test_custom_derivatives_are_entered():
    @jax.custom_vjp
    def safe(x):
        return jnp.sin(x)

    safe.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g / (x - 1),))
    assert fault_of(jax.grad(lambda x: safe(x).sum()), ONES).first.primitive == "div"
    assert fault_of(lambda x: jax.nn.log_softmax(jnp.log(x - 1)), ONES).first.primitive == "log"


def test_an_infinity_that_was_written_down_is_no_fault():
    def attention(x):
        scores = jnp.where(jnp.tril(jnp.ones((3, 3))) > 0, x @ x.T, -jnp.inf)
        return jax.nn.softmax(scores) @ x

    assert fault_of(attention, jnp.ones((3, 3))) is None


def test_a_row_without_anything_to_attend_to_is_one():
    fault = fault_of(lambda x: jax.nn.softmax(jnp.where(x > 5, x, -jnp.inf)), ONES)
    assert fault.kind == "nan"
    assert fault.cause is None


def test_an_infinity_that_was_masked_away_is_not_blamed():
    def function(x):
        masked = jnp.where(x > 5, jnp.log(x - 1), 0.0)
        return jnp.sqrt(masked - 1)

    assert fault_of(function, ONES).first.primitive == "sqrt"


def test_a_gradient_spoilt_behind_a_mask_is_traced_to_its_beginning():
    loss, gradient = watch(jax.value_and_grad(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0).sum()), jnp.zeros(3))
    assert loss.fault is None
    assert (gradient.fault.kind, gradient.fault.primitive) == ("nan", "mul")
    assert (gradient.fault.first.kind, gradient.fault.first.primitive) == ("inf", "div")


def test_what_was_given_not_finite_is_nobodys_fault():
    assert fault_of(lambda x: x * 2, ONES * jnp.nan) is None
