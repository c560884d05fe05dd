"""Prints the numbers that outside_numbers_test.cc expects. Needs JAX and Optax: pip install jax optax."""
import jax
import jax.numpy as jnp
import optax

jax.config.update("jax_enable_x64", True)


def show(name, array):
    print(name, ", ".join(f"{float(value)!r}" for value in jnp.ravel(array)))


def wave(shape, start):
    return jnp.reshape(jnp.sin(start + jnp.arange(jnp.prod(jnp.array(shape)), dtype=float)), shape)


def optimizers():
    parameters = [wave((2, 2), 1), wave((3,), 2)]
    adamw = optax.adamw(0.01, b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.1)
    sgd = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.05, momentum=0.9))
    for name, optimizer in [("adamw", adamw), ("sgd", sgd)]:
        values, state = parameters, optimizer.init(parameters)
        for step in range(3):
            gradients = [wave((2, 2), 10 + step), 3 * wave((3,), 20 + step)]
            updates, state = optimizer.update(gradients, state, values)
            values = optax.apply_updates(values, updates)
            for index, value in enumerate(values):
                show(f"{name}, step {step + 1}, parameter {index}:", value)


def loss_of(parameters, x, labels):
    up, up_bias, down, down_bias = parameters
    logits = jax.nn.gelu(x @ up + up_bias, approximate=False) @ down + down_bias
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels)), logits


def mlp():
    parameters = [wave((4, 5), 1), wave((5,), 2), wave((5, 3), 3), wave((3,), 4)]
    x, labels = wave((3, 4), 5), jnp.array([2, 0, 2])
    optimizer = optax.sgd(0.5, momentum=0.9)
    state = optimizer.init(parameters)
    for step in range(3):
        (loss, logits), (gradients, grad_x) = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)(
            parameters, x, labels)
        show(f"step {step + 1}, loss:", loss)
        print("correct:", int(jnp.sum(jnp.argmax(logits, axis=1) == labels)))
        if step == 0:
            show("grad_x:", grad_x)
            for index, gradient in enumerate(gradients):
                show(f"gradient {index}:", gradient)
        updates, state = optimizer.update(gradients, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    for index, value in enumerate(parameters):
        show(f"value {index}:", value)


optimizers()
mlp()
