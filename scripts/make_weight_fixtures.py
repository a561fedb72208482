#!/usr/bin/env python3
"""Writes tests/data/weights: checkpoints that contain objects in addition to weights, as training scripts save them.

    python3 -m venv venv && venv/bin/pip install numpy==2.4.6 omegaconf==2.4.0
    venv/bin/python scripts/make_weight_fixtures.py

PyTorch is not needed: modules with its names replace it, so that CPython's own `pickle` writes the same instructions as
`torch.save`. Every file contains the weights W and b below. README.md there describes the other contents, and which of them are data.
"""

import argparse
import collections
import datetime
import enum
import functools
import io
import pathlib
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
from omegaconf import OmegaConf

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/data/weights"
W = [[0.5, -1.5, 2.5], [3.5, -4.5, 5.5]]
B = [0.25, -0.75]


def module(name):
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    return sys.modules[name]


def put(target, module_name, name=None):
    """Makes a class or function importable under another module's name."""
    target.__module__ = module_name
    target.__qualname__ = target.__name__ = name or target.__name__
    setattr(module(module_name), target.__name__, target)
    return target


@functools.partial(put, module_name="torch._utils", name="_rebuild_tensor_v2")
def rebuild_tensor(*arguments):
    raise AssertionError("never called")


@functools.partial(put, module_name="torch._utils", name="_rebuild_parameter")
def rebuild_parameter(*arguments):
    raise AssertionError("never called")


@functools.partial(put, module_name="torch._tensor", name="_rebuild_from_type_v2")
def rebuild_from_type(*arguments):
    raise AssertionError("never called")


@functools.partial(put, module_name="torch._utils", name="_rebuild_qtensor")
def rebuild_quantized(*arguments):
    raise AssertionError("never called")


FloatStorage = put(type("FloatStorage", (), {}), "torch")
ComplexFloatStorage = put(type("ComplexFloatStorage", (), {}), "torch")
Parameter = put(type("Parameter", (), {}), "torch.nn.parameter")


class Storage:
    def __init__(self, values, kind=FloatStorage):
        self.values, self.kind = values, kind

    def count(self):
        return len(self.values) // (2 if self.kind is ComplexFloatStorage else 1)

    def bytes(self):
        return struct.pack(f"<{len(self.values)}f", *self.values)


class Tensor:
    def __init__(self, rows, kind=FloatStorage):
        flat = [x for row in rows for x in row] if isinstance(rows[0], list) else list(rows)
        self.shape = (len(rows), len(rows[0])) if isinstance(rows[0], list) else (len(rows),)
        self.strides = (self.shape[1], 1) if len(self.shape) == 2 else (1,)
        self.storage = Storage(flat, kind)

    def arguments(self):
        return (self.storage, 0, self.shape, self.strides, False, collections.OrderedDict())

    def __reduce_ex__(self, protocol):
        return (rebuild_tensor, self.arguments())


class Wrapped:
    """A tensor in one of the forms that PyTorch gives parameters and quantized tensors."""

    def __init__(self, function, arguments):
        self.reduced = (function, arguments)

    def __reduce_ex__(self, protocol):
        return self.reduced


def weights():
    return collections.OrderedDict([("linear.weight", Tensor(W)), ("linear.bias", Tensor(B))])


class Pickler(pickle._Pickler):
    """As torch.save: storages by reference."""

    def __init__(self, *arguments, legacy=False, **named):
        super().__init__(*arguments, **named)
        self.legacy, self.stored = legacy, []

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        if value not in self.stored:
            self.stored.append(value)
        key = str(self.stored.index(value))
        return ("storage", value.kind, key, "cpu", value.count()) + ((None,) if self.legacy else ())


def save_zip(name, value, protocol):
    sink = io.BytesIO()
    pickler = Pickler(sink, protocol=protocol)
    pickler.dump(value)
    with zipfile.ZipFile(OUT / name, "w", zipfile.ZIP_STORED) as archive:
        def entry(path, content):
            archive.writestr(zipfile.ZipInfo(f"archive/{path}"), content)
        entry("data.pkl", sink.getvalue())
        entry("byteorder", b"little")
        for key, storage in enumerate(pickler.stored):
            entry(f"data/{key}", storage.bytes())
        entry("version", b"3\n")


def save_legacy(name, value, protocol):
    with open(OUT / name, "wb") as sink:
        pickle.dump(0x1950A86A20F9469CFC6C, sink, protocol=protocol)
        pickle.dump(1001, sink, protocol=protocol)
        pickle.dump({"protocol_version": 1001, "little_endian": True}, sink, protocol=protocol)
        pickler = Pickler(sink, protocol=protocol, legacy=True)
        pickler.dump(value)
        pickle.dump([str(key) for key in range(len(pickler.stored))], sink, protocol=protocol)
        for storage in pickler.stored:
            sink.write(struct.pack("<q", storage.count()))
            sink.write(storage.bytes())


# Classes of training scripts: with attributes, with slots, of arguments with names, with __reduce__ and __setstate__.
class LossScaler:
    def __init__(self):
        self.scale, self.inner = 65536.0, Tensor([9.0, 9.0])


LossScaler = put(LossScaler, "deepspeed.runtime.fp16.loss_scaler")


class Slotted:
    __slots__ = ("rate", "nested")

    def __init__(self):
        self.rate, self.nested = 0.1, [{"deep": Tensor([8.0])}]


Slotted = put(Slotted, "trainer.options")


class Named:
    def __new__(cls, *, rate):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return ((), {"rate": 0.5})


Named = put(Named, "trainer.options")


class Stateful:
    def __reduce__(self):
        return (Stateful, (1,), {"linear.weight": Tensor([7.0])})

    def __setstate__(self, state):
        raise AssertionError("never called")


Stateful = put(Stateful, "trainer.options")
Stateful.__init__ = lambda self, *arguments: None


class Config(dict):
    pass


Config = put(Config, "trainer.options")


class History(list):
    pass


History = put(History, "trainer.options")


class Phase(enum.Enum):
    WARM = 1


Phase = put(Phase, "trainer.options")


def optimizer(parameters):
    raise AssertionError("never called")


optimizer = put(optimizer, "torch.optim.adam", "Adam")


def beside():
    """What training scripts keep beside the weights; none of it is data that is read."""
    slotted, cyclic = Slotted(), argparse.Namespace(lr=1e-3, tags=["a", "b"])
    cyclic.itself = cyclic
    return {
        "exp_dir": pathlib.PosixPath("/data/exp"),
        "args": cyclic,
        "optimizer_class": optimizer,
        "make_optimizer": functools.partial(optimizer, lr=1e-3),
        "loss_scaler": LossScaler(),
        "options": slotted,
        "named": Named(rate=0.5),
        "stateful": Stateful(),
        "config": Config(model={"width": 3}),
        "history": History([1.0, 0.5]),
        "phase": Phase.WARM,
        "started": datetime.datetime(2024, 5, 17, 12, 30),
        "elapsed": datetime.timedelta(hours=3),
        "hydra": OmegaConf.create({"model": {"width": 3, "parts": [1, {"a": "b"}]}}),
        "counter": collections.Counter("abca"),
        "random_state": {"state": 2**127 + 5, "inc": 2**128 - 1},
        "mask": Wrapped(rebuild_quantized, (Storage([1.0]), 0, (1,), (1,), ())),
        "spectrum": Tensor([1.0, 0.0], ComplexFloatStorage),
        ("tuple", "key"): pathlib.PurePosixPath("x"),
    }


def numbers():
    """NumPy's values, which are data."""
    return {
        "best_loss": np.float32(0.125),
        "best_step": np.int64(1200),
        "seen": np.uint64(2**63 + 1),
        "amp": np.bool_(True),
        "tag": np.str_("wide Ω"),
        "half": np.float16(-2.5),
    }


def arrays():
    return collections.OrderedDict([
        ("linear.weight", np.array(W, dtype=np.float32)),
        ("linear.bias", np.array(B, dtype=np.float64)),
        ("columns", np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))),
        ("swapped", np.arange(3, dtype=">f4")),
        ("ids", np.array([1, 65535], dtype=np.uint16)),
        ("counts", np.array([7, 2**32 - 1], dtype=np.uint32)),
        ("flags", np.array([True, False])),
        ("scalar", np.array(2.5, dtype=np.float32)),
        ("names", np.array(["a", "bc"])),
        ("objects", np.array([pathlib.PosixPath("x"), None], dtype=object)),
        ("records", np.zeros(2, dtype=[("a", "f4"), ("b", "i4")])),
        ("times", np.array(["2024-05-17"], dtype="M8[D]")),
    ])


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for protocol in (2, 3, 4, 5):
        save_zip(f"objects_protocol{protocol}.pt", {"model": weights(), "epoch": 3, **beside()}, protocol)
    save_legacy("objects_legacy.pt", {"state_dict": weights(), **beside()}, 2)
    save_zip("numpy_scalars.pt", {"model": weights(), **numbers()}, 2)
    for protocol in (2, 5):
        with open(OUT / f"arrays_protocol{protocol}.pkl", "wb") as sink:
            pickle.dump(arrays(), sink, protocol=protocol)
    # One weight with attributes of its own, one as a parameter.
    typed = Wrapped(rebuild_from_type, (rebuild_tensor, Parameter, Tensor(W).arguments(), {"tensor_parallel": True}))
    plain = Wrapped(rebuild_parameter, (Tensor(B), True, collections.OrderedDict()))
    save_zip("parameters.pt", {"model": collections.OrderedDict([("linear.weight", typed), ("linear.bias", plain)])}, 2)
    # The whole model as an object: its tensors are not weights that can be taken.
    save_zip("whole_model.pt", Stateful(), 2)
    # A weight of the state dict itself that cannot be read.
    broken = weights()
    broken["linear.scale"] = Tensor([1.0, 0.0], ComplexFloatStorage)
    save_zip("complex_weight.pt", {"model": broken}, 2)


main()
