import torch
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(vocab_size=96, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
ids, mask = torch.arange(10, 22)[None], torch.tensor([[0, 0] + [1] * 10])
for dtype in (torch.float32, torch.float64):
    for attn in ("eager", "sdpa"):
        torch.manual_seed(0)
        model = LlamaForCausalLM._from_config(config, attn_implementation=attn).to(dtype).eval()
        with torch.no_grad():
            logits = model(ids, attention_mask=mask).logits
        finite = int(logits[0, 2:].isfinite().all(-1).sum())
        print(f"{dtype}, {attn}: {finite} of 10 real tokens have finite logits")
