//! The CosyVoice 3 flow in use: its training, generation in chunks while tokens arrive, and its errors.

mod support;

use candle_core::Tensor;
use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{
    CosyVoice3Config, Flow, FlowBatch, FlowConfig, FlowDraws, FlowError, FlowItem, GenerationOptions,
    GenerationRequest, Prompt, RotaryDitConfig,
};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Tape, host};
use support::BINS;

const VOCABULARY: u32 = 20;
/// Tokens per chunk of the masks.
const CHUNK: usize = 5;

fn settings() -> CosyVoice3Config {
    CosyVoice3Config {
        vocab_size: VOCABULARY as usize,
        input_size: BINS,
        output_size: BINS,
        spk_embed_dim: 4,
        pre_lookahead_channels: 12,
        estimator: RotaryDitConfig {
            dim: 32,
            depth: 2,
            heads: 2,
            dim_head: 8,
            ff_mult: 2,
            dropout: 0.0,
            static_chunk_size: 2 * CHUNK,
        },
        ..CosyVoice3Config::default()
    }
}

fn config() -> FlowConfig {
    FlowConfig::from(&settings())
}

fn tokens(sample: u64, count: usize) -> Vec<u32> {
    let rng_key = RngKey::new(8).purpose("tokens").sample(sample);
    (0..count as u64).map(|i| rng_key.below_at(i, VOCABULARY)).collect()
}

fn item(sample: u64, count: usize) -> FlowItem {
    let rng_key = RngKey::new(8).sample(sample);
    FlowItem {
        tokens: tokens(sample, count),
        mel: rng_key.purpose("mel").normals(2 * count * BINS),
        speaker_embedding: rng_key.purpose("speaker").normals(4),
        sample,
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Makes one step of gradient descent. Returns the loss before it.
fn descend(flow: &Flow, parameters: &mut Parameters, batch: &FlowBatch, draws: &FlowDraws) -> f32 {
    let tape = Tape::new();
    let context = Context::training(parameters, &tape, RngKey::new(2));
    let loss = flow.loss(&context, batch, draws).unwrap();
    let gradients = tape.backward(&loss.total).unwrap();
    assert_eq!(gradients.len(), parameters.trainable_ids().count(), "every weight has a gradient");
    let norm: f64 = gradients.iter().flat_map(|(_, g)| flat(g)).map(|g| f64::from(g) * f64::from(g)).sum();
    let step = 0.1 / norm.sqrt().max(1.0) as f32;
    for (id, gradient) in gradients.iter() {
        let gradient = host::slice("descend", gradient).unwrap();
        let moved = |w: &mut [f32]| w.iter_mut().zip(&*gradient).for_each(|(w, g)| *w -= step * g);
        host::modify(parameters.tensor(id), moved).unwrap();
    }
    loss.total.scalar().unwrap()
}

#[test]
fn it_learns_a_batch_with_and_without_streaming_masks_and_every_weight_moves() {
    for streaming in [false, true] {
        let (flow, mut parameters) = Flow::new(&config(), 4).unwrap();
        let batch = FlowBatch::collate(&[item(1, 12), item(2, 9)], &config()).unwrap();
        let draws = FlowDraws { streaming, ..FlowDraws::from_rng_key(&RngKey::new(3), &batch, &config()).unwrap() };
        let draws = FlowDraws { condition_keep: vec![1.0, 1.0], ..draws };
        let start: Vec<Vec<f32>> = parameters.named_tensors().iter().map(|(_, tensor)| flat(tensor)).collect();
        let first = descend(&flow, &mut parameters, &batch, &draws);
        let last = (0..300).map(|_| descend(&flow, &mut parameters, &batch, &draws)).last().unwrap();
        assert!(last < 0.5 * first, "streaming {streaming}: from {first} to {last}");
        for ((name, tensor), start) in parameters.named_tensors().iter().zip(&start) {
            // The rates of the rotary positions are fixed.
            let fixed = name.ends_with("rotary_embed.inv_freq");
            assert_eq!(flat(tensor) == *start, fixed, "{name}");
        }
    }
}

/// Returns the options of a request in streaming, whose last tokens are only looked ahead at if it is `unfinished`.
fn streaming(flow: &Flow, unfinished: bool) -> GenerationOptions {
    GenerationOptions { streaming: true, unfinished, ..flow.default_options() }
}

/// As tokens arrive, every chunk has the frames of the whole request.
#[test]
fn chunks_of_arriving_tokens_have_the_frames_of_the_whole() {
    let (flow, parameters) = Flow::new(&config(), 4).unwrap();
    let (context, ahead) = (Context::inference(&parameters), flow.config().pre_lookahead_len);
    let prompt = Prompt {
        tokens: tokens(3, CHUNK),
        mel: host::tensor(RngKey::new(7).normals(2 * CHUNK * BINS), &[2 * CHUNK, BINS]).unwrap(),
    };
    let all = tokens(5, 4 * CHUNK);
    let noise = host::tensor(RngKey::new(6).normals(10 * CHUNK * BINS), &[10 * CHUNK, BINS]).unwrap();
    let frames = |count: usize, unfinished: bool| {
        let request = GenerationRequest {
            tokens: all[..count].to_vec(),
            speaker_embedding: vec![0.5, -1.0, 0.25, 2.0],
            prompt: Some(prompt.clone()),
        };
        let computed = 2 * (CHUNK + count - if unfinished { ahead } else { 0 });
        let noise = noise.narrow(0, 0, computed).unwrap();
        let made = flow.generate_from(&context, &[request], &streaming(&flow, unfinished), &[noise]).unwrap();
        assert_eq!(made.mels[0].dims(), [computed - 2 * CHUNK, BINS]);
        flat(&made.mels[0])
    };
    let whole = frames(4 * CHUNK, false);
    let furthest = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    for chunks in 1..4 {
        let found = frames(chunks * CHUNK + ahead, true);
        let difference = furthest(&found, &whole[..found.len()]);
        assert!(difference < 1e-4, "{chunks} chunks differ by {difference}");
    }
    // A request that ends there has other last frames: nothing follows.
    let ended = frames(2 * CHUNK, false);
    assert!(furthest(&ended, &whole[..ended.len()]) > 1e-3);
}

#[test]
fn too_few_tokens_to_look_ahead_at_are_refused() {
    let (flow, parameters) = Flow::new(&config(), 4).unwrap();
    let context = Context::inference(&parameters);
    let request = |count| GenerationRequest { tokens: tokens(1, count), speaker_embedding: vec![1.0; 4], prompt: None };
    let generate = |count| flow.generate(&context, &[request(count)], &streaming(&flow, true), &RngKey::new(1), &[0]);
    let error = generate(flow.config().pre_lookahead_len).unwrap_err();
    assert!(matches!(error, FlowError::Batch { item: 0, .. }), "{error}");
    assert_eq!(generate(flow.config().pre_lookahead_len + 1).unwrap().mels[0].dims(), [2, BINS]);
}

#[test]
fn settings_round_trip_and_those_that_make_no_network_are_refused() {
    let text = serde_json::to_string(&settings()).unwrap();
    assert_eq!(serde_json::from_str::<CosyVoice3Config>(&text).unwrap(), settings());
    assert!(serde_json::from_str::<CosyVoice3Config>(r#"{"encoder": {}}"#).is_err(), "there is no conformer");
    FlowConfig::from(&CosyVoice3Config::default()).check().unwrap();
    type Change = fn(&mut CosyVoice3Config);
    let cases: [(Change, &str); 8] = [
        (|config| config.input_size = 512, "input_size"),
        (|config| config.pre_lookahead_channels = 0, "pre_lookahead_channels"),
        (|config| config.estimator.dim = 40, "estimator.dim"),
        (|config| config.estimator.dim = usize::MAX, "estimator.dim"),
        (|config| config.estimator.dim_head = 7, "estimator.dim_head"),
        (|config| config.estimator.depth = 0, "estimator.depth"),
        (|config| config.estimator.ff_mult = 0, "estimator.ff_mult"),
        (|config| config.estimator.dropout = 1.0, "estimator.dropout"),
    ];
    for (change, expected) in cases {
        let mut changed = settings();
        change(&mut changed);
        let error = Flow::new(&FlowConfig::from(&changed), 0).unwrap_err();
        assert!(matches!(error, FlowError::Config { field, .. } if field == expected), "{expected}: {error}");
    }
}
