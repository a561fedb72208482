//! Time and peak memory of a training step of PMG: soft prompts through a frozen LLaMA and a frozen U-Net, both with random weights.
//!
//! ```text
//! cargo run --release -p flowmill-networks --example pmg_step [--weights FOLDER] [LATENT [LAYERS [STEPS [checkpoint]]]]
//! ```
//!
//! With a folder the frozen weights stay in its files, in half precision as published models have them: bf16 for the LLaMA, f16 for the
//! U-Net. Without these files it only writes them.
//! LATENT is the height and width of the latents (32 by default; 64 are images of 512 pixels), LAYERS the number of blocks of a LLaMA of
//! 2048 channels (16 by default, the size of LLaMA 1B). The U-Net is that of Stable Diffusion 1.5.

use candle_core::DType;
use flowmill_networks::llama::LlamaConfig;
use flowmill_networks::pmg::{Frozen, Pmg, PmgBatch, PmgConfig, PmgSettings};
use flowmill_networks::pretrained::{Role, map_weights};
use flowmill_networks::stable_diffusion::UNetConfig;
use flowmill_networks::stable_diffusion::sampling::ScheduleConfig;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Activation, Context, Parameters, Tape, Value};
use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: flowmill_nn::HugePages = flowmill_nn::HugePages;

/// Tokens of a text.
const TOKENS: usize = 120;

/// The frozen networks, and the types that their weights are published in.
const FROZEN: [(Role, DType); 2] = [(Role::Llama, DType::BF16), (Role::UNet, DType::F16)];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let folder = arguments.next_if_eq("--weights").and_then(|_| arguments.next());
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (latent, layers, steps) = (number(32)?, number(16)?, number(3)?);
    let checkpoints = arguments.next().is_some();
    let llama = LlamaConfig {
        dim: 2048,
        heads: 32,
        key_value_heads: 8,
        layers,
        ffn: 8192,
        activation: Activation::Silu,
        epsilon: 1e-5,
        rotary_base: 500_000.0,
        attention_dropout: 0.0,
    };
    let settings = PmgSettings {
        prompts: PmgConfig::default(),
        llama,
        vocabulary: 32_000,
        unet: UNetConfig::default(),
        schedule: ScheduleConfig::default(),
    };
    let (model, parameters) = match folder.as_deref().map(Path::new) {
        Some(folder) if !folder.exists() => {
            let parameters = Pmg::new(&settings, Frozen::Seeded, 1)?.1;
            return FROZEN.into_iter().try_for_each(|(role, dtype)| write(folder, role, dtype, &parameters));
        }
        Some(folder) => {
            let (model, mut parameters) = Pmg::new(&settings, Frozen::FromFiles, 1)?;
            for (role, _) in FROZEN {
                map_weights(&folder.join(role.prefix()), role, &mut parameters)?;
            }
            (model, parameters)
        }
        None => Pmg::new(&settings, Frozen::Seeded, 1)?,
    };
    println!(
        "{} M parameters, {} M trained",
        parameters.element_count(false) >> 20,
        parameters.element_count(true) >> 20
    );
    let before = peak();
    let draw = |name: &str| {
        let shape = [1, latent, latent, 4];
        Value::from_vec(RngKey::new(1).purpose(name).normals(shape.iter().product()), &shape)
    };
    let batch = PmgBatch {
        texts: vec![(0..TOKENS as u32).collect()],
        latents: draw("latents")?,
        noise: draw("noise")?,
        steps: vec![500],
    };
    for step in 0..steps {
        let (tape, start, used) = (Tape::new(), Instant::now(), processor_seconds());
        let context = Context::training(&parameters, &tape, RngKey::new(step as u64)).with_checkpoints(checkpoints);
        let loss = model.loss(&context, &batch)?.loss;
        let forward = start.elapsed();
        tape.backward(&loss)?;
        let whole = start.elapsed();
        println!(
            "step {step}: {:.2} s ({:.2} s forward), {:.2} s of processor time",
            whole.as_secs_f64(),
            forward.as_secs_f64(),
            processor_seconds() - used
        );
    }
    println!("peak memory {} MiB, of which weights {before} MiB", peak());
    Ok(())
}

/// Writes the weights of a frozen network under their published names.
fn write(folder: &Path, role: Role, dtype: DType, parameters: &Parameters) -> Result<(), Box<dyn std::error::Error>> {
    let folder = folder.join(role.prefix());
    std::fs::create_dir_all(&folder)?;
    let mut weights = HashMap::new();
    for (name, tensor) in parameters.named_tensors() {
        if let Some(name) = name.strip_prefix(role.prefix()) {
            weights.insert(name.to_owned(), tensor.to_dtype(dtype)?);
        }
    }
    Ok(candle_core::safetensors::save(&weights, folder.join("model.safetensors"))?)
}

/// Seconds of processor time that this process has used, on all threads: a figure that other work on the machine does not change much.
fn processor_seconds() -> f64 {
    // Fields 14 and 15 of the process's statistics are ticks of 1/100 s; the name before them may contain spaces.
    let statistics = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = statistics.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// The peak of the resident memory so far, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}
