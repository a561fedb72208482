//! Gradient checkpointing and narrower number formats on whole models: which give the same, and how near the others come.

mod support;

use candle_core::Tensor;
use flowmill_models::TokenToMel;
use flowmill_models::dual_codebook::DualCodebook;
use flowmill_models::flow::{DitConfig, EncoderConfig, Flow, FlowBatch, FlowConfig, FlowDraws, FlowItem, UNetConfig};
use flowmill_models::sfm::{Sfm, SfmConfig};
use flowmill_nn::low_rank::LowRankSettings;
use flowmill_nn::random::Draw;
use flowmill_nn::{Context, Gradients, Parameters, Precision, Tape};
use support::BINS;

/// Several blocks of each kind, dropout everywhere: what is computed again must draw the same masks.
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

fn models() -> Vec<(&'static str, Box<dyn TokenToMel>, Parameters)> {
    let (flow, parameters) = Flow::new(&unet(), 1).unwrap();
    let mut models: Vec<(_, Box<dyn TokenToMel>, _)> = vec![("cosyvoice2", Box::new(flow), parameters)];
    let (flow, mut parameters) = Flow::new(&dit(), 2).unwrap();
    // The published start is the velocity zero, where most gradients are zero: move away from it.
    for id in parameters.ids() {
        let noise = Draw::new(3)
            .sample(id.index() as u64)
            .normal_tensor(parameters.tensor(id).dims(), &candle_core::Device::Cpu);
        let moved = (parameters.tensor(id) + (noise.unwrap() * 0.05).unwrap()).unwrap();
        parameters.set(id, moved).unwrap();
    }
    models.push(("step-audio", Box::new(flow), parameters));
    let (flow, mut parameters) = Flow::new(&unet(), 6).unwrap();
    adapt(&mut parameters);
    models.push(("adapters on a frozen cosyvoice2", Box::new(flow), parameters));
    let (sfm, parameters) = Sfm::new(&SfmConfig { flow: unet(), ..SfmConfig::default() }, 4).unwrap();
    models.push(("sfm", Box::new(sfm), parameters));
    models
}

/// Adapters with dropout and weights that are not zero beside every linear layer that takes one, and nothing else to train.
fn adapt(parameters: &mut Parameters) {
    let settings = LowRankSettings { rank: 2, scale: 0.7, dropout: 0.1 };
    for id in parameters.ids() {
        parameters.set_trainable(id, false);
        if let Ok(adapter) = parameters.add_low_rank(id, settings, Draw::new(7)) {
            let dims = parameters.tensor(adapter.up).dims().to_vec();
            let up = Draw::new(8).sample(id.index() as u64).normal_tensor(&dims, &candle_core::Device::Cpu);
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
            let draw = Draw::new(8).sample(sample as u64);
            let ids = (tokens * config.ids_per_token()) as u64;
            FlowItem {
                tokens: (0..ids).map(|i| draw.below_at(i, 7)).collect(),
                mel: draw.purpose("mel").normals(2 * tokens * BINS),
                speaker_embedding: draw.purpose("speaker").normals(4),
                sample: sample as u64,
            }
        })
        .collect();
    FlowBatch::collate(&items, config).unwrap()
}

/// Loss and gradients, and the length of the tape.
fn passes(
    model: &dyn TokenToMel,
    parameters: &Parameters,
    precision: Precision,
    checkpoints: bool,
    streaming: bool,
) -> (f32, Gradients, usize) {
    let (config, draw) = (model.config(), Draw::new(5));
    let batch = batch(config);
    let mut draws = FlowDraws::from_draw(&draw, &batch, config).unwrap();
    draws.streaming = streaming;
    let tape = Tape::with_precision(precision);
    let context = Context::training(parameters, &tape, draw.purpose("layers")).with_checkpoints(checkpoints);
    let loss = model.loss(&context, &batch, &draws).unwrap().total;
    let entries = tape.len();
    (loss.scalar().unwrap(), tape.backward(&loss).unwrap(), entries)
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
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
            let (mut difference, mut square) = (0.0, 0.0);
            for (id, gradient) in gradients.iter() {
                for (a, b) in flat(gradient).into_iter().zip(flat(rounded.get(id).unwrap())) {
                    difference += f64::from(a - b).powi(2);
                    square += f64::from(a).powi(2);
                }
            }
            let relative = (difference / square).sqrt();
            println!("{name} in {precision:?}: loss off by {error:.1e}, gradient by {relative:.1e}");
            assert!(relative < 8.0 * tolerance, "{name}, {precision:?}: the gradient is off by {relative}");
        }
    }
}
