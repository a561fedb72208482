#!/usr/bin/env python3
"""Writes tests/data/vall_e: one small model of VALL-E in the files of the public trainer, written by PyTorch and safetensors themselves.

    python3 -m venv venv && venv/bin/pip install torch safetensors
    venv/bin/python scripts/make_vall_e_fixtures.py

All files have the same weights, which half precision represents exactly. README.md there says what is in each.
"""

import collections
import json
import pathlib

import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/data/vall_e"
DIM, FFN, LEVELS, CODES, PHONEMES, RANK, ALPHA = 8, 16, 3, 16, 256, 2, 4
STATS = {"global_step": 1000, "micro_step": 4000, "global_samples": 64000, "tokens_processed": 123456789}
ADAPTED = ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


def shapes():
    """Yields the names and shapes of the version 5 model."""
    yield "sep", [DIM]
    yield "dropout_token", [DIM]
    for name, entries in [("text", PHONEMES), ("langs", 1), ("tones", 1), ("tasks", 8), ("rvq_l", LEVELS), ("len", 11)]:
        yield f"{name}_emb.weight", [entries, DIM]
    for level in range(LEVELS):
        yield f"proms_emb.embeddings.{level}.weight", [CODES, DIM]
    for place in range(LEVELS + 1):
        yield f"resps_emb.embeddings.{place}.weight", [CODES + (place in (0, LEVELS)), DIM]
    layer = "model.layers.0"
    yield f"{layer}.input_layernorm.weight", [DIM]
    for name in "qkvo":
        yield f"{layer}.self_attn.{name}_proj.weight", [DIM, DIM]
    yield f"{layer}.post_attention_layernorm.weight", [DIM]
    yield f"{layer}.mlp.gate_proj.weight", [FFN, DIM]
    yield f"{layer}.mlp.up_proj.weight", [FFN, DIM]
    yield f"{layer}.mlp.down_proj.weight", [DIM, FFN]
    yield "model.norm.weight", [DIM]
    for number, classes in enumerate([CODES + 1] + [CODES] * LEVELS + [PHONEMES, 11]):
        yield f"classifiers.proj.{number}.weight", [classes, DIM]
        yield f"classifiers.proj.{number}.bias", [classes]


def tensor(name, shape):
    """Returns multiples of 1/256 between -1/8 and 1/8 without 0, around 1 for normalizations."""
    generator = torch.Generator().manual_seed(sum(name.encode()))
    values = torch.randint(1, 33, shape, generator=generator) * (2 * torch.randint(0, 2, shape, generator=generator) - 1)
    return values / 256 + (1.0 if "norm" in name else 0.0)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    state = collections.OrderedDict((name, tensor(name, shape)) for name, shape in shapes())
    config = {"name": "ar+nar", "version": 5, "size": {"dim": DIM, "heads": 2, "layers": 1}}
    notes = {"stats": json.dumps(STATS), "config": json.dumps(config)}
    save_file(state, OUT / "fp32.sft", notes)
    half = collections.OrderedDict((name, value.half()) for name, value in state.items())
    torch.save(
        {
            "module": half,
            "buffer_names": [],
            "optimizer": None,
            "param_shapes": [collections.OrderedDict((name, value.shape) for name, value in half.items())],
            "frozen_param_shapes": None,
            "shared_params": {},
            "frozen_param_fragments": None,
            "lr_scheduler": None,
            "data_sampler": None,
            "random_ltd": None,
            "sparse_tensor_module_names": set(),
            "skipped_steps": 3,
            "global_steps": STATS["global_step"],
            "global_samples": STATS["global_samples"],
            "dp_world_size": 1,
            "mp_world_size": 1,
            "ds_config": {"train_micro_batch_size_per_gpu": 8, "fp16": {"enabled": True, "loss_scale_window": 1000}},
            "ds_version": "0.15.4",
            "stats": STATS,
        },
        OUT / "mp_rank_00_model_states.pt",
    )
    torch.save({"module": state, "stats": STATS}, OUT / "state.pth")
    torch.save({"model": state}, OUT / "model.pth")
    adapter = collections.OrderedDict()
    for module in ADAPTED:
        name = f"model.layers.0.{module}"
        outputs, inputs = state[f"{name}.weight"].shape
        adapter[f"{name}.lora_B"] = tensor(f"{name}.lora_B", [outputs, RANK])
        adapter[f"{name}.lora_A"] = tensor(f"{name}.lora_A", [RANK, inputs])
    settings = {"name": "mine", "rank": RANK, "alpha": ALPHA, "training": True, "embeddings": False, "parametrize": False}
    save_file(adapter, OUT / "lora.sft", {"config": json.dumps(settings)})
    torch.save({"module": adapter, "config": settings}, OUT / "lora.pth")
    # A training checkpoint of the adapter has its tensors among those of the base weights.
    torch.save({"module": collections.OrderedDict([*state.items(), *adapter.items()]), "stats": STATS}, OUT / "adapting.pth")


if __name__ == "__main__":
    main()
