import mlx.core as mx

x = mx.ones((1, 1, 2, 1))
v = mx.array([1.0, mx.nan]).reshape(1, 1, 2, 1)
hidden = mx.array([[True, False], [True, False]])
print(mx.fast.scaled_dot_product_attention(x, x, v, scale=1.0, mask=hidden).reshape(-1).tolist())
