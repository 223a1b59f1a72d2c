#!/usr/bin/env python3
"""Makes model/tests/fixture/{lstm32,lstm64,rnn32}.bin: what PyTorch's own layers say.

Needs torch (2.15 made the committed files). Seeds are fixed; the weights are twice as large as a
fresh layer's, so that gates saturate. Given numbers are multiples of 1/4096, exact in both formats.
All little-endian:

    u32  gates (4: LSTM, 1: RNN with tanh), inputs, hidden, items, steps
    i16  4096 times: weight_ih [gates * hidden][inputs], weight_hh [gates * hidden][hidden],
         bias_ih, bias_hh [gates * hidden], x [steps][items][inputs], h0, c0 [items][hidden]
    f32  outputs [steps][items][hidden], the last c [items][hidden]

An RNN has neither c0 nor c.
"""

import struct
import sys
from pathlib import Path

import torch

ITEMS, STEPS, INPUTS, ONE = 3, 32, 12, 4096
OUT = Path(__file__).resolve().parent.parent / "tests" / "fixture"


def exact(tensor):
    return (tensor * ONE).round().clamp(-32768, 32767) / ONE


def small(tensor):
    whole = (tensor.detach() * ONE).to(torch.int16)
    assert torch.equal(whole / ONE, tensor)
    return whole.numpy().astype("<i2").tobytes()


def make(name, layer, gates, hidden, seed):
    torch.manual_seed(seed)
    layer = layer(INPUTS, hidden)
    for weight in layer.parameters():
        weight.data = exact(weight.data * 2)
    given = exact(torch.randn(STEPS, ITEMS, INPUTS) * 1.5)
    states = [exact(torch.randn(1, ITEMS, hidden)) for _ in range(2 if gates == 4 else 1)]
    run = lambda x, *s: layer(x, s if gates == 4 else s[0])
    said, last = run(given, *states)
    for times in (2, 86):  # the size of the batch changes next to nothing, in PyTorch either
        many, _ = run(given.repeat(1, times, 1), *(s.repeat(1, times, 1) for s in states))
        assert (many - said.repeat(1, times, 1)).abs().max() < 1e-6
    numbers = [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0, given]
    with open(OUT / f"{name}.bin", "wb") as file:
        file.write(struct.pack("<5I", gates, INPUTS, hidden, ITEMS, STEPS))
        for tensor in numbers + states:
            file.write(small(tensor))
        for tensor in [said] + ([last[1]] if gates == 4 else []):
            file.write(tensor.numpy().astype("<f4").tobytes())


torch.set_grad_enabled(False)
torch.set_num_threads(1)
OUT.mkdir(parents=True, exist_ok=True)
make("lstm32", torch.nn.LSTM, 4, 32, 1)
make("lstm64", torch.nn.LSTM, 4, 64, 2)
make("rnn32", torch.nn.RNN, 1, 32, 3)
print("made by torch", torch.__version__, file=sys.stderr)
