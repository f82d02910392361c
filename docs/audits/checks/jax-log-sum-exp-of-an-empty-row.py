import jax
import jax.numpy as jnp

x = jnp.ones((1, 2, 1, 1), jnp.float32)
mask = jnp.asarray([[True, False], [False, False]])[None, None]
_, lse = jax.nn.dot_product_attention(x, x, x, mask=mask, return_residual=True)
print(lse.ravel().tolist())
