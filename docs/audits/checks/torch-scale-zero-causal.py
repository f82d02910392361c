import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

q = k = torch.ones(1, 1, 2, 1)
v = torch.tensor([1.0, 3.0]).view(1, 1, 2, 1)
lower = torch.ones(2, 2, dtype=torch.bool).tril()
for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
    with sdpa_kernel(backend):
        causal = scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.0)
        masked = scaled_dot_product_attention(q, k, v, attn_mask=lower, scale=0.0)
    print(backend.name, "is_causal:", causal.flatten().tolist(), "the same as a mask:", masked.flatten().tolist())
