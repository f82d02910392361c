import os

os.environ["KERAS_BACKEND"] = "torch"

import torch
from keras.ops import dot_product_attention

x = torch.ones(1, 2, 1, 4, dtype=torch.float64)
print(x.dtype, "in,", dot_product_attention(x, x, x).dtype, "out")
