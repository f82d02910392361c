import torch
from torch.nn.functional import scaled_dot_product_attention

q = k = torch.ones(1, 1, 2, 4)
mask = torch.ones(2, 2, dtype=torch.bool)
for width in (4, 8):
    v = torch.ones(1, 1, 2, width)
    try:
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=True)[0, 0, :, 0].tolist()
    except RuntimeError as error:
        out = f"RuntimeError: {error}"
    print("values of width", width, "beside keys of width 4:", out)
