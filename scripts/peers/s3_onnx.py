"""Writes S3 speech tokenizers (versions 1 to 3, 25 Hz) as ONNX graphs, in the operations of the published exports: products and sums
for linear layers (in version 3 with the biases as constants), normalizations as single steps (versions 1 and 3) or as one operation
(version 2), a free time axis, batch 1.

    s3_onnx.py random v1 OUT.onnx                       published size, random weights
    s3_onnx.py golden v1 GOLDEN.safetensors OUT.onnx    the weights of a golden file; checks the graph against its outputs
"""

import json
import struct
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PUBLISHED = {"n_mels": 128, "state": 1280, "heads": 20, "layers": 6}
LAYERS = {"v3": 12}


class Graph:
    """Nodes and initializers, in order; initializers get numbers for names, as exporters give them."""

    def __init__(self, version):
        self.version = version
        self.nodes, self.initializers, self.count, self.shared = [], [], 0, {}

    def weight(self, array, name=None):
        self.count += 1
        name = name or f"onnx::Weight_{self.count}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def constant(self, array):
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.shared:
            self.shared[key] = self.weight(array, f"const_{len(self.shared)}")
        return self.shared[key]

    def number(self, value):
        return self.constant(np.array(value, np.float32))

    def ints(self, *values):
        return self.constant(np.array(values, np.int64))

    def op(self, kind, *inputs, **attributes):
        self.count += 1
        out = f"value_{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=f"/{kind}_{self.count}", **attributes))
        return out


def linear(g, x, weights, name, bias=True):
    out = g.op("MatMul", x, g.weight(weights[f"{name}.weight"].T))
    if not bias:
        return out
    array = np.ascontiguousarray(weights[f"{name}.bias"])
    stored = g.op("Constant", value=numpy_helper.from_array(array)) if g.version == "v3" else g.weight(array)
    return g.op("Add", stored, out)


def norm(g, x, weights, name, epsilon, spelled_out):
    weight, bias = g.weight(weights[f"{name}.weight"]), g.weight(weights[f"{name}.bias"])
    if not spelled_out:
        return g.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=epsilon)
    centered = g.op("Sub", x, g.op("ReduceMean", x, axes=[-1]))
    variance = g.op("ReduceMean", g.op("Pow", centered, g.number(2.0)), axes=[-1])
    normal = g.op("Div", centered, g.op("Sqrt", g.op("Add", variance, g.number(epsilon))))
    return g.op("Add", g.op("Mul", normal, weight), bias)


def gelu(g, x):
    erf = g.op("Add", g.op("Erf", g.op("Div", x, g.number(2**0.5))), g.number(1.0))
    return g.op("Mul", g.op("Mul", x, erf), g.number(0.5))


def rotate(g, x, cosine, sine, half):
    first = g.op("Slice", x, g.ints(0), g.ints(half), g.ints(3))
    second = g.op("Slice", x, g.ints(half), g.ints(2 * half), g.ints(3))
    swapped = g.op("Concat", g.op("Neg", second), first, axis=3)
    return g.op("Add", g.op("Mul", x, cosine), g.op("Mul", swapped, sine))


def block(g, x, weights, prefix, sizes, rotary):
    state, heads = sizes["state"], sizes["heads"]
    width = state // heads
    spelled_out = g.version != "v2"
    normal = norm(g, x, weights, f"{prefix}.attn_ln", 1e-6 if g.version == "v2" else 1e-5, spelled_out)
    q = linear(g, normal, weights, f"{prefix}.attn.query")
    k = linear(g, normal, weights, f"{prefix}.attn.key", bias=False)
    v = linear(g, normal, weights, f"{prefix}.attn.value")
    scale = g.number(width**-0.25)
    split = lambda y: g.op("Reshape", y, g.ints(0, -1, heads, width))
    q, k = split(q), split(k)
    if rotary is not None:
        q, k = (rotate(g, y, *rotary, width // 2) for y in (q, k))
    q = g.op("Mul", g.op("Transpose", q, perm=[0, 2, 1, 3]), scale)
    k = g.op("Mul", g.op("Transpose", k, perm=[0, 2, 3, 1]), scale)
    scores = g.op("Softmax", g.op("MatMul", q, k), axis=-1)
    attended = g.op("MatMul", scores, g.op("Transpose", split(v), perm=[0, 2, 1, 3]))
    joined = g.op("Reshape", g.op("Transpose", attended, perm=[0, 2, 1, 3]), g.ints(0, -1, state))
    out = linear(g, joined, weights, f"{prefix}.attn.out")
    if rotary is not None:
        taps = weights[f"{prefix}.attn.fsmn_block.weight"]
        padded = g.op("Pad", g.op("Transpose", v, perm=[0, 2, 1]), g.ints(0, 0, 15, 0, 0, 15))
        memory = g.op("Conv", padded, g.weight(taps), group=state, kernel_shape=[31])
        out = g.op("Add", out, g.op("Add", g.op("Transpose", memory, perm=[0, 2, 1]), v))
    x = g.op("Add", x, out)
    inner = gelu(g, linear(g, norm(g, x, weights, f"{prefix}.mlp_ln", 1e-5, spelled_out), weights, f"{prefix}.mlp.0"))
    return g.op("Add", x, linear(g, inner, weights, f"{prefix}.mlp.2"))


def positions_up_to(g, x, table):
    length = g.op("Slice", g.op("Shape", x), g.ints(1), g.ints(2), g.ints(0))
    return g.op("Slice", table, g.ints(0), length, g.ints(0))


def build(version, weights, sizes):
    g = Graph(version)
    x = "feats"
    for conv in ("encoder.conv1", "encoder.conv2"):
        w, b = g.weight(weights[f"{conv}.weight"]), g.weight(weights[f"{conv}.bias"])
        x = gelu(g, g.op("Conv", x, w, b, kernel_shape=[3], strides=[2], pads=[1, 1]))
    x = g.op("Transpose", x, perm=[0, 2, 1])
    rotary = None
    if version == "v1":
        table = g.weight(weights["encoder.positional_embedding"], "encoders.positional_embedding")
        x = g.op("Add", x, positions_up_to(g, x, table))
    else:
        width = sizes["state"] // sizes["heads"]
        angles = np.outer(np.arange(sizes.get("positions", 2048)), 1.0 / 10000 ** (np.arange(0, width, 2) / width)).astype(np.float32)
        tables = (np.concatenate([f(angles)] * 2, axis=1)[:, None, :] for f in (np.cos, np.sin))
        rotary = [positions_up_to(g, x, g.weight(table)) for table in tables]
    for layer in range(sizes["layers"]):
        x = block(g, x, weights, f"encoder.blocks.{layer}", sizes, rotary)
    hidden = x
    if version == "v1":
        x = g.op("Div", x, g.op("ReduceL2", x, axes=[-1]))
        entries = g.weight(weights["quantizer._codebook.embed"].T)
        products = g.op("MatMul", g.op("Mul", x, g.number(2.0)), entries)
        squares = g.op("ReduceSum", g.op("Pow", entries, g.number(2.0)), g.ints(0), keepdims=1)
        tokens = g.op("ArgMax", g.op("Sub", products, squares), axis=-1, keepdims=0)
    else:
        down = linear(g, x, weights, "quantizer._codebook.project_down")
        rounded = g.op("Round", g.op("Mul", g.op("Tanh", down), g.number(0.9990000128746033)))
        digits = g.op("Add", rounded, g.number(1.0))
        powers = g.constant(3.0 ** np.arange(8).astype(np.float32)[None, :])
        total = g.op("ReduceSum", g.op("Mul", digits, powers), g.ints(2), keepdims=0)
        tokens = g.op("Cast", total, to=TensorProto.INT64)
    feats = helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, sizes["n_mels"], "time"])
    g.nodes.append(helper.make_node("Identity", [tokens], ["indices"], name="/indices"))
    g.nodes.append(helper.make_node("Identity", [hidden], ["hidden"], name="/hidden"))
    outputs = [
        helper.make_tensor_value_info("indices", TensorProto.INT64, [1, "tokens"]),
        helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [1, "tokens", sizes["state"]]),
    ]
    graph = helper.make_graph(g.nodes, f"speech_tokenizer_{version}", [feats], outputs, g.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def random_weights(version, sizes):
    rng = np.random.default_rng(0)
    state, weights = sizes["state"], {}

    def add(name, *shape, scale=None):
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else shape[0]
        weights[name] = (rng.standard_normal(shape) * (scale or fan_in**-0.5)).astype(np.float32)

    add("encoder.conv1.weight", state, sizes["n_mels"], 3)
    add("encoder.conv2.weight", state, state, 3)
    for conv in ("conv1", "conv2"):
        add(f"encoder.{conv}.bias", state, scale=0.1)
    if version == "v1":
        add("encoder.positional_embedding", 1500, state, scale=0.5)
    for layer in range(sizes["layers"]):
        prefix = f"encoder.blocks.{layer}"
        for name in ("query", "key", "value", "out"):
            add(f"{prefix}.attn.{name}.weight", state, state)
            add(f"{prefix}.attn.{name}.bias", state, scale=0.1)
        add(f"{prefix}.mlp.0.weight", 4 * state, state)
        add(f"{prefix}.mlp.0.bias", 4 * state, scale=0.1)
        add(f"{prefix}.mlp.2.weight", state, 4 * state)
        add(f"{prefix}.mlp.2.bias", state, scale=0.1)
        for name in ("attn_ln", "mlp_ln"):
            weights[f"{prefix}.{name}.weight"] = np.ones(state, np.float32)
            add(f"{prefix}.{name}.bias", state, scale=0.1)
        if version != "v1":
            add(f"{prefix}.attn.fsmn_block.weight", state, 1, 31)
    if version == "v1":
        add("quantizer._codebook.embed", 4096, state)
    else:
        add("quantizer._codebook.project_down.weight", 8, state)
        add("quantizer._codebook.project_down.bias", 8, scale=0.1)
    return weights


def read_golden(path):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    config = json.loads(header.pop("__metadata__")["config"])
    types = {"F32": np.float32, "I64": np.int64}
    tensors = {}
    for name, about in header.items():
        start, end = (8 + size + offset for offset in about["data_offsets"])
        tensors[name] = np.frombuffer(data[start:end], types[about["dtype"]]).reshape(about["shape"])
    return config, tensors


def check(model, golden):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for item, length in enumerate(golden["in.mel_len"]):
        codes, hidden = session.run(None, {"feats": golden["in.mel"][item : item + 1, :, :length]})
        count = golden["out.code_len"][item]
        expected = golden["out.hidden"][item, :count]
        error = np.abs(hidden[0] - expected).max() / np.abs(expected).max()
        assert error < 2e-5, f"item {item}: {error}"
        assert (codes[0] == golden["out.code"][item, :count]).all(), f"tokens of item {item}"
        print(f"item {item}: {count} tokens equal, hidden states {error:.1e}")


def main():
    mode, version = sys.argv[1:3]
    if mode == "golden":
        config, golden = read_golden(sys.argv[3])
        weights = {name[6:]: tensor for name, tensor in golden.items() if name.startswith("param.")}
        sizes = {"n_mels": config["n_mels"], "state": config["n_audio_state"]}
        sizes |= {"heads": config["n_audio_head"], "layers": config["n_audio_layer"], "positions": 64}
        model = build(version, weights, sizes)
        check(model, golden)
    else:
        sizes = PUBLISHED | {"layers": LAYERS.get(version, PUBLISHED["layers"])}
        model = build(version, random_weights(version, sizes), sizes)
    onnx.save(model, sys.argv[-1])


if __name__ == "__main__":
    main()
