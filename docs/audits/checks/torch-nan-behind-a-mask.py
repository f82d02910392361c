import torch
from torch.nn.functional import scaled_dot_product_attention

q = k = torch.ones(1, 1, 2, 1)
v = torch.tensor([1.0, torch.nan]).view(1, 1, 2, 1)
hidden = torch.tensor([[True, False], [True, False]])
print(scaled_dot_product_attention(q, k, v, attn_mask=hidden).flatten().tolist())
