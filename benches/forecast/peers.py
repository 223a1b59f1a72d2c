"""PyTorch's and ONNX Runtime's LSTM, one step at a time with the state kept, on one thread.

Reads a file of weights and inputs (JSON, PyTorch's layout), then one request a line:
`torch ITEMS SECONDS` or `onnx ITEMS SECONDS` answers with nanoseconds an item and step, measured
here for about so long; `say torch` or `say onnx` with the state of all given items after 8 steps.
"""

import json
import os
import sys
import time

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

torch.set_num_threads(1)
torch.set_grad_enabled(False)
with open(sys.argv[1]) as file:
    given = json.load(file)
INPUTS, HIDDEN = given["inputs"], given["hidden"]


def numbers(name, *shape):
    return np.array(given[name], dtype=np.float32).reshape(shape)


OF_INPUT = numbers("of_input", 4 * HIDDEN, INPUTS)
OF_STATE = numbers("of_state", 4 * HIDDEN, HIDDEN)
BIAS = numbers("bias", 4 * HIDDEN)
X = numbers("x", -1, INPUTS)


def inputs(items):
    return np.ascontiguousarray(X[np.arange(items) % len(X)][None])


class Torch:
    def __init__(self, items):
        self.layer = torch.nn.LSTM(INPUTS, HIDDEN).eval()
        self.layer.weight_ih_l0.data = torch.from_numpy(OF_INPUT)
        self.layer.weight_hh_l0.data = torch.from_numpy(OF_STATE)
        self.layer.bias_ih_l0.data = torch.from_numpy(BIAS)
        self.layer.bias_hh_l0.data = torch.zeros(4 * HIDDEN)
        self.x = torch.from_numpy(inputs(items))
        self.state = torch.zeros(1, items, HIDDEN), torch.zeros(1, items, HIDDEN)

    def step(self):
        _, self.state = self.layer(self.x, self.state)

    def said(self):
        return self.state[0].numpy()


class Onnx:
    """Bound to buffers of its own, in turns: nothing is copied between two steps."""

    def __init__(self, items):
        order = np.r_[0:HIDDEN, 3 * HIDDEN : 4 * HIDDEN, HIDDEN : 2 * HIDDEN, 2 * HIDDEN : 3 * HIDDEN]
        bias = np.concatenate([BIAS[order], np.zeros(4 * HIDDEN, np.float32)])
        constants = {"w": OF_INPUT[order][None], "r": OF_STATE[order][None], "b": bias[None]}
        value = lambda name, width: helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [1, items, width]
        )
        node = helper.make_node(
            "LSTM", ["x", "w", "r", "b", "", "h", "c"], ["", "yh", "yc"], hidden_size=HIDDEN
        )
        graph = helper.make_graph(
            [node],
            "step",
            [value("x", INPUTS), value("h", HIDDEN), value("c", HIDDEN)],
            [value("yh", HIDDEN), value("yc", HIDDEN)],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        own = onnxruntime.OrtValue.ortvalue_from_numpy
        self.x = own(inputs(items))
        empty = lambda: own(np.zeros((1, items, HIDDEN), np.float32))
        self.states = [[empty(), empty()], [empty(), empty()]]
        self.bindings = [self.bind(*self.states), self.bind(*self.states[::-1])]

    def bind(self, before, after):
        binding = self.session.io_binding()
        for name, array in zip(("x", "h", "c"), (self.x, *before)):
            binding.bind_ortvalue_input(name, array)
        for name, array in zip(("yh", "yc"), after):
            binding.bind_ortvalue_output(name, array)
        return binding

    def step(self):
        self.session.run_with_iobinding(self.bindings[0])
        self.bindings.reverse()
        self.states.reverse()

    def said(self):
        return self.states[0][0].numpy()


def nanoseconds(runner, items, seconds):
    runner.step()
    begun, steps = time.perf_counter(), 0
    while True:
        runner.step()
        steps += 1
        took = time.perf_counter() - begun
        if took >= seconds:
            return took * 1e9 / (steps * items)


kinds, runners = {"torch": Torch, "onnx": Onnx}, {}
print("ready", torch.__version__, onnxruntime.__version__, flush=True)
for line in sys.stdin:
    words = line.split()
    if words[0] == "say":
        runner = kinds[words[1]](len(X))
        for _ in range(8):
            runner.step()
        print(*(float(number) for number in runner.said().ravel()), flush=True)
        continue
    name, items, seconds = words[0], int(words[1]), float(words[2])
    runner = runners.setdefault((name, items), None) or kinds[name](items)
    runners[name, items] = runner
    print(nanoseconds(runner, items, seconds), flush=True)
