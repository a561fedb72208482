//! Gradient checkpointing, compositions and narrower number formats on whole models: which give the same results, and
//! how close the others are.

mod support;

use candle_core::Tensor;
use flowmill_extract::dual_codebook::DualCodebook;
use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{
    CosyVoice3Config, DitConfig, EncoderConfig, Flow, FlowBatch, FlowConfig, FlowDraws, FlowItem, RotaryDitConfig,
    UNetConfig,
};
use flowmill_networks::sfm::{Sfm, SfmConfig};
use flowmill_nn::low_rank::LowRankSettings;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Gradients, ParameterId, Parameters, Precision, Tape, device, host, testing};
use support::BINS;

/// Several blocks of each kind, with dropout everywhere: recomputed blocks must draw the same masks.
fn unet() -> FlowConfig {
    FlowConfig {
        encoder: EncoderConfig {
            num_blocks: 2,
            num_up_blocks: 2,
            dropout_rate: 0.1,
            positional_dropout_rate: 0.1,
            attention_dropout_rate: 0.1,
            ..support::encoder()
        },
        estimator: UNetConfig { n_blocks: 2, num_mid_blocks: 2, dropout: 0.1, ..support::unet() }.into(),
        ..support::flow()
    }
}

fn dit() -> FlowConfig {
    let codebook = DualCodebook { linguistic: 7, semantic: 9 };
    let estimator =
        DitConfig { hidden_size: 16, depth: 3, num_heads: 2, head_dim: 8, mlp_ratio: 2.0, static_chunk_size: 10 };
    FlowConfig {
        vocab_size: codebook.frame_vocabulary(),
        dual_codebook: Some(codebook),
        estimator: estimator.into(),
        ..unet()
    }
}

fn rotary_dit() -> FlowConfig {
    FlowConfig::from(&CosyVoice3Config {
        vocab_size: 20,
        input_size: BINS,
        output_size: BINS,
        spk_embed_dim: 4,
        pre_lookahead_channels: 12,
        estimator: RotaryDitConfig {
            dim: 32,
            depth: 3,
            heads: 2,
            dim_head: 8,
            ff_mult: 2,
            dropout: 0.1,
            static_chunk_size: 10,
        },
        ..CosyVoice3Config::default()
    })
}

fn models() -> Vec<(&'static str, Box<dyn TokenToMel>, Parameters)> {
    let (flow, parameters) = Flow::new(&unet(), 1).unwrap();
    let mut models: Vec<(_, Box<dyn TokenToMel>, _)> = vec![("cosyvoice2", Box::new(flow), parameters)];
    let (flow, mut parameters) = Flow::new(&dit(), 2).unwrap();
    // The published start is the velocity zero, where most gradients are zero, so move away from it.
    for id in parameters.ids() {
        let noise = RngKey::new(3)
            .sample(id.index() as u64)
            .normal_tensor(parameters.tensor(id).dims(), &candle_core::Device::Cpu);
        let moved = (parameters.tensor(id) + (noise.unwrap() * 0.05).unwrap()).unwrap();
        parameters.set(id, moved).unwrap();
    }
    models.push(("step-audio", Box::new(flow), parameters));
    let (flow, parameters) = Flow::new(&rotary_dit(), 5).unwrap();
    models.push(("cosyvoice3", Box::new(flow), parameters));
    let (flow, mut parameters) = Flow::new(&unet(), 6).unwrap();
    adapt(&mut parameters);
    models.push(("adapters on a frozen cosyvoice2", Box::new(flow), parameters));
    let (sfm, parameters) = Sfm::new(&SfmConfig { flow: unet(), ..SfmConfig::default() }, 4).unwrap();
    models.push(("sfm", Box::new(sfm), parameters));
    models
}

/// Adds adapters with dropout and weights that are not zero to every linear layer that can have one, and freezes
/// everything else.
fn adapt(parameters: &mut Parameters) {
    let settings = LowRankSettings { rank: 2, scale: 0.7, dropout: 0.1 };
    for id in parameters.ids() {
        parameters.set_trainable(id, false);
        if let Ok(adapter) = parameters.add_low_rank(id, settings, RngKey::new(7)) {
            let dims = parameters.tensor(adapter.up).dims().to_vec();
            let up = RngKey::new(8).sample(id.index() as u64).normal_tensor(&dims, &candle_core::Device::Cpu);
            parameters.set(adapter.up, (up.unwrap() * 0.1).unwrap()).unwrap();
        }
    }
    assert!(parameters.trainable_ids().count() > 20);
}

fn batch(config: &FlowConfig) -> FlowBatch {
    let items: Vec<FlowItem> = [9usize, 14, 6]
        .into_iter()
        .enumerate()
        .map(|(sample, tokens)| {
            let rng_key = RngKey::new(8).sample(sample as u64);
            let ids = (tokens * config.ids_per_token()) as u64;
            FlowItem {
                tokens: (0..ids).map(|i| rng_key.below_at(i, 7)).collect(),
                mel: rng_key.purpose("mel").normals(2 * tokens * BINS),
                speaker_embedding: rng_key.purpose("speaker").normals(4),
                sample: sample as u64,
            }
        })
        .collect();
    FlowBatch::collate(&items, config).unwrap()
}

/// The factor of the loss before the backward pass, as in training in half precision: small gradients stay in its
/// range.
const LOSS_SCALE: f32 = 1024.0;

/// Returns the loss, the gradients (of the scaled loss), and the length of the tape.
fn passes(
    model: &dyn TokenToMel,
    parameters: &Parameters,
    precision: Precision,
    checkpoints: bool,
    streaming: bool,
) -> (f32, Gradients, usize) {
    let (config, rng_key) = (model.config(), RngKey::new(5));
    let batch = batch(config);
    let mut draws = FlowDraws::from_rng_key(&rng_key, &batch, config).unwrap();
    draws.streaming = streaming;
    let tape = Tape::with_precision(precision);
    let context = Context::training(parameters, &tape, rng_key.purpose("layers")).with_checkpoints(checkpoints);
    let loss = model.loss(&context, &batch, &draws).unwrap().total;
    let entries = tape.len();
    (loss.scalar().unwrap(), tape.backward(&loss.affine(LOSS_SCALE, 0.0).unwrap()).unwrap(), entries)
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    host::read(tensor).unwrap()
}

/// Returns the error of the gradients of all parameters together: the norm of the difference relative to that of the
/// expected ones.
fn distance(found: &Gradients, expected: &Gradients) -> f64 {
    assert_eq!(found.len(), expected.len());
    let (mut difference, mut square) = (0.0, 0.0);
    for (id, gradient) in expected.iter() {
        for (a, b) in flat(gradient).into_iter().zip(flat(found.get(id).unwrap())) {
            difference += f64::from(a - b).powi(2);
            square += f64::from(a).powi(2);
        }
    }
    (difference / square).sqrt()
}

/// Returns the largest difference of a parameter's gradients, relative to its largest element. Elements far below the
/// largest of all gradients are rounding.
fn worst(found: &Gradients, expected: &Gradients) -> (f64, usize) {
    let largest = |values: &[f32]| values.iter().fold(0.0, |largest: f64, x| largest.max(f64::from(x.abs())));
    let size = expected.iter().map(|(_, gradient)| largest(&flat(gradient))).fold(0.0, f64::max);
    let error = |(id, gradient): (ParameterId, &Tensor)| {
        let (a, b) = (flat(gradient), flat(found.get(id).unwrap()));
        let difference: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
        (largest(&difference) / largest(&a).max(1e-3 * size), id.index())
    };
    expected.iter().map(error).fold((0.0, 0), |worst, error| if error.0 > worst.0 { error } else { worst })
}

/// The largest allowed error of a step by compositions relative to one by fused kernels, both in single precision:
/// thousands of sums, each rounded.
const SINGLE: f64 = 2e-5;

/// The same for the shallow flow. Its time is computed, so that both may differ by one step of single precision, 6e-8.
/// The frequencies of the time encoding reach 1000, so the conditions of the estimator differ by up to 6e-5.
const SINGLE_WITH_COMPUTED_TIME: f64 = 2e-4;

fn agree(what: &str, (loss, found): (f32, &Gradients), (exact, expected): (f32, &Gradients)) {
    let largest = if what.starts_with("sfm") { SINGLE_WITH_COMPUTED_TIME } else { SINGLE };
    let error = f64::from((loss - exact).abs() / exact);
    let (worst, parameter) = worst(found, expected);
    println!("{what}: loss off by {error:.1e}, gradient by {:.1e}, {worst:.1e}", distance(found, expected));
    assert!(error < 5e-6, "{what}: {loss} rather than {exact}");
    assert!(worst < largest, "{what}: gradient of parameter {parameter} is off by {worst}");
}

/// Includes dropout, adapters and checkpointed blocks. Runs on the CPU, and on a device if the environment names one.
#[test]
fn a_step_by_compositions_is_that_of_the_fused_kernels() {
    let device = testing::test_device().unwrap();
    for (name, model, mut parameters) in models() {
        let mut fused = Vec::new();
        for (checkpoints, streaming) in [(false, false), (true, true)] {
            let (exact, expected, _) = passes(&*model, &parameters, Precision::Fp32, checkpoints, streaming);
            let composed = || passes(&*model, &parameters, Precision::Fp32, checkpoints, streaming);
            let (loss, found, _) = device::by_composition(composed);
            let what = format!("{name}, streaming {streaming}");
            agree(&what, (loss, &found), (exact, &expected));
            assert_ne!(flat(found.iter().next().unwrap().1), flat(expected.iter().next().unwrap().1), "{what}");
            fused.push((checkpoints, streaming, exact, expected));
        }
        let Some(device) = &device else { continue };
        parameters.to_device(device).unwrap();
        for (checkpoints, streaming, exact, expected) in fused {
            let (loss, found, _) = passes(&*model, &parameters, Precision::Fp32, checkpoints, streaming);
            agree(&format!("{name}, streaming {streaming}, on a device"), (loss, &found), (exact, &expected));
        }
    }
}

/// On devices narrower formats are element types: every operation stores its output in them.
#[test]
fn compositions_in_narrower_formats_come_near_single_precision() {
    let device = testing::test_device().unwrap();
    for (name, model, mut parameters) in models() {
        let (exact, expected, _) = passes(&*model, &parameters, Precision::Fp32, false, false);
        let near = |what: &str, parameters: &Parameters, precision, tolerance: f64| {
            let (loss, found, _) = device::by_composition(|| passes(&*model, parameters, precision, true, false));
            let (error, relative) = (f64::from((loss - exact).abs() / exact), distance(&found, &expected));
            println!("{name} in {precision:?}{what}: loss off by {error:.1e}, gradient by {relative:.1e}");
            assert!(error < tolerance && loss != exact, "{name}, {precision:?}{what}: {loss} rather than {exact}");
            // The head of a shallow flow has 900 ReLUs here: one that rounding moves across zero is a twentieth of
            // the gradient.
            let flipped = if name == "sfm" { 0.1 } else { 0.0 };
            assert!(
                relative < 8.0 * tolerance + flipped,
                "{name}, {precision:?}{what}: the gradient is off by {relative}"
            );
        };
        let formats = [(Precision::Bf16, 0.03), (Precision::Fp16, 0.004)];
        formats.iter().for_each(|(precision, tolerance)| near("", &parameters, *precision, *tolerance));
        if let Some(device) = &device {
            parameters.to_device(device).unwrap();
            formats.iter().for_each(|(precision, tolerance)| near(" on a device", &parameters, *precision, *tolerance));
        }
    }
}

#[test]
fn every_model_has_the_same_gradients_with_and_without_checkpoints_bit_for_bit() {
    for (name, model, parameters) in models() {
        for (precision, streaming) in
            [(Precision::Fp32, false), (Precision::Fp32, true), (Precision::Bf16, false), (Precision::Fp16, true)]
        {
            let (loss, plain, entries) = passes(&*model, &parameters, precision, false, streaming);
            let (again, checkpointed, fewer) = passes(&*model, &parameters, precision, true, streaming);
            let what = format!("{name}, {precision:?}, streaming {streaming}");
            assert_eq!(loss.to_bits(), again.to_bits(), "{what}");
            let trainable = parameters.trainable_ids().count();
            assert_eq!((plain.len(), checkpointed.len()), (trainable, trainable), "{what}");
            for (id, gradient) in plain.iter() {
                let bits = |tensor: &Tensor| flat(tensor).into_iter().map(f32::to_bits).collect::<Vec<_>>();
                let same = bits(gradient) == bits(checkpointed.get(id).unwrap());
                assert!(same, "{what}: {}", parameters.name(id));
            }
            let operations = entries - trainable;
            assert!(2 * (entries - fewer) > operations, "{what}: {fewer} entries rather than {entries}");
        }
    }
}

#[test]
fn narrower_formats_come_near_single_precision() {
    for (name, model, parameters) in models() {
        let (exact, gradients, _) = passes(&*model, &parameters, Precision::Fp32, false, false);
        for (precision, tolerance) in [(Precision::Bf16, 0.03), (Precision::Fp16, 0.004)] {
            let (loss, rounded, _) = passes(&*model, &parameters, precision, false, false);
            let error = f64::from((loss - exact).abs() / exact);
            assert!(error < tolerance && loss != exact, "{name}, {precision:?}: {loss} rather than {exact}");
            let relative = distance(&rounded, &gradients);
            println!("{name} in {precision:?}: loss off by {error:.1e}, gradient by {relative:.1e}");
            assert!(relative < 8.0 * tolerance, "{name}, {precision:?}: the gradient is off by {relative}");
        }
    }
}
