"""Compares Flowmill's optimizers, schedules and exported adapters with PyTorch, prodigyopt and PEFT; see scripts/check_optimizers."""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from prodigyopt import Prodigy
from safetensors.torch import load_file, save_file

FILES = 20


def optimizers(draw, weight_decay):
    """The name, class and settings of every optimizer, drawn anew."""
    betas = lambda: (draw.choice([0.0, 0.8, 0.9]), draw.choice([0.9, 0.99, 0.999]))
    lr = lambda: 10 ** draw.uniform(-3, -1)
    decay = lambda: draw.choice([0.0, weight_decay])
    return [
        ("plain_sgd", torch.optim.SGD, dict(lr=lr(), weight_decay=decay())),
        ("sgd", torch.optim.SGD, dict(lr=lr(), momentum=0.8, dampening=draw.choice([0.0, 0.3]), weight_decay=decay())),
        ("nesterov", torch.optim.SGD, dict(lr=lr(), momentum=0.7, nesterov=True, weight_decay=decay())),
        ("adam", torch.optim.Adam, dict(lr=lr(), betas=betas(), eps=draw.choice([1e-8, 1e-4]), weight_decay=decay())),
        ("adamw", torch.optim.AdamW, dict(lr=lr(), betas=betas(), weight_decay=decay())),
        ("adafactor", torch.optim.Adafactor, dict(
            lr=lr(), beta2_decay=draw.uniform(-0.9, -0.5), eps=(None, 1e-3), d=draw.choice([1.0, 2.0]), weight_decay=decay())),
        ("prodigy", Prodigy, dict(
            lr=1.0, betas=draw.choice([(0.9, 0.999), (0.8, 0.99)]), beta3=draw.choice([None, 0.95]), weight_decay=decay(),
            use_bias_correction=draw.choice([True, False]), safeguard_warmup=draw.choice([True, False]),
            d0=draw.choice([1e-6, 1e-3]), d_coef=draw.choice([0.5, 1.0, 2.0]), growth_rate=draw.choice([1.02, 1e9]))),
        ("muon", torch.optim.Muon, dict(
            lr=lr(), weight_decay=decay(), momentum=draw.choice([0.9, 0.95]), nesterov=draw.choice([True, False]),
            ns_steps=draw.choice([3, 5]), adjust_lr_fn=draw.choice(["original", "match_rms_adamw"]))),
    ]


def golden(path, seed):
    """A golden file of optimizers and schedules, of its own shapes, settings and steps."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    steps = draw.randint(3, 60)
    kept = sorted(draw.sample(range(1, steps + 1), 3))
    shapes = {
        "wide": (draw.randint(1, 9), draw.randint(10, 20)),
        "tall": (draw.randint(10, 20), draw.randint(1, 9)),
        "taps": (draw.randint(2, 5), draw.randint(2, 5), 3),
        "vector": (draw.randint(1, 12),),
    }
    start = {name: torch.randn(shape) for name, shape in shapes.items()}
    gradients = {name: torch.randn(steps, *shape) * draw.choice([0.01, 1.0]) for name, shape in shapes.items()}
    tensors = {f"in.{name}": value for name, value in start.items()}
    tensors |= {f"in.grad_{name}": value for name, value in gradients.items()}
    config = {"steps": steps, "kept_steps": kept, "optimisers": {}, "schedules": {}}
    for name, kind, settings in optimizers(draw, 0.1):
        members = [member for member in shapes if kind is not torch.optim.Muon or len(shapes[member]) == 2]
        parameters = {member: torch.nn.Parameter(start[member].clone()) for member in members}
        optimizer = kind(list(parameters.values()), **settings)
        states = {member: [] for member in members}
        for step in range(steps):
            for member, parameter in parameters.items():
                parameter.grad = gradients[member][step].clone()
            optimizer.step()
            if step + 1 in kept:
                for member, parameter in parameters.items():
                    states[member].append(parameter.detach().clone())
        tensors |= {f"out.{name}.{member}": torch.stack(values) for member, values in states.items()}
        config["optimisers"][name] = settings | {"library": f"{kind.__module__}.{kind.__name__}"}
    clip(tensors, gradients, draw)
    schedules(tensors, config["schedules"], draw)
    save_file(tensors, path, {"config": json.dumps(config)})


def clip(tensors, gradients, draw):
    """Clipping by norm and by value of the first step's gradients."""
    limit = draw.choice([0.5, 3, 1000])
    for kind in ("norm", "value"):
        parameters = {name: torch.nn.Parameter(torch.zeros_like(value[0])) for name, value in gradients.items()}
        for name, parameter in parameters.items():
            parameter.grad = gradients[name][0].clone()
        if kind == "norm":
            norm = torch.nn.utils.clip_grad_norm_(parameters.values(), limit)
            tensors[f"out.clip_norm_{limit}.norm"] = norm.reshape(1)
        else:
            torch.nn.utils.clip_grad_value_(parameters.values(), limit)
        tensors |= {f"out.clip_{kind}_{limit}.{name}": parameter.grad for name, parameter in parameters.items()}


def schedules(tensors, config, draw):
    """PyTorch's own schedules; those of the other trainers have no package to ask."""
    base, steps = 10 ** draw.uniform(-4, -2), draw.randint(5, 300)
    scheduler = torch.optim.lr_scheduler

    def add(name, make, **settings):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
        schedule = make(optimizer)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        tensors[f"out.schedule.{name}"] = torch.tensor(rates, dtype=torch.float64)
        config[name] = settings | {"base_lr": base, "steps": steps}

    floor, share = base * draw.uniform(0, 0.5), draw.uniform(0.1, 0.6)
    add("cosine_floor", lambda o: scheduler.CosineAnnealingLR(o, steps, floor), T_max=steps, eta_min=floor)
    add("onecycle", lambda o: scheduler.OneCycleLR(o, base, steps + 1, pct_start=share, div_factor=10, final_div_factor=100),
        max_lr=base, total_steps=steps + 1, pct_start=share, div_factor=10, final_div_factor=100)
    warmup = draw.randint(1, steps)
    add(f"linear_to_zero_warmup_{warmup}",
        lambda o: scheduler.LambdaLR(o, lambda s: s / warmup if s < warmup else max(0, (steps - s) / max(1, steps - warmup))),
        warmup_steps=warmup, total=steps)
    add("constant", lambda o: scheduler.ConstantLR(o, factor=1.0))


def model_of(names, linear):
    """A model of these linear layers alone, each as `linear` makes it."""
    model = torch.nn.Module()
    for name in names:
        owner, parts = model, name.split(".")
        for part in parts[:-1]:
            if not hasattr(owner, part):
                owner.add_module(part, torch.nn.Module())
            owner = getattr(owner, part)
        owner.add_module(parts[-1], linear(name))
    return model


def adapter(folder):
    """Puts an exported adapter onto a model of the same linear layers by PEFT; merged, it must give the exported weights."""
    from peft import PeftModel

    folder = Path(folder)
    merged = load_file(folder / "model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]

    def linear(name):
        weight = merged[name + ".weight"]
        down, up = (tensors[f"base_model.model.{name}.lora_{half}.weight"] for half in "AB")
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight.data = weight - scale * up @ down
        return linear

    model = model_of(config["target_modules"], linear)
    adapted = PeftModel.from_pretrained(model, folder)
    whole = adapted.merge_and_unload()
    worst = 0.0
    for name in config["target_modules"]:
        found = whole.get_submodule(name).weight
        worst = max(worst, float((found - merged[name + ".weight"]).abs().max()))
    assert any(float(tensors[key].abs().max()) > 0 for key in tensors if "lora_B" in key), "the adapter is empty"
    assert worst < 1e-6, worst
    print(f"PEFT reads the adapter of {len(config['target_modules'])} layers and merges it to the exported weights: within {worst:.1e}")
    return config


def go_on(flowmill, folder, config, recipe):
    """Saves the adapter as PEFT does, and lets a training of the recipe go on from that."""
    from peft import LoraConfig, get_peft_model

    tensors = load_file(Path(folder) / "adapter_model.safetensors")
    names = config["target_modules"]

    def linear(name):
        down, up = (tensors[f"base_model.model.{name}.lora_{half}.weight"] for half in "AB")
        return torch.nn.Linear(down.shape[1], up.shape[0], bias=False)

    model = model_of(names, linear)
    # Neither half is zero, so that every one has a gradient.
    settings = LoraConfig(r=config["r"], lora_alpha=config["lora_alpha"], target_modules=names, init_lora_weights=False)
    with tempfile.TemporaryDirectory() as saved:
        get_peft_model(model, settings).save_pretrained(saved)
        lora = {"rank": config["r"], "alpha": config["lora_alpha"], "targets": names, "init_from": saved}
        command = [flowmill, "train", *recipe, "--overfit", "1", "--steps", "1", "--set", f"train.lora={json.dumps(lora)}"]
        done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert f"of {len(names)} layers" in said and "continuing from the adapter" in said and done.returncode == 0, said
    print(f"a training goes on from an adapter of {len(names)} layers that PEFT has saved")


def main():
    flowmill, *arguments = sys.argv[1:]
    export, recipe = arguments[:1], arguments[1:]
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / f"{seed}.safetensors") for seed in range(FILES)]
        for seed, path in enumerate(files):
            golden(path, seed)
        subprocess.run([flowmill, "parity", *files], check=True)
    print(f"{FILES} files of random shapes, settings and steps agree with PyTorch {torch.__version__} and prodigyopt")
    if export:
        config = adapter(export[0])
        if recipe:
            go_on(flowmill, export[0], config, recipe)


main()
