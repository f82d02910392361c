import jax
import jax.numpy as jnp

x = jnp.ones((1, 2, 1, 1), jnp.float32)
v = jnp.asarray([1.0, jnp.nan]).reshape(1, 2, 1, 1)
hidden = jnp.asarray([[True, False], [True, False]])[None, None]
print(jax.nn.dot_product_attention(x, x, v, mask=hidden).ravel().tolist())
