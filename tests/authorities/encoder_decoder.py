"""torch's recurrent layers on sequence to sequence, all steps at once and one by one."""

import torch

from attnspec.reference.encoder_decoder import encode, encoder_decoder_logits, encoder_decoder_start, encoder_decoder_step
from tests.authorities.agreement import Draw, agrees, authority
from tests.authorities.torch_translators import case_of, decode, encoded

torch.set_num_threads(1)


@authority("I05", "torch.nn.Embedding, LSTM, GRU, RNN", of=(encode, encoder_decoder_start))
def torch_encoder(draw: Draw) -> None:
    """States and context of sources of different lengths, packed, one direction or two, one layer or two."""
    case = case_of(draw, "none")
    states, context = encoded(case)
    got = (states.detach().numpy(), tuple(array.detach().numpy() for array in context))
    agrees(got, encode, case.source, case.parameters, case.cell, case.lengths)
    agrees(got[1], encoder_decoder_start, case.source, case.parameters, case.cell, case.lengths)


@authority("I05", "torch.nn.Embedding, LSTM, GRU, RNN, Linear", of=(encoder_decoder_logits,))
def torch_translator(draw: Draw) -> None:
    """Logits of all steps at once: the decoder starts from the context, and sees the right previous words."""
    case = case_of(draw, "none")
    _, state = encoded(case)
    p = case.tensors
    out, _ = decode(case, torch.nn.functional.embedding(torch.tensor(case.inputs), p["target.embedding.weight"]), state)
    got = torch.nn.functional.linear(out, p["output.weight"], p.get("output.bias"))
    agrees(got.detach().numpy(), encoder_decoder_logits, case.source, case.inputs, case.parameters, case.cell, case.lengths)


@authority("I06", "torch.nn layers, one step at a time", of=(encoder_decoder_logits, encoder_decoder_step))
def torch_steps(draw: Draw) -> None:
    """torch step by step against the teacher-forced logits of the reference."""
    case = case_of(draw, "none")
    _, state = encoded(case)
    p, steps = case.tensors, []
    for t in range(case.inputs.shape[1]):
        token = torch.nn.functional.embedding(torch.tensor(case.inputs[:, [t]]), p["target.embedding.weight"])
        out, state = decode(case, token, state)
        steps.append(torch.nn.functional.linear(out, p["output.weight"], p.get("output.bias")))
    got = torch.cat(steps, dim=1)
    agrees(got.detach().numpy(), encoder_decoder_logits, case.source, case.inputs, case.parameters, case.cell, case.lengths)
