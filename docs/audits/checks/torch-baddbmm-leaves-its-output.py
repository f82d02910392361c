import torch

for dtype in (torch.float32, torch.bfloat16):
    for size in (8, 64):
        a = torch.ones(2, size, size, dtype=dtype)
        for beta in (0.0, 0.5):
            out = torch.full((2, size, size), 8.0, dtype=dtype)
            out.baddbmm_(a, a, beta=beta, alpha=0)
            print(dtype, f"{size} x {size}: {beta} * 8 + 0 * (a @ a) =", out.unique().tolist())
