"""Times training steps of PMG's graph in PyTorch: soft prompts through a frozen LLaMA and the frozen U-Net of Stable Diffusion 1.5.

    python bench_pmg.py [LATENT [LAYERS [STEPS [checkpoint | bf16]]]]

The same sizes as the example pmg_step of flowmill-networks, with random weights. With bf16 the frozen networks are in bf16 and compute in it.
"""

import resource
import sys
import time

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import DynamicCache, LlamaConfig, LlamaModel

TOKENS, PROMPTS, PREFIX = 120, 2, 2


def main(latent=32, layers=16, steps=3, option=""):
    torch.manual_seed(0)
    latent, layers, steps = int(latent), int(layers), int(steps)
    config = LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=32000, rms_norm_eps=1e-5, rope_theta=500000.0, attn_implementation="sdpa")
    llama = LlamaModel(config).requires_grad_(False).eval()
    unet = UNet2DConditionModel(sample_size=latent, cross_attention_dim=768).requires_grad_(False).eval()
    dtype = torch.bfloat16 if option == "bf16" else torch.float32
    llama, unet = llama.to(dtype), unet.to(dtype)
    if option == "checkpoint":
        unet.enable_gradient_checkpointing()
        unet.train()
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    width, heads = config.hidden_size // 32, config.num_key_value_heads
    prompts = torch.nn.Parameter(0.02 * torch.randn(1, PROMPTS, config.hidden_size))
    prefix = torch.nn.Parameter(0.02 * torch.randn(PREFIX, layers * 2 * heads * width))
    mapping = torch.nn.Linear(config.hidden_size, 768)
    tokens = torch.arange(TOKENS)[None]
    latents, noise = torch.randn(2, 1, 4, latent, latent)
    timestep = torch.tensor([500])
    before = peak()
    for step in range(steps):
        start, used = time.perf_counter(), time.process_time()
        past = prefix.to(dtype).view(1, PREFIX, layers, 2, heads, width).permute(2, 3, 0, 4, 1, 5)
        cache = DynamicCache()
        for layer in range(layers):
            cache.update(past[layer, 0], past[layer, 1], layer)
        embeddings = torch.cat([llama.embed_tokens(tokens), prompts.to(dtype)], 1)
        mask = torch.ones(1, PREFIX + TOKENS + PROMPTS, dtype=torch.long)
        states = llama(inputs_embeds=embeddings, attention_mask=mask, past_key_values=cache).last_hidden_state
        conditions = mapping(states[:, -PROMPTS:].float()).to(dtype)
        noisy = scheduler.add_noise(latents, noise, timestep)
        loss = torch.nn.functional.mse_loss(unet(noisy.to(dtype), timestep, conditions).sample.float(), noise)
        forward = time.perf_counter() - start
        loss.backward()
        whole = time.perf_counter() - start
        print(f"step {step}: {whole:.2f} s ({forward:.2f} s forward), {time.process_time() - used:.2f} s of processor time", flush=True)
    print(f"peak memory {peak()} MiB, of which weights {before} MiB")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


main(*sys.argv[1:])
