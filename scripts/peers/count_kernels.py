"""The parts of scripts/count_launches: one training step of a published flow, in kernel launches of Flowmill and in operators of PyTorch.

    count_kernels.py data FOLDER FAMILY RECIPE     writes recordings, tokens and a recipe of one batch for Flowmill: published depth, small widths
    count_kernels.py ours TITLE REPORT REPORT      prints the difference of two reports of the emulator, as a line of the table
    count_kernels.py peer FAMILY                   prints PyTorch's counts, as lines of the table

FAMILY is cosyvoice2 or step-audio. PyTorch is counted on the CPU: every ATen operator that reaches the device's side of its dispatcher
and is neither a view nor an allocation. On a GPU each of them launches at least one kernel, and many launch several (convolutions, padding, norms and
embeddings backwards, large sums), so a GPU has at least this many launches. Products (mm, addmm, bmm, convolutions forward and backward,
fused attention forward and backward) are counted separately. A `_foreach_` or `_fused_` operator counts once for all its tensors; on a GPU
it needs one launch for every few hundred blocks. Widths do not change the counts.
"""

import collections
import pathlib
import re
import sys

import random_corpus

LENGTHS = (40, 36, 33, 27)  # tokens of the items of the batch
SMALL = {
    "cosyvoice2": dict(channels=[16], attention_head_dim=8, num_heads=2),
    "step-audio": dict(hidden_size=16, num_heads=2, head_dim=8),
}
# Operators that are no views and launch nothing all the same.
SILENT = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "_record_function_enter_new", "_record_function_exit", "lift_fresh", "scalar_tensor", "resize_"}
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward"}
TO_HOST = "_local_scalar_dense"


def count(step):
    """The operators that reach the device's side of the dispatcher while a function runs, by name; neither views nor allocations."""
    from torch.utils._python_dispatch import TorchDispatchMode

    counts = collections.Counter()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            name = function.overloadpacket.__name__
            if not function.is_view and name not in SILENT:
                counts[name] += 1
            return function(*arguments, **(keywords or {}))

    with Counting():
        step()
    return counts


def peer(family):
    import torch
    from torch.optim import swa_utils

    import flow_torch
    import torch.nn.utils.clip_grad as clip_grad

    # On the CPU the default is a loop over parameters; on a GPU it is the operator over lists.
    clip_grad._has_foreach_support = lambda tensors, device: True
    torch.manual_seed(7)
    published = flow_torch.PUBLISHED[family]
    encoder = published["encoder"] | dict(attention_heads=2, linear_units=32)
    config = published | dict(input_size=16, vocab_size=64, encoder=encoder, estimator=published["estimator"] | SMALL[family])
    batch = random_corpus.batch(config, family, LENGTHS)
    for variant in ("foreach", "fused"):
        flow = flow_torch.Flow(config)
        optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-4, **{variant: True})
        average = swa_utils.AveragedModel(flow, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.999))

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss = flow.loss(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0, foreach=True)
            optimizer.step()
            swa_utils.get_ema_multi_avg_fn(0.999)(list(average.module.parameters()), list(flow.parameters()), 1)
            loss.item()

        step()
        counts = count(step)
        products = sum(times for name, times in counts.items() if name in PRODUCTS or name.startswith("_scaled_dot_product"))
        # The counters of AdamW over lists are on the CPU also where the parameters are on a GPU: only the loss is copied.
        others = counts.total() - products - counts[TO_HOST]
        print(f"PyTorch eager, AdamW {variant}\t{others}\t{products}\t-\t1\t-\t-")
        if variant == "foreach" and "--list" in sys.argv:
            for name, times in counts.most_common():
                print(f"    {times:6} {name}", file=sys.stderr)


def data(folder, family, recipe):
    """A corpus and a recipe whose only batch holds all of it."""
    lengths = {f"train{item}": length for item, length in enumerate(LENGTHS)} | {"dev0": LENGTHS[0]}
    estimator = ", ".join(f"{key}: {value}" for key, value in SMALL[family].items())
    dropouts = "dropout_rate: 0, positional_dropout_rate: 0, attention_dropout_rate: 0"
    settings = f"""train:
  model:
    input_size: 16
    encoder: {{attention_heads: 2, linear_units: 32, {dropouts}}}
    estimator: {{{estimator}}}
    matching: {{streaming_rate: 0}}
  ema_decay: 0.999
  grad_clip: 5
  accum_grad: 1
  max_epochs: null
  early_stopping: null
  log_every: 1000
  validate_every: 1000
  save_every: 1000
"""
    random_corpus.write(folder, family, recipe, "count-launches", lengths, settings)


def ours(title, fewer, more):
    """The difference of two reports of the emulator, of trainings that differ by one step."""
    patterns = [
        r"kernel launches +(\d+)",
        r"matrix products \(cuBLAS\) +(\d+)",
        r"copies, host to device +(\d+)",
        r"copies, device to host +(\d+)",
        r"allocations +(\d+)",
    ]
    before, after = (pathlib.Path(path).read_text() for path in (fewer, more))
    found = lambda text, pattern: int(re.search(pattern, text).group(1))
    counts = [found(after, pattern) - found(before, pattern) for pattern in patterns]
    peak = found(after, r"peak memory (\d+) bytes") / 1e6
    print("\t".join([title, *map(str, counts), f"{peak:.1f} MB"]))
    by_kernel = lambda text: {name: int(times) for times, name in re.findall(r"^ +(\d+)  (\w+)$", text, re.M)}
    fewer, more = by_kernel(before), by_kernel(after)
    for name, times in sorted(more.items(), key=lambda item: fewer.get(item[0], 0) - item[1]):
        if times != fewer.get(name, 0):
            print(f"    {times - fewer.get(name, 0):6} {name}", file=sys.stderr)


if __name__ == "__main__":
    {"data": data, "peer": peer, "ours": ours}[sys.argv[1]](*[argument for argument in sys.argv[2:] if not argument.startswith("--")])
