import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
q, k, v = np.random.default_rng(0).standard_normal((3, 1, 3, 1, 4))
out = jax.nn.dot_product_attention(q, k, v)
weights = np.exp(np.einsum("bthd,bshd->bhts", q, k) / 2)
right = np.einsum("bhts,bshd->bthd", weights / weights.sum(-1, keepdims=True), v)
print(f"{out.dtype}: error above 1e-9: {bool(abs(np.asarray(out) - right).max() > 1e-9)}")
