"""The PyTorch side of scripts/bench_float.

    bench_float.py check FOLDER               checks these modules against the golden files in FOLDER
    bench_float.py fmt|wav2vec2|lia THREADS   prints times of a few runs at the published size
    bench_float.py table RESULTS              prints medians and ratios
"""

import json
import math
import pathlib
import re
import resource
import statistics
import struct
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


def read_safetensors(path):
    content = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    config = json.loads(header.pop("__metadata__")["config"])
    kinds = {"F32": torch.float32, "I64": torch.int64, "BOOL": torch.bool}
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = torch.frombuffer(bytearray(content[start:end]), dtype=kinds[entry["dtype"]]).reshape(entry["shape"])
    return config, tensors


# The flow matching transformer.


class Block(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.heads = heads
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, c, mask):
        norm = lambda x: F.layer_norm(x, x.shape[-1:], eps=1e-6)
        s1, g1, a1, s2, g2, a2 = self.adaLN_modulation(c).chunk(6, -1)
        h = norm(x) * (1 + g1) + s1
        q, k, v = self.attn["qkv"](h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = x + a1 * self.attn["proj"](h)
        h = norm(x) * (1 + g2) + s2
        return x + a2 * self.mlp["fc2"](F.gelu(self.mlp["fc1"](h), approximate="tanh"))


class Fmt(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.previous, frames = c["num_prev_frames"], int(c["wav2vec_sec"] * c["fps"])
        width, total = c["dim_h"], c["num_prev_frames"] + int(c["wav2vec_sec"] * c["fps"])
        self.x_embedder = nn.ModuleDict({"proj": nn.Linear(c["dim_w"], width)})
        self.t_embedder = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))})
        self.c_embedder = nn.Linear(c["dim_w"] + c["dim_a"] + c["dim_e"], width)
        self.blocks = nn.ModuleList(Block(width, c["num_heads"], int(width * c["mlp_ratio"])) for _ in range(c["fmt_depth"]))
        last = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.decoder = nn.ModuleDict({"adaLN_modulation": last, "linear": nn.Linear(width, c["dim_w"])})
        place = torch.arange(total)
        self.register_buffer("alignment_mask", (place[:, None] - place).abs() > c["attention_window"])
        self.register_buffer("pos_embed", torch.zeros(1, total, width))

    def forward(self, t, x, wa, wr, we, prev_x, prev_wa):
        x, wa = torch.cat([prev_x, x], 1), torch.cat([prev_wa, wa], 1)
        rates = torch.exp(-math.log(10000) * torch.arange(128) / 128)
        angles = t[:, None] * rates
        time = self.t_embedder["mlp"](torch.cat([angles.cos(), angles.sin()], -1))
        wide = lambda y: y.expand(-1, x.shape[1], -1)
        c = self.c_embedder(torch.cat([wide(wr[:, None]), wa, wide(we)], -1)) + time[:, None]
        x = self.x_embedder["proj"](x) + self.pos_embed
        for block in self.blocks:
            x = block(x, c, ~self.alignment_mask)
        shift, scale = self.decoder["adaLN_modulation"](c).chunk(2, -1)
        return self.decoder["linear"](F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)

    def losses(self, i):
        t = i["t"][:, None, None]
        out = self(i["t"], (1 - t) * i["z"] + t * i["x1"], i["wa"], i["wr"], i["we"], i["prev_x"], i["prev_wa"])
        p = self.previous
        return (out[:, p:] - (i["x1"] - i["z"])).abs().mean(), (out[:, :p] - i["prev_x"]).abs().mean()


FMT = dict(wav2vec_sec=2, fps=25, dim_w=512, dim_a=512, dim_e=7, dim_h=1024, fmt_depth=8, num_heads=8, mlp_ratio=4)
FMT |= dict(num_prev_frames=10, attention_window=2)


# wav2vec 2.0.


class Wav2Vec2(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.stable, self.heads = c["do_stable_layer_norm"], c["num_attention_heads"]
        width, inner = c["hidden_size"], c["intermediate_size"]
        channels, layers = [1] + c["conv_dim"], []
        for i, (kernel, stride) in enumerate(zip([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2])):
            layer = nn.ModuleDict({"conv": nn.Conv1d(channels[i], channels[i + 1], kernel, stride, bias=c["conv_bias"])})
            if c["feat_extract_norm"] == "layer":
                layer["layer_norm"] = nn.LayerNorm(channels[i + 1])
            elif i == 0:
                layer["layer_norm"] = nn.GroupNorm(channels[1], channels[1])
            layers.append(layer)
        self.feature_extractor = nn.ModuleDict({"conv_layers": nn.ModuleList(layers)})
        projection = {"layer_norm": nn.LayerNorm(channels[-1]), "projection": nn.Linear(channels[-1], width)}
        self.feature_projection = nn.ModuleDict(projection)
        taps, groups = c["num_conv_pos_embeddings"], c["num_conv_pos_embedding_groups"]
        conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(width, width, taps, padding=taps // 2, groups=groups), dim=2)

        def block():
            attention = {name: nn.Linear(width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
            dense = {"intermediate_dense": nn.Linear(width, inner), "output_dense": nn.Linear(inner, width)}
            parts = {"attention": nn.ModuleDict(attention), "layer_norm": nn.LayerNorm(width)}
            return nn.ModuleDict(parts | {"feed_forward": nn.ModuleDict(dense), "final_layer_norm": nn.LayerNorm(width)})

        parts = {"pos_conv_embed": nn.ModuleDict({"conv": conv}), "layer_norm": nn.LayerNorm(width)}
        self.encoder = nn.ModuleDict(parts | {"layers": nn.ModuleList(block() for _ in range(c["num_hidden_layers"]))})

    def attend(self, layer, x):
        split = lambda name: layer["attention"][name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        x = F.scaled_dot_product_attention(split("q_proj"), split("k_proj"), split("v_proj"))
        return layer["attention"]["out_proj"](x.transpose(1, 2).flatten(2))

    def forward(self, wav, frames=None):
        x = wav[:, None]
        for layer in self.feature_extractor["conv_layers"]:
            x = layer["conv"](x)
            if "layer_norm" in layer:
                norm = layer["layer_norm"]
                x = norm(x) if isinstance(norm, nn.GroupNorm) else norm(x.transpose(1, 2)).transpose(1, 2)
            x = F.gelu(x)
        if frames:
            x = F.interpolate(x, size=frames, mode="linear", align_corners=True)
        x = self.feature_projection["projection"](self.feature_projection["layer_norm"](x.transpose(1, 2)))
        places = self.encoder["pos_conv_embed"]["conv"](x.transpose(1, 2))[..., : x.shape[1]]
        x = x + F.gelu(places.transpose(1, 2))
        x = x if self.stable else self.encoder["layer_norm"](x)
        states = [x]
        dense = lambda layer, x: layer["feed_forward"]["output_dense"](F.gelu(layer["feed_forward"]["intermediate_dense"](x)))
        for layer in self.encoder["layers"]:
            if self.stable:
                x = x + self.attend(layer, layer["layer_norm"](x))
                x = x + dense(layer, layer["final_layer_norm"](x))
            else:
                x = layer["layer_norm"](x + self.attend(layer, x))
                x = layer["final_layer_norm"](x + dense(layer, x))
            states.append(x)
        return states


WAV2VEC2 = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, conv_dim=[512] * 7)
WAV2VEC2 |= dict(num_conv_pos_embeddings=128, num_conv_pos_embedding_groups=16, do_stable_layer_norm=False)
WAV2VEC2 |= dict(feat_extract_norm="group", conv_bias=False)


# LIA, as functions of a dictionary of weights.

CHANNELS = [32, 64, 128, 256, 512, 512, 512, 512]


def binomial(x, pad, factor=1):
    kernel = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(kernel, kernel) / 64 * factor
    return F.conv2d(F.pad(x, (*pad, *pad)).flatten(0, 1)[:, None], kernel[None, None]).unflatten(0, x.shape[:2])[:, :, 0]


def scaled(w):
    return w / math.sqrt(w[0].numel())


def leaky(x, bias):
    return F.leaky_relu(x + bias, 0.2) * math.sqrt(2)


def encode(p, x):
    h = leaky(F.conv2d(x, scaled(p["enc.net_app.convs.0.0.weight"])), p["enc.net_app.convs.0.1.bias"])
    features, i = [h], 1
    while f"enc.net_app.convs.{i}.conv1.0.weight" in p:
        name = f"enc.net_app.convs.{i}."
        y = leaky(F.conv2d(h, scaled(p[name + "conv1.0.weight"]), padding=1), p[name + "conv1.1.bias"])
        y = F.conv2d(binomial(y, (2, 2)), scaled(p[name + "conv2.1.weight"]), stride=2)
        y = leaky(y, p[name + "conv2.2.bias"])
        skip = F.conv2d(binomial(h, (1, 1)), scaled(p[name + "skip.1.weight"]), stride=2)
        h, i = (y + skip) / math.sqrt(2), i + 1
        features.append(h)
    h = F.conv2d(h, scaled(p[f"enc.net_app.convs.{i}.weight"])).flatten(1)
    motion = h
    for layer in range(5):
        motion = F.linear(motion, scaled(p[f"enc.fc.{layer}.weight"]), p[f"enc.fc.{layer}.bias"])
    return h, motion, features[:-1][::-1]


def modulated(p, name, x, style, demodulate=True, up=False):
    w = p[name + ".weight"][0]
    s = F.linear(style, scaled(p[name + ".modulation.weight"]), p[name + ".modulation.bias"])
    w = scaled(w)[None] * s[:, None, :, None, None]
    if demodulate:
        w = w * torch.rsqrt(w.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    b, o, i, k, _ = w.shape
    if up:
        x = F.conv_transpose2d(x.reshape(1, b * i, *x.shape[2:]), w.transpose(1, 2).reshape(b * i, o, k, k), stride=2, groups=b)
        return binomial(x.reshape(b, o, *x.shape[2:]), (1, 1), 4)
    x = F.conv2d(x.reshape(1, b * i, *x.shape[2:]), w.reshape(b * o, i, k, k), padding=k // 2, groups=b)
    return x.reshape(b, o, *x.shape[2:])


def doubled(x):
    b, c, h, w = x.shape
    up = torch.zeros(b, c, h, 2, w, 2)
    up[:, :, :, 0, :, 0] = x
    return binomial(up.reshape(b, c, 2 * h, 2 * w), (2, 1), 4)


def decode(p, style, features):
    x = p["dec.input.input"].expand(len(style), -1, -1, -1)
    x = leaky(modulated(p, "dec.conv1.conv", x, style), p["dec.conv1.activate.bias"])
    flow = image = None
    for level, feature in enumerate(features):
        for number, up in ((2 * level, True), (2 * level + 1, False)):
            name = f"dec.convs.{number}"
            x = leaky(modulated(p, name + ".conv", x, style, up=up), p[name + ".activate.bias"])
        out = modulated(p, f"dec.to_flows.{level}.conv", x, style, demodulate=False) + p[f"dec.to_flows.{level}.bias"]
        flow = out if flow is None else out + doubled(flow)
        line = torch.linspace(-1, 1, x.shape[2])
        own = torch.stack(torch.meshgrid(line, line, indexing="xy"), 2)
        grid, mask = flow[:, :2].tanh().permute(0, 2, 3, 1) + own, flow[:, 2:].sigmoid()
        warped = F.grid_sample(feature, grid, align_corners=False) * mask
        x = warped + x * (1 - mask)
        name = f"dec.to_rgbs.{level}"
        out = leaky(F.conv2d(warped, scaled(p[name + ".conv.0.weight"])), p[name + ".conv.1.bias"]) + p[name + ".bias"]
        image = out if image is None else out + doubled(image)
    return image


def lia_weights():
    p, style = {}, 512
    add = lambda name, *shape: p.__setitem__(name, torch.randn(*shape) if "bias" not in name else torch.zeros(*shape))
    c = CHANNELS
    add("enc.net_app.convs.0.0.weight", c[0], 3, 1, 1), add("enc.net_app.convs.0.1.bias", 1, c[0], 1, 1)
    for i, (a, b) in enumerate(zip(c, c[1:]), 1):
        name = f"enc.net_app.convs.{i}."
        add(name + "conv1.0.weight", a, a, 3, 3), add(name + "conv1.1.bias", 1, a, 1, 1)
        add(name + "conv2.1.weight", b, a, 3, 3), add(name + "conv2.2.bias", 1, b, 1, 1), add(name + "skip.1.weight", b, a, 1, 1)
    add(f"enc.net_app.convs.{len(c)}.weight", style, c[-1], 4, 4)
    for layer in range(5):
        outputs = 20 if layer == 4 else style
        add(f"enc.fc.{layer}.weight", outputs, style), add(f"enc.fc.{layer}.bias", outputs)

    def styled(name, a, b, k):
        add(name + ".weight", 1, b, a, k, k), add(name + ".modulation.weight", a, style), add(name + ".modulation.bias", a)

    add("dec.input.input", 1, c[-1], 4, 4), styled("dec.conv1.conv", c[-1], c[-1], 3), add("dec.conv1.activate.bias", 1, c[-1], 1, 1)
    for level, (a, b) in enumerate(zip(c[::-1], c[-2::-1])):
        for number, inputs in ((2 * level, a), (2 * level + 1, b)):
            styled(f"dec.convs.{number}.conv", inputs, b, 3), add(f"dec.convs.{number}.activate.bias", 1, b, 1, 1)
        styled(f"dec.to_flows.{level}.conv", b, 3, 1), add(f"dec.to_flows.{level}.bias", 1, 3, 1, 1)
        name = f"dec.to_rgbs.{level}"
        add(name + ".conv.0.weight", 3, b, 1, 1), add(name + ".conv.1.bias", 1, 3, 1, 1), add(name + ".bias", 1, 3, 1, 1)
    return p


def check(folder):
    passed = True

    def told(name, found, expected):
        nonlocal passed
        error = float((found - expected).abs().max() / (expected.abs().max() + 1e-6))
        passed &= error <= 2e-5
        print(f"{'ok  ' if error <= 2e-5 else 'FAIL'} {name} {error:.1e}")

    folder = pathlib.Path(folder)
    parts = lambda tensors, prefix: {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    config, tensors = read_safetensors(folder / "float_fmt.safetensors")
    model = Fmt(config)
    model.load_state_dict(parts(tensors, "param."))
    current, previous = model.losses(parts(tensors, "in."))
    told("float_fmt loss_cur", current.detach(), tensors["out.loss_cur"][0])
    told("float_fmt loss_prev", previous.detach(), tensors["out.loss_prev"][0])
    for form in ("base", "stable"):
        config, tensors = read_safetensors(folder / f"wav2vec2_{form}.safetensors")
        model = Wav2Vec2(config)
        model.load_state_dict({k: v for k, v in parts(tensors, "param.").items() if k != "masked_spec_embed"})
        with torch.no_grad():
            told(f"wav2vec2_{form}", model(tensors["in.wav"], config["frames"])[-1], tensors["out.resampled.2"])
    config, tensors = read_safetensors(folder / "float_decoder.safetensors")
    p = parts(tensors, "param.")
    told("float_decoder encoder", encode(p, tensors["in.image"])[1], tensors["out.r_s_lambda"])
    told("float_decoder image", decode(p, tensors["in.wa"], [tensors[f"in.feats.{i}"] for i in range(4)]), tensors["out.image"])
    sys.exit(not passed)


def timed(work, repeat):
    work()
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        yield time.perf_counter() - start


def fmt(threads):
    torch.manual_seed(0)
    model = Fmt(FMT)
    model.audio_projection = nn.Sequential(nn.Linear(9216, 512), nn.LayerNorm(512), nn.SiLU())
    speech = torch.randn(8, 60, 9216)
    i = dict(t=torch.rand(8), z=torch.randn(8, 50, 512), x1=torch.randn(8, 50, 512), wr=torch.randn(8, 512))
    i |= dict(we=torch.eye(7)[torch.arange(8) % 7][:, None], prev_x=torch.randn(8, 10, 512))

    def step():
        model.zero_grad(set_to_none=True)
        wa = model.audio_projection(speech)
        sum(model.losses(i | dict(wa=wa[:, 10:], prev_wa=wa[:, :10]))).backward()

    for seconds in timed(step, 3):
        print(f"step {seconds:.4f} s")
    print(f"VmHWM: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} kB")


@torch.no_grad()
def wav2vec2(threads):
    model, wav = Wav2Vec2(WAV2VEC2).eval(), torch.randn(1, 80000)
    for seconds in timed(lambda: torch.cat(model(wav, 125)[1:], -1), 3):
        print(f"wav2vec2 {seconds / 5:.4f} s per second of speech")


@torch.no_grad()
def lia(threads):
    p, x = lia_weights(), torch.rand(4, 3, 512, 512) * 2 - 1
    appearance, _, features = encode(p, x)
    # One picture at a time, or all of a batch: the faster one counts.
    one = lambda: [encode(p, x[i : i + 1]) for i in range(4)]
    encoder = min(min(timed(one, 2)), min(timed(lambda: encode(p, x), 2))) / 4
    single = [f[:1] for f in features]
    one = lambda: [decode(p, appearance[:1], single) for _ in range(4)]
    decoder = min(min(timed(one, 2)), min(timed(lambda: decode(p, appearance, features), 2))) / 4
    print(f"lia encoder {encoder:.4f} s, decoder {decoder:.4f} s per picture of 512 x 512")


def table(path):
    rows = {}
    for line in pathlib.Path(path).read_text().splitlines():
        kind, side, rest = line.split(" ", 2)
        for name, pattern in (("step, s", r"step ([\d.]+) s"), ("peak memory, kB", r"VmHWM:\s+(\d+)"), ("s per s of speech", r"wav2vec2 ([\d.]+) s"),
                              ("encoder, s per picture", r"encoder ([\d.]+) s"), ("decoder, s per picture", r"decoder ([\d.]+) s")):
            for value in re.findall(pattern, rest):
                rows.setdefault((kind, name), {}).setdefault(side, []).append(float(value))
    print("| network | figure | Flowmill | PyTorch eager | ratio |\n|---|---|---|---|---|")
    for (kind, name), sides in rows.items():
        ours, peer = (statistics.median(sides[side]) for side in ("ours", "peer"))
        print(f"| {kind} | {name} | {ours:g} | {peer:g} | {ours / peer:.2f}x |")


if __name__ == "__main__":
    kind = sys.argv[1]
    if kind in ("check", "table"):
        {"check": check, "table": table}[kind](sys.argv[2])
    else:
        torch.set_num_threads(int(sys.argv[2]))
        {"fmt": fmt, "wav2vec2": wav2vec2, "lia": lia}[kind](int(sys.argv[2]))
