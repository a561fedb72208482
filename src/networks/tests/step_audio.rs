//! The Step-Audio flow in use: its training, the effect of streaming masks, and its errors.

mod support;

use candle_core::Tensor;
use flowmill_extract::dual_codebook::{DualCodebook, DualCodebookError};
use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{
    DitConfig, EncoderConfig, Flow, FlowBatch, FlowConfig, FlowDraws, FlowError, FlowItem, GenerationRequest,
    StepAudioConfig, TokenError,
};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Tape, host};
use support::BINS;

const CODEBOOK: DualCodebook = DualCodebook { linguistic: 6, semantic: 9 };

fn settings() -> StepAudioConfig {
    StepAudioConfig {
        vq02_size: CODEBOOK.linguistic,
        vq06_size: CODEBOOK.semantic,
        vocab_size: CODEBOOK.frame_vocabulary(),
        input_size: 16,
        output_size: BINS,
        spk_embed_dim: 4,
        encoder: EncoderConfig {
            dropout_rate: 0.0,
            positional_dropout_rate: 0.0,
            attention_dropout_rate: 0.0,
            ..support::encoder()
        },
        estimator: DitConfig {
            hidden_size: 16,
            depth: 2,
            num_heads: 2,
            head_dim: 8,
            mlp_ratio: 2.0,
            static_chunk_size: 10,
        },
        ..StepAudioConfig::default()
    }
}

fn config() -> FlowConfig {
    FlowConfig::from(&settings())
}

/// Returns a column `speech_token` with this number of groups.
fn mixed(sample: u64, groups: usize) -> Vec<i64> {
    let of = |purpose, count: usize, size: usize| -> Vec<u32> {
        let rng_key = RngKey::new(8).purpose(purpose).sample(sample);
        (0..count as u64).map(|i| rng_key.below_at(i, size as u32)).collect()
    };
    CODEBOOK.mix(&of("02", 2 * groups, CODEBOOK.linguistic), &of("06", 3 * groups, CODEBOOK.semantic)).unwrap()
}

fn item(sample: u64, groups: usize) -> FlowItem {
    let rng_key = RngKey::new(8).sample(sample);
    FlowItem {
        tokens: config().token_ids(&mixed(sample, groups)).unwrap(),
        mel: rng_key.purpose("mel").normals(2 * 3 * groups * BINS),
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
    assert_eq!(gradients.len(), parameters.len(), "every parameter has a gradient");
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
fn it_learns_a_batch_with_and_without_streaming_masks_and_every_parameter_moves() {
    for streaming in [false, true] {
        let (flow, mut parameters) = Flow::new(&config(), 4).unwrap();
        let batch = FlowBatch::collate(&[item(1, 4), item(2, 3)], &config()).unwrap();
        let draws = FlowDraws { streaming, ..FlowDraws::from_rng_key(&RngKey::new(3), &batch, &config()).unwrap() };
        let draws = FlowDraws { condition_keep: vec![1.0, 1.0], ..draws };
        let start: Vec<Vec<f32>> = parameters.named_tensors().iter().map(|(_, tensor)| flat(tensor)).collect();
        let first = descend(&flow, &mut parameters, &batch, &draws);
        let last = (0..300).map(|_| descend(&flow, &mut parameters, &batch, &draws)).last().unwrap();
        assert!(last < 0.5 * first, "streaming {streaming}: from {first} to {last}");
        for ((name, tensor), start) in parameters.named_tensors().iter().zip(&start) {
            // A value that is added to every key changes no weight of an attention: its gradient is rounding.
            let moved = flat(tensor) != *start || name.ends_with("linear_k.bias");
            assert!(moved, "{name} is where it started");
        }
    }
}

fn request(mixed: &[i64]) -> GenerationRequest {
    let tokens = config().token_ids(mixed).unwrap();
    GenerationRequest { tokens, speaker_embedding: vec![0.5, -1.0, 0.25, 2.0], prompt: None }
}

/// Returns a model whose blocks are not the identity with which they start.
fn shaken() -> (Flow, Parameters) {
    let (flow, mut parameters) = Flow::new(&config(), 4).unwrap();
    for id in parameters.ids() {
        let noise = RngKey::new(1).purpose(parameters.name(id)).normals(parameters.tensor(id).elem_count());
        let noise = host::tensor(noise, parameters.tensor(id).dims()).unwrap();
        let moved = (parameters.tensor(id) + noise * 0.1).unwrap();
        parameters.set(id, moved).unwrap();
    }
    (flow, parameters)
}

#[test]
fn with_streaming_masks_the_first_chunk_does_not_know_what_comes_later() {
    let (flow, parameters) = shaken();
    let context = Context::inference(&parameters);
    let long = mixed(5, 8);
    // 24 tokens, and the first 9 of them: a chunk of 5, whose last ones look 3 tokens ahead.
    let options = |streaming| flowmill_networks::flow::GenerationOptions { streaming, ..flow.default_options() };
    let frames = |mixed: &[i64], streaming| {
        let noise = host::tensor(RngKey::new(6).normals(48 * BINS), &[48, BINS]).unwrap();
        let noise = noise.narrow(0, 0, mixed.len() / 5 * 6).unwrap();
        let made = flow.generate_from(&context, &[request(mixed)], &options(streaming), &[noise]).unwrap();
        flat(&made.mels[0])[..10 * BINS].to_vec()
    };
    let furthest = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    let hidden = furthest(&frames(&long, true), &frames(&long[..15], true));
    assert!(hidden < 1e-4, "the first chunk changes by {hidden}");
    let seen = furthest(&frames(&long, false), &frames(&long[..15], false));
    assert!(seen > 1e-2, "full attention sees it: {seen}");
}

#[test]
fn tokens_are_paired_and_what_is_no_mixed_sequence_is_refused() {
    assert_eq!(config().token_ids(&[1, 5, 6, 14, 7]).unwrap(), [1, 7, 5, 15, 6, 8]);
    let refused = |column: &[i64]| match config().token_ids(column).unwrap_err() {
        TokenError::DualCodebook(error) => error,
        other => panic!("{other}"),
    };
    assert_eq!(refused(&[1, 5, 6, 14]), DualCodebookError::Ragged { length: 4 });
    let foreign = refused(&[1, 6, 6, 14, 7]);
    assert!(matches!(foreign, DualCodebookError::Foreign { token: 6, position: 1, .. }), "{foreign}");
    let mut odd = item(1, 4);
    odd.tokens.pop();
    let ids = |error: &FlowError, count: usize| match error {
        FlowError::Batch { item: 0, message } => message.contains(&format!("{count} ids")),
        _ => false,
    };
    let count = odd.tokens.len();
    let error = FlowBatch::collate(&[odd], &config()).unwrap_err();
    assert!(ids(&error, count), "{error}");
    let (flow, parameters) = shaken();
    let context = Context::inference(&parameters);
    let halved = GenerationRequest { tokens: vec![1, 7, 5], ..request(&mixed(1, 1)) };
    let made = flow.generate(&context, &[halved], &flow.default_options(), &RngKey::new(1), &[0]);
    let error = made.unwrap_err();
    assert!(ids(&error, 3), "{error}");
}

#[test]
fn settings_round_trip_and_a_vocabulary_that_clips_a_codebook_is_refused() {
    let text = serde_json::to_string(&settings()).unwrap();
    assert_eq!(serde_json::from_str::<StepAudioConfig>(&text).unwrap(), settings());
    assert!(serde_json::from_str::<StepAudioConfig>(r#"{"estimator": {"channels": [4]}}"#).is_err());

    let published = FlowConfig::from(&StepAudioConfig::default());
    published.check().unwrap();
    let clipped = FlowConfig { vocab_size: 2048, ..published.clone() }.check().unwrap_err();
    let counted = |message: &str| message.contains("5121") && message.contains("3073");
    assert!(matches!(&clipped, FlowError::Config { message, .. } if counted(message)), "{clipped}");
    type Change = fn(&mut StepAudioConfig);
    let cases: [(Change, &str); 5] = [
        (|config| config.vq06_size = 0, "vq06_size"),
        (|config| config.estimator.depth = 0, "estimator.depth"),
        (|config| config.estimator.mlp_ratio = f64::NAN, "estimator.mlp_ratio"),
        (|config| config.estimator.hidden_size = usize::MAX, "estimator.hidden_size"),
        (|config| config.input_size = 0, "input_size"),
    ];
    for (change, expected) in cases {
        let mut changed = settings();
        change(&mut changed);
        let error = Flow::new(&FlowConfig::from(&changed), 0).unwrap_err();
        assert!(matches!(error, FlowError::Config { field, .. } if field == expected), "{expected}: {error}");
    }
}
