"""Compares an exported flow with onnxruntime and with public code; run through scripts/check_export."""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

GRAPH = "flow.decoder.estimator.fp32.onnx"
INPUTS = ["x", "mask", "mu", "t", "spks", "cond"]
OUTPUT = "estimator_out"
PREFIX = "decoder.estimator."
LARGEST_ERROR = 1e-4
# Packages that modules of public code import, and that the flow does not use.
UNUSED = {
    "lightning", "hydra", "rootutils", "gdown", "wget", "whisper", "pyworld", "matplotlib", "inflect", "phonemizer", "unidecode", "rich", "IPython",
    "librosa", "modelscope", "piper_phonemize", "sox", "funasr", "gradio", "deepspeed", "vllm", "tensorrt",
}


class Unused(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for packages that are not installed and not used."""

    def find_spec(self, name, path, target=None):
        del path, target
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in UNUSED else None

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__ = []
        module.__spec__ = spec
        return module

    def exec_module(self, module):
        pass


def error(found, expected):
    """The largest difference in relation to the largest number."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def session(path):
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path))
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return model, onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_graph(folder, cases):
    model, runtime = session(folder / GRAPH)
    bins = next(iter(cases.values()))["x"].shape[1]
    axes = lambda value: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
    mel = [2, bins, "seq_len"]
    found = {value.name: axes(value) for value in model.graph.input}
    width = found["spks"][1]
    published = {"x": mel, "mask": [2, 1, "seq_len"], "mu": mel, "t": [2], "spks": [2, width], "cond": mel}
    if "cond" not in found:
        published.pop("cond")
    assert list(found.items()) == list(published.items()), found
    assert [(value.name, axes(value)) for value in model.graph.output] == [(OUTPUT, mel)]
    worst = 0.0
    for case in cases.values():
        given = {name: case[name] for name in found}
        worst = max(worst, error(runtime.run(None, given)[0], case[OUTPUT]))
    print(f"{GRAPH}: {len(model.graph.node)} nodes, {len(cases)} batches in onnxruntime, largest relative error {worst:.1e}")
    assert worst < LARGEST_ERROR, worst


def check_state(folder):
    import torch

    state = torch.load(folder / "flow.pt", map_location="cpu", weights_only=True)
    with safe_open(folder / "model.safetensors", "pt") as stored:
        assert set(stored.keys()) == set(state), set(stored.keys()) ^ set(state)
        for name in stored.keys():
            assert torch.equal(stored.get_tensor(name), state[name]), name
    print(f"flow.pt: {len(state)} tensors, those of model.safetensors")
    return state


def check_public(folder, state, cases, repository):
    import torch

    paths = [repository, repository / "third_party/Matcha-TTS"]
    if "COSYVOICE" in os.environ:
        paths += [Path(os.environ["COSYVOICE"]), Path(os.environ["COSYVOICE"]) / "third_party/Matcha-TTS"]
    sys.path[:0] = [str(path) for path in paths]
    sys.meta_path.append(Unused())
    from hyperpyyaml import load_hyperpyyaml

    [config] = folder.glob("*.yaml")
    with config.open() as file:
        flow = load_hyperpyyaml(file)["flow"]
    flow.load_state_dict(state, strict=True)
    flow.eval()
    kind = f"{type(flow).__module__}.{type(flow).__name__}"
    print(f"{config.name}: {kind} takes flow.pt, {sum(p.numel() for p in flow.parameters()):,} parameters")
    worst = 0.0
    with torch.inference_mode():
        for case in cases.values():
            given = {name: torch.from_numpy(case[name]) for name in INPUTS if name in case}
            worst = max(worst, error(flow.decoder.estimator(**given).numpy(), case[OUTPUT]))
    print(f"{type(flow.decoder.estimator).__name__}: {len(cases)} batches in PyTorch, largest relative error {worst:.1e}")
    assert worst < LARGEST_ERROR, worst


def run_graphs(folder, out):
    """Runs the graphs of the tests on their inputs."""
    cases, outputs = grouped(folder / "inputs.safetensors"), {}
    with safe_open(folder / "inputs.safetensors", "np") as stored:
        digests = stored.metadata()
    for name in sorted(digests):
        _, runtime = session(folder / f"{name}.onnx")
        for key, case in cases.items():
            if key.rsplit(".", 1)[0] == name:
                outputs[key] = runtime.run(None, case)[0]
    out.parent.mkdir(exist_ok=True)
    save_file(outputs, out, metadata=dict(sorted(digests.items())))
    print(f"{out}: {len(outputs)} outputs of {len(digests)} graphs")


def grouped(path):
    """The tensors of a file by what precedes the last dot of their names."""
    groups = {}
    for name, tensor in load_file(path).items():
        case, input = name.rsplit(".", 1)
        groups.setdefault(case, {})[input] = tensor
    return groups


def main(arguments):
    if arguments[0] == "--graphs":
        return run_graphs(Path(arguments[1]), Path(arguments[2]))
    folder, cases = Path(arguments[0]), grouped(Path(arguments[1]))
    if (folder / GRAPH).exists():
        check_graph(folder, cases)
    else:
        print(f"{GRAPH}: not exported (export.write_onnx: true)")
    if importlib.util.find_spec("torch"):
        state = check_state(folder)
        if arguments[2:]:
            check_public(folder, state, cases, Path(arguments[2]))
    else:
        print("flow.pt: not read, torch is not installed")


if __name__ == "__main__":
    main(sys.argv[1:])
