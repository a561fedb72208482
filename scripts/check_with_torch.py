"""Checks weight files of Flowmill with PyTorch; run through scripts/check_with_torch."""

import collections
import pathlib
import pickle
import subprocess
import sys
import tempfile

import numpy as np
import safetensors.torch
import torch

FLOWMILL = sys.argv[1]
GOLDEN = pathlib.Path(__file__).parent.parent / "tests" / "golden"
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8]
DTYPES += [torch.uint8, torch.bool]


def convert(source, target, *options, succeeds=True):
    done = subprocess.run([FLOWMILL, "convert", source, target, *options], capture_output=True, text=True)
    assert (done.returncode == 0) == succeeds and "panicked" not in done.stderr, done.stderr
    return done.stderr


def same(found, expected, about):
    """Same names, types, shapes and bits."""
    assert found.keys() == expected.keys(), (about, found.keys() ^ expected.keys())
    for name, tensor in expected.items():
        other = found[name]
        if not isinstance(tensor, torch.Tensor):
            assert other == tensor and type(other) is type(tensor), (about, name, other, tensor)
            continue
        assert other.dtype == tensor.dtype and other.shape == tensor.shape, (about, name, other.dtype, other.shape)
        bits = [t.detach().contiguous().flatten().view(torch.uint8) for t in (other, tensor)]
        assert torch.equal(*bits), (about, name)


def load(path):
    return torch.load(path, weights_only=True)


def block():
    """A small tree of modules with parameters and buffers of several kinds."""
    return torch.nn.ModuleDict({
        "encoder": torch.nn.TransformerEncoderLayer(16, 4, 32),
        "down": torch.nn.ModuleList([torch.nn.Conv1d(4, 8, 3), torch.nn.BatchNorm1d(8), torch.nn.ConvTranspose1d(8, 4, 2)]),
        "embedding": torch.nn.Embedding(10, 16),
    })


def every_type():
    tensors = collections.OrderedDict()
    for dtype in DTYPES:
        noise = torch.randn(3, 5, 2) * 50
        tensors[str(dtype)] = (noise > 0) if dtype is torch.bool else noise.to(dtype)
    tensors["scalar"] = torch.tensor(3.25)
    tensors["empty"] = torch.zeros(0, 4)
    tensors["extremes"] = torch.tensor([float("inf"), float("-inf"), float("nan"), -0.0, 1e-45])
    tensors["largest"] = torch.tensor([2**63 - 1, -(2**63)])
    return tensors


def views():
    base = torch.randn(6, 8)
    tensors = {"base": base, "same": base, "transposed": base.T, "part": base[2:5, 1::2], "row": base[3], "one": base[5, 7]}
    tensors["expanded"] = torch.randn(4, 1).expand(4, 3)
    tensors["parameter"] = torch.nn.Parameter(torch.randn(3))
    tensors["last"] = torch.randn(2, 3, 4).to(memory_format=torch.contiguous_format).permute(2, 0, 1)
    return tensors


def check_ours_is_read(folder):
    """What Flowmill writes, PyTorch reads."""
    for expected in (every_type(), block().state_dict()):
        torch.save(expected, folder / "a.pt")
        convert(folder / "a.pt", folder / "b.safetensors")
        same(safetensors.torch.load_file(folder / "b.safetensors"), dict(expected), "safetensors")
        convert(folder / "b.safetensors", folder / "c.pt")
        loaded = load(folder / "c.pt")
        assert type(loaded) is collections.OrderedDict
        same(loaded, dict(expected), "pt")
    model = block()
    model.load_state_dict(load(folder / "c.pt"), strict=True)
    same(model.state_dict(), dict(expected), "module")
    print(f"read by torch.load(weights_only=True) and load_state_dict(strict=True): {len(DTYPES)} element types, a module tree")


def check_theirs_is_read(folder):
    """What PyTorch writes, Flowmill reads: both formats, protocols 2 to 5."""
    extras = {"epoch": 3, "step": 120_000, "loss": 0.1, "best": float("inf"), "amp": True, "name": "flow", "large": -(2**40)}
    cases = 0
    for legacy in (False, True):
        for protocol in (2, 3, 4, 5):
            options = dict(_use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
            for state in (every_type(), views(), block().state_dict()):
                for saved in ({**state, **extras}, {"model": state, "optimizer": {"state": {}}, **extras}):
                    torch.save(saved, folder / "a.pt", **options)
                    convert(folder / "a.pt", folder / "b.pt")
                    same(load(folder / "b.pt"), {**state, **extras}, (legacy, protocol))
                    convert(folder / "a.pt", folder / "b.safetensors")
                    same(safetensors.torch.load_file(folder / "b.safetensors"), dict(state), (legacy, protocol))
                    cases += 1
    wrapped = torch.nn.ModuleDict({"module": block()}).state_dict()
    torch.save(wrapped, folder / "a.pt")
    convert(folder / "a.pt", folder / "b.pt", "--strip-prefix", "module.")
    block().load_state_dict(load(folder / "b.pt"), strict=True)
    print(f"read by flowmill convert: {cases} files of torch.save, zip and legacy, protocols 2 to 5, views and shared storages")


def check_optimizer_state_is_named(folder):
    model = block()
    optimizer = torch.optim.AdamW(model.parameters())
    model["embedding"](torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}, folder / "a.pt")
    told = convert(folder / "a.pt", folder / "b.pt")
    assert "left out: optimizer" in told, told
    same(load(folder / "b.pt"), {**model.state_dict(), "epoch": 1}, "checkpoint")
    print("a training checkpoint: its model taken, its optimizer named as left out")


class Evil:
    def __reduce__(self):
        import os
        return os.system, ("touch ran-it",)


def check_nothing_runs(folder):
    for legacy in (False, True):
        torch.save({"w": torch.ones(1), "x": Evil()}, folder / "a.pt", _use_new_zipfile_serialization=not legacy)
        told = convert(folder / "a.pt", folder / "evil.pt", succeeds=False)
        assert "system" in told and "never executed" in told, told
        torch.save(block(), folder / "a.pt", _use_new_zipfile_serialization=not legacy)
        told = convert(folder / "a.pt", folder / "evil.pt", succeeds=False)
        assert "torch.nn.modules" in told, told
    assert not (folder / "evil.pt").exists() and not pathlib.Path("ran-it").exists()
    print("code in a pickle and whole modules: refused by name")


def check_numpy(folder):
    cases = 0
    for kind in ("f4", "f8", "f2", "i8", "i4", "i2", "i1", "u1", "b1"):
        for order in ("<", ">"):
            for layout in ("C", "F"):
                array = np.asarray(np.random.default_rng(7).integers(0, 2, (3, 4, 2)), dtype=order + kind, order=layout)
                np.save(folder / "array.npy", array)
                convert(folder / "array.npy", folder / "b.pt")
                assert np.array_equal(load(folder / "b.pt")["array"].numpy(), array), (kind, order, layout)
                cases += 1
    np.save(folder / "array.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "Python objects" in convert(folder / "array.npy", folder / "b.pt", succeeds=False)
    print(f"numpy.save: {cases} arrays of either byte and axis order; objects refused")


def check_golden(folder):
    expected = load(GOLDEN / "pt" / "cosyvoice2_flow_full.pt")
    convert(GOLDEN / "pt" / "cosyvoice2_flow_full.pt", folder / "b.pt")
    same(load(folder / "b.pt"), expected, "golden checkpoint")
    expected = load(GOLDEN / "pt" / "dtypes_views.pt")
    convert(GOLDEN / "pt" / "dtypes_views.pt", folder / "b.pt")
    same(load(folder / "b.pt"), expected, "golden types")
    print("the golden checkpoints: the same tensors")


def check_plain_pickle(folder):
    """A plain pickle of lists is a file of values; it is shown."""
    for protocol in (2, 3, 4, 5):
        values = {f"utt{i}": np.random.default_rng(i).normal(size=192).tolist() for i in range(3000)}
        (folder / "v.pt").write_bytes(pickle.dumps(values, protocol))
        shown = subprocess.run([FLOWMILL, "inspect", folder / "v.pt"], capture_output=True, text=True, check=True).stdout
        assert "dict of 3,000 entries" in shown and "list of 192 floats" in shown, shown
    print("plain pickles of lists: shown as values")


def check_exported(path):
    same(load(path), safetensors.torch.load_file(path.with_name("model.safetensors")), path)
    print(f"{path}: the tensors of model.safetensors")


def main():
    torch.manual_seed(7)
    print(f"PyTorch {torch.__version__}, NumPy {np.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for check in (check_ours_is_read, check_theirs_is_read, check_optimizer_state_is_named, check_nothing_runs):
            check(folder)
        for check in (check_numpy, check_golden, check_plain_pickle):
            check(folder)
    if len(sys.argv) > 2:
        check_exported(pathlib.Path(sys.argv[2]))
    print("all is well")


if __name__ == "__main__":
    main()
