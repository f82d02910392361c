import mlx.core as mx

x = mx.ones((1, 1, 2, 1))
v = mx.array([1.0, 3.0]).reshape(1, 1, 2, 1)
mask = mx.array([[True, False], [False, False]])
bias = mx.where(mask, mx.array(0.0), mx.array(-mx.inf))
for name, given in (("boolean mask:", mask), ("bias of -inf:", bias)):
    print(name, mx.fast.scaled_dot_product_attention(x, x, v, scale=1.0, mask=given).reshape(-1).tolist())
