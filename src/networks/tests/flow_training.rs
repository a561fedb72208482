//! The flow in use: its draws, its training, its results, and its errors.

mod support;

use candle_core::{Device, Tensor};
use flowmill_networks::flow::{
    EstimatorConfig, Flow, FlowBatch, FlowConfig, FlowDraws, FlowError, FlowItem, GenerationRequest, MelNormalization,
    Prompt, UNetConfig,
};
use flowmill_networks::{TokenToMel, Windows, generate_in_windows};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, NnError, Parameters, Tape, host};
use support::BINS;

fn config() -> FlowConfig {
    FlowConfig { estimator: UNetConfig { dropout: 0.1, ..support::unet() }.into(), ..support::flow() }
}

fn unet(config: &mut FlowConfig) -> &mut UNetConfig {
    match &mut config.estimator {
        EstimatorConfig::UNet(config) => config,
        EstimatorConfig::Dit(_) | EstimatorConfig::RotaryDit(_) => panic!("not a U-Net"),
    }
}

fn item(sample: u64, tokens: usize) -> FlowItem {
    let rng_key = RngKey::new(8).sample(sample);
    FlowItem {
        tokens: (0..tokens as u64).map(|i| rng_key.below_at(i, 20)).collect(),
        mel: rng_key.purpose("mel").normals(2 * tokens * BINS),
        speaker_embedding: rng_key.purpose("speaker").normals(4),
        sample,
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn what_is_drawn_for_an_item_does_not_depend_on_its_batch() {
    let config = config();
    let rng_key = RngKey::keyed(1, "training", 0, 3, 0);
    let draws = |items: &[FlowItem]| {
        let batch = FlowBatch::collate(items, &config).unwrap();
        FlowDraws::from_rng_key(&rng_key, &batch, &config).unwrap()
    };
    let (alone, together) = (draws(&[item(5, 6)]), draws(&[item(2, 9), item(5, 6), item(7, 4)]));
    assert_eq!((alone.t[0], alone.condition_keep[0]), (together.t[1], together.condition_keep[1]));
    assert_eq!(alone.prompt_lengths[0], together.prompt_lengths[1]);
    assert_eq!(alone.streaming, together.streaming);
    let noise = together.noise.narrow(0, 18, 12).unwrap();
    assert_eq!(flat(&alone.noise), flat(&noise));
}

#[test]
fn draws_have_the_configured_shares() {
    let config = config();
    let items: Vec<FlowItem> = (0..20).map(|sample| item(sample, 10)).collect();
    let batch = FlowBatch::collate(&items, &config).unwrap();
    let (mut dropped, mut prompted, mut streaming, mut longest) = (0, 0, 0, 0);
    for step in 0..200 {
        let draws = FlowDraws::from_rng_key(&RngKey::new(1).step(step), &batch, &config).unwrap();
        assert!(draws.t.iter().all(|t| (0.0..1.0).contains(t)));
        dropped += draws.condition_keep.iter().filter(|keep| **keep == 0.0).count();
        prompted += draws.prompt_lengths.iter().filter(|length| **length > 0).count();
        longest = longest.max(*draws.prompt_lengths.iter().max().unwrap());
        streaming += usize::from(draws.streaming);
    }
    assert_eq!(longest, 6, "at most 30 % of 20 frames");
    assert!((700..900).contains(&dropped), "a fifth of 4000 are dropped: {dropped}");
    // Half get a prompt; of those, one in seven has length 0.
    assert!((1600..1830).contains(&prompted), "{prompted}");
    assert!((75..125).contains(&streaming), "{streaming}");
}

/// Makes one step of gradient descent. Returns the loss before it.
fn descend(flow: &Flow, parameters: &mut Parameters, batch: &FlowBatch, draws: &FlowDraws, rate: f32) -> f32 {
    let tape = Tape::new();
    let context = Context::training(parameters, &tape, RngKey::new(2));
    let loss = flow.loss(&context, batch, draws).unwrap();
    let gradients = tape.backward(&loss.total).unwrap();
    assert_eq!(gradients.len(), parameters.len(), "every parameter has a gradient");
    let norm: f64 = gradients.iter().flat_map(|(_, g)| flat(g)).map(|g| f64::from(g) * f64::from(g)).sum();
    let step = rate / norm.sqrt().max(1.0) as f32;
    for (id, gradient) in gradients.iter() {
        let gradient = host::slice("descend", gradient).unwrap();
        host::modify(parameters.tensor(id), |w| w.iter_mut().zip(&*gradient).for_each(|(w, g)| *w -= step * g))
            .unwrap();
    }
    loss.total.scalar().unwrap()
}

#[test]
fn it_learns_a_batch_with_and_without_streaming_masks() {
    let mut config = config();
    config.encoder.dropout_rate = 0.0;
    config.encoder.positional_dropout_rate = 0.0;
    config.encoder.attention_dropout_rate = 0.0;
    unet(&mut config).dropout = 0.0;
    for streaming in [false, true] {
        let (flow, mut parameters) = Flow::new(&config, 4).unwrap();
        let batch = FlowBatch::collate(&[item(1, 12), item(2, 9)], &config).unwrap();
        let mut draws = FlowDraws::from_rng_key(&RngKey::new(3), &batch, &config).unwrap();
        draws.streaming = streaming;
        draws.condition_keep = vec![1.0, 1.0];
        let first = descend(&flow, &mut parameters, &batch, &draws, 0.05);
        let last = (0..250).map(|_| descend(&flow, &mut parameters, &batch, &draws, 0.05)).last().unwrap();
        assert!(last < 0.5 * first, "streaming {streaming}: from {first} to {last}");
    }
}

#[test]
fn training_is_a_function_of_its_draws() {
    let config = config();
    let run = || {
        let (flow, mut parameters) = Flow::new(&config, 4).unwrap();
        let batch = FlowBatch::collate(&[item(1, 12), item(2, 9)], &config).unwrap();
        for step in 0..3 {
            let draws = FlowDraws::from_rng_key(&RngKey::new(3).step(step), &batch, &config).unwrap();
            descend(&flow, &mut parameters, &batch, &draws, 0.1);
        }
        parameters.named_tensors().iter().flat_map(|(_, tensor)| flat(tensor)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

fn request(sample: u64, tokens: usize, prompt: Option<usize>) -> GenerationRequest {
    let item = item(sample, tokens);
    let prompt = prompt.map(|tokens| {
        let source = self::item(sample + 100, tokens);
        Prompt { tokens: source.tokens, mel: Tensor::from_vec(source.mel, (2 * tokens, BINS), &Device::Cpu).unwrap() }
    });
    GenerationRequest { tokens: item.tokens, speaker_embedding: item.speaker_embedding, prompt }
}

#[test]
fn generation_is_a_function_of_request_and_draw() {
    let config = config();
    let (flow, parameters) = Flow::new(&config, 4).unwrap();
    let context = Context::inference(&parameters);
    let options = flow.default_options();
    let rng_key = RngKey::new(6);
    let requests = [request(1, 7, None), request(2, 5, Some(3))];
    let mels = flow.generate(&context, &requests, &options, &rng_key, &[10, 11]).unwrap().mels;
    assert_eq!((mels[0].dims(), mels[1].dims()), (&[14, BINS][..], &[10, BINS][..]));
    let again = flow.generate(&context, &requests, &options, &rng_key, &[10, 11]).unwrap().mels;
    assert_eq!(flat(&mels[1]), flat(&again[1]));
    let alone = flow.generate(&context, &requests[1..], &options, &rng_key, &[11]).unwrap().mels;
    let difference = flat(&mels[1]).iter().zip(flat(&alone[0])).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-4, "an item does not depend on its batch: {difference}");
    let other = flow.generate(&context, &requests[1..], &options, &rng_key, &[12]).unwrap().mels;
    assert_ne!(flat(&alone[0]), flat(&other[0]));
    assert!(flow.generate(&context, &[], &options, &rng_key, &[]).unwrap().mels.is_empty());
}

#[test]
fn windows_are_parts_of_one_mel_and_one_window_is_the_whole() {
    let mut config = config();
    // Models that were trained without prompts see the window before in another way.
    for prompt_rate in [0.5, 0.0] {
        config.matching.prompt_rate = prompt_rate;
        let (flow, parameters) = Flow::new(&config, 4).unwrap();
        let (context, rng_key) = (Context::inference(&parameters), RngKey::new(6));
        let (options, request) = (flow.default_options(), request(1, 30, None));
        let whole = flow.generate(&context, std::slice::from_ref(&request), &options, &rng_key, &[0]).unwrap();
        let whole = flat(&whole.mels[0]);
        let made = |length: usize| {
            let (mut frames, mut windows) = (Vec::new(), 0);
            let layout = Windows { length, context: 5, lookahead: 2 };
            generate_in_windows::<FlowError>(&flow, &context, &request, &options, &rng_key, &layout, |window| {
                assert_eq!(window.frames.start * BINS, frames.len());
                assert_eq!(window.is_last, window.frames.end == 60);
                frames.extend(window.mel);
                windows += 1;
                Ok(())
            })
            .unwrap();
            (frames, windows)
        };
        assert!(made(30) == (whole.clone(), 1) && made(100) == (whole.clone(), 1));
        let (parts, windows) = made(8);
        assert_eq!((parts.len(), windows), (whole.len(), 4));
        assert!(parts != whole && parts.iter().all(|value| value.is_finite()));
        assert_eq!(made(8).0, parts);
    }
}

#[test]
fn normalization_is_undone_by_generation() {
    let mut config = config();
    let (plain, parameters) = Flow::new(&config, 4).unwrap();
    config.mel_normalisation = Some(MelNormalization { mean: vec![-3.0; BINS], deviation: vec![2.0; BINS] });
    let (normalized, _) = Flow::new(&config, 4).unwrap();
    let context = Context::inference(&parameters);
    let rng_key = RngKey::new(6);
    let generate = |flow: &Flow, request: GenerationRequest| {
        flat(&flow.generate(&context, &[request], &flow.default_options(), &rng_key, &[1]).unwrap().mels[0])
    };
    let mut shifted = request(2, 5, Some(3));
    let prompt = shifted.prompt.as_mut().unwrap();
    prompt.mel = ((&prompt.mel * 2.0).unwrap() - 3.0).unwrap();
    let expected: Vec<f32> = generate(&plain, request(2, 5, Some(3))).iter().map(|x| x * 2.0 - 3.0).collect();
    let worst = generate(&normalized, shifted).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");

    // The loss is that of the plain model on normalized mels.
    let draws = |batch: &FlowBatch| FlowDraws::from_rng_key(&RngKey::new(3), batch, &config).unwrap();
    let batch = FlowBatch::collate(&[item(1, 6)], &config).unwrap();
    let shifted = FlowBatch { mel: ((&batch.mel * 2.0).unwrap() - 3.0).unwrap(), ..batch.clone() };
    let loss =
        |flow: &Flow, batch: &FlowBatch| flow.loss(&context, batch, &draws(batch)).unwrap().total.scalar().unwrap();
    let (a, b) = (loss(&plain, &batch), loss(&normalized, &shifted));
    assert!((a - b).abs() < 1e-5 * a, "{a} {b}");
}

#[test]
fn configurations_round_trip_and_bad_ones_are_named() {
    let text = serde_json::to_string(&config()).unwrap();
    assert_eq!(serde_json::from_str::<FlowConfig>(&text).unwrap(), config());
    assert!(serde_json::from_str::<FlowConfig>(r#"{"encoder": {"num_block": 3}}"#).is_err());
    let refused = |change: fn(&mut FlowConfig)| {
        let mut config = config();
        change(&mut config);
        Flow::new(&config, 0).unwrap_err()
    };
    type Change = fn(&mut FlowConfig);
    let cases: [(Change, &str); 7] = [
        (|config| config.vocab_size = 0, "vocab_size"),
        (|config| config.encoder.attention_heads = 3, "input_size"),
        (|config| unet(config).channels = vec![16, 0], "estimator.channels"),
        (|config| config.encoder.dropout_rate = 1.0, "encoder.dropout_rate"),
        (|config| config.matching.prompt_rate = f32::NAN, "matching.prompt_rate"),
        (|config| config.output_size = usize::MAX, "output_size"),
        (
            |config| config.mel_normalisation = Some(MelNormalization { mean: vec![0.0], deviation: vec![1.0] }),
            "mel_normalisation",
        ),
    ];
    for (change, expected) in cases {
        let error = refused(change);
        assert!(matches!(error, FlowError::Config { field, .. } if field == expected), "{expected}: {error}");
    }
}

#[test]
fn bad_batches_and_requests_are_errors() {
    let config = config();
    let (flow, parameters) = Flow::new(&config, 4).unwrap();
    let context = Context::inference(&parameters);
    let good = FlowBatch::collate(&[item(1, 6), item(2, 4)], &config).unwrap();
    let draws = FlowDraws::from_rng_key(&RngKey::new(3), &good, &config).unwrap();
    let loss = |batch: &FlowBatch| flow.loss(&context, batch, &draws).map(|_| ()).unwrap_err();
    let of_item = |error: &FlowError, number: usize, value: &str| match error {
        FlowError::Batch { item, message } => *item == number && message.contains(value),
        _ => false,
    };
    let wrong_length = FlowBatch { mel_lengths: vec![12, 9], ..good.clone() };
    assert!(of_item(&loss(&wrong_length), 1, "4 tokens and 9 frames"), "{}", loss(&wrong_length));
    let too_long = FlowBatch { token_lengths: vec![7, 4], mel_lengths: vec![14, 8], ..good.clone() };
    assert!(of_item(&loss(&too_long), 0, "7 tokens"), "{}", loss(&too_long));
    let unknown = FlowBatch { tokens: vec![20; good.tokens.len()], ..good.clone() };
    let index = loss(&unknown);
    assert!(matches!(index, FlowError::Nn(NnError::Index { index: 20, size: 20, .. })), "{index}");

    let mut short = item(1, 6);
    short.mel.pop();
    let error = FlowBatch::collate(&[short], &config).unwrap_err();
    assert!(of_item(&error, 0, "95 mel values"), "{error}");
    let mut empty = request(1, 3, None);
    empty.tokens.clear();
    let error = flow.generate(&context, &[empty], &flow.default_options(), &RngKey::new(1), &[1]).unwrap_err();
    assert!(of_item(&error, 0, "tokens"), "{error}");
}

/// The settings with which small models learn in a minute, without dropout, so that the loss is a function of the
/// weights.
fn quick_config() -> FlowConfig {
    let mut config = config();
    config.direct_mel_kernel = 3;
    config.encoder.dropout_rate = 0.0;
    config.encoder.positional_dropout_rate = 0.0;
    config.encoder.attention_dropout_rate = 0.0;
    unet(&mut config).dropout = 0.0;
    config.matching.training_cfg_rate = 0.0;
    config.matching.inference_cfg_rate = 0.0;
    config.matching.prior_weight = 2.0;
    config.matching.gaussian_skip = Some(0.5);
    config
}

#[test]
fn the_gradient_of_the_quick_settings_is_the_slope_of_their_loss() {
    let config = quick_config();
    let batch = FlowBatch::collate(&[item(1, 7), item(2, 4)], &config).unwrap();
    let draws = FlowDraws::from_rng_key(&RngKey::new(3), &batch, &config).unwrap();
    // Moves all weights by `step` along the normalized gradient of the start. Returns the loss there and the
    // gradient's norm.
    let along = |step: f32| {
        let (flow, parameters) = Flow::new(&config, 4).unwrap();
        let tape = Tape::new();
        let loss = flow.loss(&Context::training(&parameters, &tape, RngKey::new(2)), &batch, &draws).unwrap();
        let gradients = tape.backward(&loss.total).unwrap();
        assert_eq!(gradients.len(), parameters.len(), "every parameter has a gradient");
        let norm = gradients.iter().flat_map(|(_, g)| flat(g)).map(|g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        for (id, gradient) in gradients.iter() {
            let gradient = host::slice("along", gradient).unwrap();
            let scale = step / norm as f32;
            host::modify(parameters.tensor(id), |w| w.iter_mut().zip(&*gradient).for_each(|(w, g)| *w += scale * g))
                .unwrap();
        }
        let loss = flow.loss(&Context::inference(&parameters), &batch, &draws).unwrap();
        (f64::from(loss.total.scalar().unwrap()), norm)
    };
    let ((up, norm), (down, _)) = (along(1e-2), along(-1e-2));
    let slope = (up - down) / 2e-2;
    assert!((slope / norm - 1.0).abs() < 1e-2, "slope {slope}, norm of the gradient {norm}");
}

#[test]
fn without_a_correction_samples_are_a_gaussian_around_the_encoders_mel_or_around_zero() {
    let config = quick_config();
    let (flow, parameters) = Flow::new(&config, 5).unwrap();
    for name in ["decoder.estimator.final_proj.weight", "decoder.estimator.final_proj.bias"] {
        let id = parameters.find(name).unwrap();
        host::modify(parameters.tensor(id), |w| w.fill(0.0)).unwrap();
    }
    let request = GenerationRequest { tokens: vec![3, 1, 4, 1], speaker_embedding: vec![1.0; 4], prompt: None };
    let samples: Vec<u64> = (0..256).collect();
    let context = Context::inference(&parameters);
    // Guidance -1 leaves the velocity without conditions.
    for (guidance, deviation) in [(0.0, 0.5), (-1.0, 1.0)] {
        let mut options = flow.default_options();
        options.solver.steps = 200;
        options.guidance = guidance;
        let mels = flow.generate(&context, &vec![request.clone(); 256], &options, &RngKey::new(6), &samples);
        let mels: Vec<Vec<f32>> = mels.unwrap().mels.iter().map(flat).collect();
        let (mut variance, mut square) = (0.0, 0.0);
        let values = mels[0].len();
        for value in 0..values {
            let values_of = || mels.iter().map(|mel| f64::from(mel[value]));
            let mean = values_of().sum::<f64>() / 256.0;
            variance += values_of().map(|x| (x - mean).powi(2)).sum::<f64>() / 255.0 / values as f64;
            square += mean * mean / values as f64;
        }
        assert!((variance.sqrt() / deviation - 1.0).abs() < 0.04, "deviation {}", variance.sqrt());
        assert_eq!(square < 0.02, guidance == -1.0, "mean square of the means {square}");
    }
}
