"""The parts of scripts/bench_train, which measures one complete training step (forward, backward, clip by norm, AdamW):

    bench_train.py check [--device D] GOLDEN…        checks that the PyTorch modules compute loss and gradients of golden files
    bench_train.py data FOLDER FAMILY RECIPE         writes recordings, tokens and a recipe of one batch for Flowmill
    bench_train.py ours FAMILY FLOWMILL FOLDER       runs steps of `flowmill train --overfit`; prints a line of JSON
    bench_train.py peer FAMILY                       runs steps of PyTorch; prints a line of JSON
    bench_train.py table RESULTS                     prints medians and ratios of such lines

FAMILY is cosyvoice2 or step-audio. See --help of each for its options.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import resource
import statistics
import struct
import subprocess
import sys
import time

import random_corpus

SMALL_ENCODER = dict(attention_heads=2, linear_units=32, num_blocks=1, num_up_blocks=1)
# Sizes at which the script itself can be tried in a moment.
SMALL = {
    "cosyvoice2": dict(input_size=16, encoder=SMALL_ENCODER)
    | dict(estimator=dict(channels=[16], attention_head_dim=8, n_blocks=1, num_mid_blocks=1, num_heads=2)),
    "step-audio": dict(input_size=16, encoder=SMALL_ENCODER)
    | dict(estimator=dict(hidden_size=16, depth=1, num_heads=2, head_dim=8, mlp_ratio=4.0)),
}
# Steps that are not counted: the first of all; the compiler works in more than one.
WARM_UP = {"ours": 2, "eager": 2, "compile": 4}
LEARNING_RATE, CLIP = 1e-4, 5.0
OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 2e-5, 2e-4


def read_safetensors(path):
    import torch

    content = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    config = json.loads(header.pop("__metadata__")["config"])
    kinds = {"F32": torch.float32, "I64": torch.int64, "I32": torch.int32}
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        data = bytearray(content[start:end])
        tensors[name] = torch.frombuffer(data, dtype=kinds[entry["dtype"]]).reshape(entry["shape"])
    return config, tensors


def check(paths, device):
    """Every parameter by name, the loss, every gradient; without TF32."""
    import torch

    from flow_torch import Flow

    set_tf32(False)
    passed = True
    for path in paths:
        config, tensors = read_safetensors(path)
        under = lambda prefix: {name[len(prefix) :]: x for name, x in tensors.items() if name.startswith(prefix)}
        flow = Flow(config)
        flow.load_state_dict(under("param."), strict=True)
        flow.to(device)
        loss = flow.loss({name: x.to(device) for name, x in under("in.").items()})
        loss.backward()
        error = lambda found, expected, scale: float((found.cpu() - expected).abs().max() / (scale.abs().max() + 1e-6))
        loss_error = error(loss.detach().reshape(1), tensors["out.loss"].reshape(1), tensors["out.loss"])
        found, expected = {name: weight.grad for name, weight in flow.named_parameters()}, under("grad.")
        # As in `flowmill parity`: a key's bias moves all scores of a query alike, so that its gradient is zero but for rounding, and is
        # measured against that of the weight beside it.
        vanishes = lambda name: name.endswith(("linear_k.bias", "to_k.bias", "k_norm.bias"))
        scale = lambda name: expected[name.replace("bias", "weight") if vanishes(name) else name]
        errors = {name: error(found[name], expected[name], scale(name)) for name in expected}
        worst = max(errors, key=errors.get)
        good = loss_error <= OUTPUT_TOLERANCE and errors[worst] <= GRADIENT_TOLERANCE and len(errors) > 0
        passed &= good
        gradients = f"{len(errors)} gradients {errors[worst]:.1e} ({worst})"
        print(f"{'ok  ' if good else 'FAIL'} {pathlib.Path(path).name}: loss {loss_error:.1e}, {gradients}")
    sys.exit(not passed)


def set_tf32(allowed):
    """Products and convolutions in float32: by default PyTorch lets cuDNN round to TF32, and cuBLAS not."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def data(folder, family, recipe, options):
    """A corpus of recordings of one length, and a recipe whose only batch holds all of it."""
    count = options.tokens
    if count % 3 != 1:
        sys.exit("--tokens must be one more than a multiple of 3: whole groups of Step-Audio's two codebooks")
    lengths = {f"train{item:05}": count for item in range(options.items)} | {"dev00000": count}
    model = dict(SMALL[family]) if options.small else {}
    model["encoder"] = model.get("encoder", {}) | {
        f"{kind}dropout_rate": 0 for kind in ("", "positional_", "attention_")
    }
    model["matching"] = {"streaming_rate": 0}
    settings = f"""train:
  model: {json.dumps(model)}
  batch: {{max_frames_in_batch: {2 * count * options.items}}}
  optim: {{lr: {LEARNING_RATE}}}
  grad_clip: {CLIP}
"""
    random_corpus.write(folder, family, recipe, "bench-train", lengths, settings)


def ours(flowmill, folder, options):
    """Time between the lines of two steps: Flowmill prints one when all work of a step is done, on a device too. Asked for two batches, it
    tells that one holds all."""
    count = options.steps + WARM_UP["ours"]
    command = [flowmill, "train", folder, "--overfit", "2", "--steps", str(count), "--jobs", str(options.threads)]
    command += ["--device", options.device]
    command += ["--set", "train.tf32=true"] if options.precision == "tf32" else ["--set", f"train.precision={options.precision}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines, times = [], []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("step "):
            times.append(time.perf_counter())
    _, _, usage = os.wait4(process.pid, 0)
    text = "".join(lines)
    on_device = re.search(r"of the device's memory at most \((\d+) bytes\)", text)
    if len(times) != count or "1 batch," not in text or (on_device is None) != (options.device == "cpu"):
        sys.exit(f"{' '.join(command)} did not do {count} steps on one batch of {options.device}:\n{text}")
    taken = int(on_device[1]) / 2**20 if on_device else usage.ru_maxrss / 1024
    steps = [after - before for before, after in zip(times, times[1:])]
    return {"step": steps[WARM_UP["ours"] - 1 :], "megabytes": taken}


def peer(family, options):
    """PyTorch as it comes, eager or compiled; on a GPU with the fused AdamW, which is its fastest one."""
    import torch

    from flow_torch import PUBLISHED, Flow

    torch.set_num_threads(options.threads)
    torch.manual_seed(7)
    set_tf32(options.precision == "tf32")
    gpu = options.device != "cpu"
    config = PUBLISHED[family] | (SMALL[family] if options.small else {})
    flow = Flow(config).to(options.device)
    batch = random_corpus.batch(config, family, [options.tokens] * options.items)
    batch = {name: x.to(options.device) for name, x in batch.items()}
    optimizer = torch.optim.AdamW(flow.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True if gpu else None)
    half = options.precision == "bf16"
    format = torch.autocast(torch.device(options.device).type, dtype=torch.bfloat16) if half else contextlib.nullcontext()
    compute = torch.compile(flow.loss) if options.mode == "compile" else flow.loss
    wait = torch.cuda.synchronize if gpu else lambda: None
    parts = () if gpu else ("forward", "backward", "optimizer")
    result = {part: [] for part in ("step", *parts)}
    for step in range(options.steps + WARM_UP[options.mode]):
        if gpu and step == WARM_UP[options.mode]:
            torch.cuda.reset_peak_memory_stats()
        wait()
        times = [time.perf_counter()]
        optimizer.zero_grad(set_to_none=True)
        with format:
            loss = compute(batch)
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
        optimizer.step()
        loss.item()
        wait()
        times.append(time.perf_counter())
        if step >= WARM_UP[options.mode]:
            result["step"].append(times[3] - times[0])
            for part, before, after in zip(parts, times, times[1:]):
                result[part].append(after - before)
    result["parameters"] = sum(weight.numel() for weight in flow.parameters())
    taken = torch.cuda.max_memory_allocated() / 2**20 if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result | {"megabytes": taken}


def table(path):
    """A row for each flow and number format; ratios are Flowmill's time and memory over PyTorch's."""
    results = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    modes = list(dict.fromkeys(result["side"] for result in results if result["side"] != "ours"))
    columns = ["flow", "parameters", "format", "Flowmill, s per step"]
    columns += [column for mode in modes for column in (f"PyTorch {mode}, s per step", "time")]
    columns += ["Flowmill, MB"] + [column for mode in modes for column in (f"PyTorch {mode}, MB", "memory")]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for family, precision in dict.fromkeys((result["family"], result["precision"]) for result in results):
        chosen = [result for result in results if (result["family"], result["precision"]) == (family, precision)]
        runs = lambda side: [result for result in chosen if result["side"] == side]
        median = lambda side, part: statistics.median(x for run in runs(side) for x in run[part])
        peak = lambda side: statistics.median(run["megabytes"] for run in runs(side))
        size = next((f"{run['parameters'] / 1e6:.1f} M" for run in chosen if "parameters" in run), "")
        figure = lambda seconds: f"{seconds:.2f}" if seconds >= 1 else f"{seconds:.4f}"
        row = [family, size, precision, figure(median("ours", "step"))]
        for mode in modes:
            cells = ["", ""]
            if runs(mode):
                parts = [figure(median(mode, part)) for part in ("forward", "backward", "optimizer") if part in runs(mode)[0]]
                whole = figure(median(mode, "step")) + (f" ({', '.join(parts)})" if parts else "")
                cells = [whole, f"{median('ours', 'step') / median(mode, 'step'):.2f}x"]
            row += cells
        row.append(f"{peak('ours'):,.0f}")
        for mode in modes:
            row += [f"{peak(mode):,.0f}", f"{peak('ours') / peak(mode):.2f}x"] if runs(mode) else ["", ""]
        print("| " + " | ".join(row) + " |")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name, *positional, options=()):
        added = commands.add_parser(name)
        for argument in positional:
            added.add_argument(argument, nargs="+" if argument == "paths" else None)
        for option in options:
            added.add_argument(option[0], **option[1])

    batch = [("--items", dict(type=int, default=4)), ("--tokens", dict(type=int, default=100)), ("--small", dict(action="store_true"))]
    device = ("--device", dict(default="cpu", help="cpu or cuda:N"))
    run = [("--steps", dict(type=int, default=3)), ("--threads", dict(type=int, default=2)), device]
    run += [("--precision", dict(default="fp32", choices=["fp32", "tf32", "bf16"]))]
    mode = ("--mode", dict(default="eager", choices=["eager", "compile"]))
    command("check", "paths", options=[device])
    command("data", "folder", "family", "recipe", options=batch)
    command("ours", "family", "flowmill", "folder", options=run)
    command("peer", "family", options=[*batch, *run, mode])
    command("table", "path")
    return parser.parse_args()


def main():
    options = arguments()
    if options.command == "check":
        check(options.paths, options.device)
    elif options.command == "data":
        data(options.folder, options.family, options.recipe, options)
    elif options.command == "table":
        table(options.path)
    else:
        measured = ours(options.flowmill, options.folder, options) if options.command == "ours" else peer(options.family, options)
        side = "ours" if options.command == "ours" else options.mode
        print(json.dumps({"family": options.family, "side": side, "precision": options.precision} | measured))


if __name__ == "__main__":
    main()
