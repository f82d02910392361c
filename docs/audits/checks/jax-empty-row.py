import jax
import jax.numpy as jnp

x = jnp.ones((1, 2, 1, 1), jnp.float32)
v = jnp.asarray([1.0, 3.0]).reshape(1, 2, 1, 1)
mask = jnp.asarray([[True, False], [False, False]])[None, None]
print("boolean mask:", jax.nn.dot_product_attention(x, x, v, mask=mask).ravel().tolist())
print("bias of -inf:", jax.nn.dot_product_attention(x, x, v, bias=jnp.where(mask, 0.0, -jnp.inf)).ravel().tolist())
