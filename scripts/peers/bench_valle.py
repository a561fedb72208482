"""The parts of scripts/bench_valle, which compares VALL-E with the same network in PyTorch, with the same weights and data:

    bench_valle.py check GOLDEN                            checks the losses of a golden file of the public implementation
    bench_valle.py train SIZE WEIGHTS SAMPLES STEPS        runs training steps (forward, backward, clip by norm, AdamW); prints JSON
    bench_valle.py speak SIZE WEIGHTS FRAMES               generates the most probable codes with a cache; prints JSON
    bench_valle.py table RESULTS                           checks that both sides agree; prints medians and ratios
"""

import collections
import json
import pathlib
import resource
import statistics
import struct
import sys
import time

LEVELS, STOP, RATE, PHONEMES = 8, 1024, 75, 80
HEADS = {"quarter": 4, "half": 8, "full": 16, "double": 16}
WARM_UP = 1


def number(seed, at, below):
    return (((seed * 1_000_003 + at) * 2_654_435_761) % (1 << 32) >> 8) % below


def codes(seed, frames):
    return [[number(seed, level * frames + frame, 1024) for frame in range(frames)] for level in range(LEVELS)]


def sample(place):
    phonemes = [3 + number(3 * place, at, 250) for at in range(PHONEMES)]
    phonemes[0], phonemes[-1] = 1, 2
    return phonemes, codes(3 * place + 1, 4 * RATE), codes(3 * place + 2, 6 * RATE)


def read(path):
    import torch

    content = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    config = json.loads(header.pop("__metadata__", {}).get("config", "{}"))
    kinds = {"F32": torch.float32, "I64": torch.int64, "I32": torch.int32, "BOOL": torch.bool, "U8": torch.uint8}
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        data = bytearray(content[start:end])
        tensors[name] = torch.frombuffer(data, dtype=kinds[entry["dtype"]]).reshape(entry["shape"])
    return config, tensors


class Model:
    """The network as functions of a dict of weights under the public names."""

    def __init__(self, weights, heads):
        self.weights, self.heads = weights, heads
        self.layers = sum(name.endswith("q_proj.weight") for name in weights)
        self.half = weights["model.norm.weight"].shape[0] // heads // 2

    def conditions(self, phonemes, language, level, prompt):
        """Returns the embeddings before the response, and the positions, which begin again after each separator."""
        import torch

        w = self.weights
        separator = w["sep"].unsqueeze(0)
        parts = [w["text_emb.weight"][phonemes], w["langs_emb.weight"][[language]], w["rvq_l_emb.weight"][[level]]]
        if prompt is not None:
            below = range(max(level, 1))
            parts.append(sum(w[f"proms_emb.embeddings.{q}.weight"][prompt[q]] for q in below))
        rows = [row for part in parts for row in (part, separator)]
        positions = torch.cat([torch.arange(len(part) + 1) for part in parts])
        return torch.cat(rows), positions

    def response(self, level, response):
        w = self.weights
        if level == 0:
            return w["resps_emb.embeddings.0.weight"][response[0]]
        return sum(w[f"resps_emb.embeddings.{1 + q}.weight"][response[q]] for q in range(level))

    def norm(self, x, name):
        import torch

        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weights[name]

    def angles(self, positions):
        import torch

        inverse = 10000.0 ** (-torch.arange(self.half, dtype=torch.float32) / self.half)
        angles = positions.unsqueeze(-1).float() * inverse
        angles = torch.cat([angles, angles], -1).unsqueeze(-3)
        return angles.cos(), angles.sin()

    def forward(self, x, positions, caches=None):
        """Returns the states after the last normalization. Right padding needs no mask: every row sees itself and earlier ones."""
        import torch
        import torch.nn.functional as F

        w, cos_sin = self.weights, self.angles(positions)

        def rotate(x):
            cos, sin = cos_sin
            first, second = x.chunk(2, -1)
            return x * cos + torch.cat([-second, first], -1) * sin

        batch, length, dim = x.shape
        split = lambda x: x.view(batch, length, self.heads, dim // self.heads).transpose(1, 2)
        for layer in range(self.layers):
            name = f"model.layers.{layer}"
            h = self.norm(x, f"{name}.input_layernorm.weight")
            q, k, v = (split(F.linear(h, w[f"{name}.self_attn.{part}_proj.weight"])) for part in "qkv")
            q, k = rotate(q), rotate(k)
            causal = True
            if caches is not None:
                cache = caches[layer]
                end = cache["length"] + length
                cache["k"][:, :, cache["length"] : end], cache["v"][:, :, cache["length"] : end] = k, v
                causal = cache["length"] == 0
                cache["length"] = end
                k, v = cache["k"][:, :, :end], cache["v"][:, :, :end]
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal and length > 1)
            attended = attended.transpose(1, 2).reshape(batch, length, dim)
            x = x + F.linear(attended, w[f"{name}.self_attn.o_proj.weight"])
            h = self.norm(x, f"{name}.post_attention_layernorm.weight")
            gate = F.gelu(F.linear(h, w[f"{name}.mlp.gate_proj.weight"]))
            x = x + F.linear(gate * F.linear(h, w[f"{name}.mlp.up_proj.weight"]), w[f"{name}.mlp.down_proj.weight"])
        return self.norm(x, "model.norm.weight")

    def logits(self, states, level):
        import torch.nn.functional as F

        return F.linear(states, self.weights[f"classifiers.proj.{level}.weight"], self.weights[f"classifiers.proj.{level}.bias"])

    def losses(self, samples):
        """Returns the mean cross entropy of each sample `(phonemes, prompt, response, level)`."""
        import torch
        import torch.nn.functional as F

        rows, places, firsts = [], [], []
        for phonemes, prompt, response, level in samples:
            before, positions = self.conditions(phonemes, 0, level, prompt)
            own = self.response(level, response)
            rows.append(torch.cat([before, own]))
            places.append(torch.cat([positions, torch.arange(len(own))]))
            firsts.append(len(before))
        x = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        positions = torch.nn.utils.rnn.pad_sequence(places, batch_first=True)
        states = self.forward(x, positions)
        losses = []
        for state, first, (_, _, response, level) in zip(states, firsts, samples):
            target = torch.as_tensor(response[level])
            if level == 0:
                # The row before each code predicts it, and the last code the end.
                target = torch.cat([target, torch.tensor([STOP])])
                own = state[first - 1 : first - 1 + len(target)]
            else:
                own = state[first : first + len(target)]
            losses.append(F.cross_entropy(self.logits(own, level), target))
        return losses


def check(path):
    import torch

    config, tensors = read(path)
    weights = {name.removeprefix("param."): tensor for name, tensor in tensors.items() if name.startswith("param.")}
    model = Model(weights, config["heads"])
    inputs = {name.removeprefix("in."): tensor.long() for name, tensor in tensors.items() if name.startswith("in.")}
    worst = 0.0
    with torch.inference_mode():
        for level in range(LEVELS):
            # Golden codes are [frame, level].
            prompt, response = inputs["prompt_codes"].t(), inputs["codes"].t()
            (loss,) = model.losses([(inputs["phonemes"], prompt, response, level)])
            expected = tensors[f"out.nll.{level}"].item()
            worst = max(worst, abs(loss.item() - expected) / max(abs(expected), 1.0))
    print(f"losses of {LEVELS} levels differ from the public implementation's by at most {worst:.1e}")
    if worst > 2e-5:
        sys.exit("the PyTorch side computes another function")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def train(size, path, count, steps):
    import torch

    _, weights = read(path)
    for weight in weights.values():
        weight.requires_grad_()
    model = Model(weights, HEADS[size])
    samples = [(*sample(place), place % LEVELS) for place in range(count)]
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-4)
    seconds, losses = [], []
    for _ in range(steps):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = torch.stack(model.losses(samples)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([weight for weight in weights.values() if weight.grad is not None], 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - started)
        losses.append(loss.item())
    print(json.dumps({"side": "pytorch", "work": "train", "size": size, "seconds": seconds[WARM_UP:], "losses": losses, "peak": peak()}))


def speak(size, path, frames):
    import torch

    _, weights = read(path)
    model = Model(weights, HEADS[size])
    phonemes, prompt, _ = sample(0)
    dim = weights["sep"].shape[0]

    def generate():
        before, positions = model.conditions(phonemes, 0, 0, prompt)
        shape = (1, model.heads, len(before) + frames, dim // model.heads)
        caches = [{"k": torch.empty(shape), "v": torch.empty(shape), "length": 0} for _ in range(model.layers)]
        state = model.forward(before[None], positions[None], caches)[0, -1]
        spoken = []
        while len(spoken) < frames:
            code = model.logits(state, 0).argmax().item()
            if code == STOP:
                break
            spoken.append(code)
            row = weights["resps_emb.embeddings.0.weight"][code][None, None]
            state = model.forward(row, torch.tensor([[len(spoken) - 1]]), caches)[0, -1]
        levels = [spoken]
        for level in range(1, LEVELS):
            before, positions = model.conditions(phonemes, 0, level, prompt)
            own = model.response(level, levels)
            positions = torch.cat([positions, torch.arange(len(own))])
            states = model.forward(torch.cat([before, own])[None], positions[None])[0, -len(own) :]
            levels.append(model.logits(states, level).argmax(-1).tolist())
        return levels

    seconds = []
    with torch.inference_mode():
        for _ in range(1 + WARM_UP):
            started = time.perf_counter()
            spoken = generate()
            seconds.append(time.perf_counter() - started)
    flat = [code for level in spoken for code in level]
    print(json.dumps({"side": "pytorch", "work": "speak", "size": size, "seconds": seconds[WARM_UP:], "codes": flat, "peak": peak()}))


def table(path):
    runs = collections.defaultdict(list)
    for line in open(path):
        run = json.loads(line)
        runs[run["work"], run["size"], run["side"]].append(run)
    print("| work | size | Flowmill | PyTorch | time, ratio | peak, Flowmill | peak, PyTorch | ratio |\n|---|---|---|---|---|---|---|---|")
    for work, size in dict.fromkeys((work, size) for work, size, _ in runs):
        ours, peer = (runs[work, size, side] for side in ("flowmill", "pytorch"))
        if work == "train":
            a, b = ours[0]["losses"], peer[0]["losses"]
            if abs(a[0] - b[0]) > 1e-4 * abs(b[0]):
                sys.exit(f"{work} {size}: the first losses differ: {a[0]} and {b[0]}")
        else:
            a, b = ours[0]["codes"], peer[0]["codes"]
            same = sum(x == y for x, y in zip(a, b))
            if len(a) != len(b) or same < 0.98 * len(b):
                sys.exit(f"{work} {size}: {same} of {len(b)} codes are the same")
        seconds = [statistics.median([s for run in side for s in run["seconds"]]) for side in (ours, peer)]
        peaks = [max(run["peak"] for run in side) / 1e9 for side in (ours, peer)]
        print(
            f"| {work} | {size} | {seconds[0]:.2f} s | {seconds[1]:.2f} s | {seconds[0] / seconds[1]:.2f} "
            f"| {peaks[0]:.2f} GB | {peaks[1]:.2f} GB | {peaks[0] / peaks[1]:.2f} |"
        )


def main():
    match sys.argv[1:]:
        case ["check", path]:
            check(path)
        case ["train", size, path, count, steps]:
            train(size, path, int(count), int(steps))
        case ["speak", size, path, frames]:
            speak(size, path, int(frames))
        case ["table", path]:
            table(path)
        case _:
            sys.exit(__doc__)


main()
