import jax
import jax.numpy as jnp
import numpy as np

attention = jax.nn.dot_product_attention
for dtype, length in (("float16", 2), ("bfloat16", 2), ("bfloat16", 1)):
    x = jnp.ones((1, length, 1, 1), dtype)
    for name, f in (("eager", attention), ("jit", jax.jit(attention))):
        try:
            out = np.asarray(f(x, x, x)).astype(float).ravel().tolist()
        except Exception as error:
            out = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        print(dtype, f"B = H = D = 1, T = S = {length}, {name}:", out)
