//! The shallow flow in use: its loss, its training, its start, its results and their cost.

mod support;

use candle_core::{Device, Tensor};
use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{
    EncoderConfig, FlowBatch, FlowConfig, FlowDraws, FlowError, FlowItem, Generated, GenerationOptions,
    GenerationRequest, Prompt,
};
use flowmill_networks::sfm::{Sfm, SfmConfig};
use flowmill_nn::random::RngKey;
use flowmill_nn::solvers::{Method, Solver, TimeSchedule, Tolerances};
use flowmill_nn::{Context, NnError, Parameters, Tape, host};
use support::BINS;

fn config() -> SfmConfig {
    let encoder = EncoderConfig {
        dropout_rate: 0.0,
        positional_dropout_rate: 0.0,
        attention_dropout_rate: 0.0,
        ..support::encoder()
    };
    SfmConfig { flow: FlowConfig { encoder, ..support::flow() }, head_dropout: 0.0, ..SfmConfig::default() }
}

/// Returns an item in which every unit has its own mel, like speech.
fn item(sample: u64, tokens: usize) -> FlowItem {
    let rng_key = RngKey::new(8).sample(sample);
    let tokens: Vec<u32> = (0..tokens as u64).map(|i| rng_key.below_at(i, 20)).collect();
    let mel = |token: &u32| RngKey::new(9).sample(u64::from(*token)).normals(2 * BINS);
    FlowItem {
        mel: tokens.iter().flat_map(mel).collect(),
        tokens,
        speaker_embedding: rng_key.purpose("speaker").normals(4),
        sample,
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn batch(items: &[FlowItem]) -> (FlowBatch, FlowDraws) {
    let config = config().flow;
    let batch = FlowBatch::collate(items, &config).unwrap();
    let mut draws = FlowDraws::from_rng_key(&RngKey::new(3), &batch, &config).unwrap();
    draws.streaming = false;
    (batch, draws)
}

/// Makes one step of gradient descent. Returns the parts of the loss before it.
fn descend(sfm: &Sfm, parameters: &mut Parameters, batch: &FlowBatch, draws: &FlowDraws) -> Vec<(&'static str, f64)> {
    let tape = Tape::new();
    let context = Context::training(parameters, &tape, RngKey::new(2));
    let loss = sfm.loss(&context, batch, draws).unwrap();
    let gradients = tape.backward(&loss.total).unwrap();
    assert_eq!(gradients.len(), parameters.len(), "every parameter has a gradient");
    let norm: f64 = gradients.iter().flat_map(|(_, g)| flat(g)).map(|g| f64::from(g) * f64::from(g)).sum();
    let step = 0.05 / norm.sqrt().max(1.0) as f32;
    for (id, gradient) in gradients.iter() {
        let gradient = host::slice("descend", gradient).unwrap();
        host::modify(parameters.tensor(id), |w| w.iter_mut().zip(&*gradient).for_each(|(w, g)| *w -= step * g))
            .unwrap();
    }
    loss.parts
}

#[test]
fn the_loss_is_the_sum_of_five_parts_that_fall_in_training() {
    let with = |skip: Option<f32>| {
        let mut config = config();
        config.flow.matching.gaussian_skip = skip;
        config
    };
    for skip in [None, Some(0.5)] {
        let (sfm, mut parameters) = Sfm::new(&with(skip), 4).unwrap();
        let (batch, mut draws) = batch(&[item(1, 12), item(2, 9)]);
        draws.condition_keep = vec![1.0, 1.0];
        let loss = sfm.loss(&Context::inference(&parameters), &batch, &draws).unwrap();
        let names: Vec<&str> = loss.parts.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["coarse", "cfm", "mu", "t", "sigma"]);
        let sum: f64 = loss.parts.iter().map(|(_, part)| part).sum();
        assert!((sum / f64::from(loss.total.scalar().unwrap()) - 1.0).abs() < 1e-5);
        assert_eq!(loss.weight, (42 * BINS) as f64);
        let last = (0..250).map(|_| descend(&sfm, &mut parameters, &batch, &draws)).last().unwrap();
        for ((name, first), (_, last)) in loss.parts.iter().zip(&last) {
            // Time and deviation follow a target that moves while the prediction becomes better.
            let factor = if ["coarse", "cfm", "mu"].contains(name) { 0.7 } else { 1.0 };
            assert!(*last < factor * first, "{name}: from {first} to {last}");
        }
    }
}

#[test]
fn neither_padding_nor_the_rest_of_the_batch_changes_an_items_loss() {
    let (sfm, parameters) = Sfm::new(&config(), 4).unwrap();
    let loss = |items: &[FlowItem]| {
        let (batch, draws) = batch(items);
        let loss = sfm.loss(&Context::inference(&parameters), &batch, &draws).unwrap();
        (loss.parts, loss.weight)
    };
    let (together, whole) = loss(&[item(1, 12), item(2, 5)]);
    let ((first, long), (second, short)) = (loss(&[item(1, 12)]), loss(&[item(2, 5)]));
    for (part, (name, together)) in together.iter().enumerate() {
        // Time and deviation are means over items, the others over frames.
        let expected = match *name {
            "t" | "sigma" => (first[part].1 + second[part].1) / 2.0,
            _ => (first[part].1 * long + second[part].1 * short) / whole,
        };
        // Near its end an item looks ahead into padding, as in the public encoder.
        assert!((together / expected - 1.0).abs() < 0.02, "{name}: {together} instead of {expected}");
    }
}

fn request(sample: u64, tokens: usize, prompt: Option<usize>) -> GenerationRequest {
    let item = item(sample, tokens);
    let prompt = prompt.map(|tokens| {
        let source = self::item(sample + 100, tokens);
        Prompt { tokens: source.tokens, mel: Tensor::from_vec(source.mel, (2 * tokens, BINS), &Device::Cpu).unwrap() }
    });
    GenerationRequest { tokens: item.tokens, speaker_embedding: item.speaker_embedding, prompt }
}

/// Generates from an untrained model that ignores the time: its oscillations would disappear with training.
fn generate(config: &SfmConfig, solver: Solver, requests: &[GenerationRequest], samples: &[u64]) -> Generated {
    let (sfm, parameters) = Sfm::new(config, 4).unwrap();
    let time = parameters.find("decoder.estimator.time_mlp.linear_1.weight").unwrap();
    host::modify(parameters.tensor(time), |w| w.fill(0.0)).unwrap();
    let options = GenerationOptions { solver, ..sfm.default_options() };
    sfm.generate(&Context::inference(&parameters), requests, &options, &RngKey::new(6), samples).unwrap()
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    flat(a).iter().zip(flat(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn both_solvers_follow_the_same_path_and_say_what_it_took() {
    let requests = [request(1, 7, None), request(2, 5, Some(3))];
    let adaptive = Solver { method: Method::Dopri5, ..Solver::default() };
    let fine = Solver { steps: 2000, ..Solver::default() };
    let (fine, adaptive) =
        (generate(&config(), fine, &requests, &[10, 11]), generate(&config(), adaptive, &requests, &[10, 11]));
    assert_eq!(fine.evaluations, [2000, 2000]);
    assert!(adaptive.evaluations.iter().all(|count| (8..500).contains(count)), "{:?}", adaptive.evaluations);
    for (a, b) in fine.mels.iter().zip(&adaptive.mels) {
        assert!(worst(a, b) < 1e-2, "{}", worst(a, b));
    }
    assert_eq!((fine.mels[0].dims(), fine.mels[1].dims()), (&[14, BINS][..], &[10, BINS][..]));
}

#[test]
fn what_a_request_gives_does_not_depend_on_the_others() {
    let requests = [request(1, 7, None), request(2, 5, Some(3))];
    for method in [Method::Euler, Method::Dopri5] {
        let solver = Solver { method, ..Solver::default() };
        let together = generate(&config(), solver, &requests, &[10, 11]);
        let alone = generate(&config(), solver, &requests[1..], &[11]);
        assert!(worst(&together.mels[1], &alone.mels[0]) < 1e-4, "{method:?}");
        assert_eq!(together.evaluations[1], alone.evaluations[0]);
    }
}

#[test]
fn strength_moves_the_start_towards_the_data() {
    let solver = Solver { method: Method::Dopri5, ..Solver::default() };
    let mel = |strength: f32, sample: u64| {
        let config = SfmConfig { sfm_strength: strength, ..config() };
        generate(&config, solver, &[request(1, 7, None)], &[sample]).mels.remove(0)
    };
    // The stronger it is, the less noise is left to distinguish two samples.
    let spread = |strength| worst(&mel(strength, 1), &mel(strength, 2));
    let (weak, strong) = (spread(0.1), spread(2.5));
    assert!(strong < 0.5 * weak, "{weak} at 0.1, {strong} at 2.5");
}

#[test]
fn a_solver_that_may_not_go_on_says_so() {
    let (sfm, parameters) = Sfm::new(&config(), 4).unwrap();
    let tolerances = Tolerances { rtol: 1e-6, atol: 1e-9, max_evaluations: 10 };
    let solver = Solver { method: Method::Dopri5, tolerances, ..Solver::default() };
    let options = GenerationOptions { solver, ..sfm.default_options() };
    let context = Context::inference(&parameters);
    let error = sfm.generate(&context, &[request(1, 7, None)], &options, &RngKey::new(6), &[1]).unwrap_err();
    let stopped = |message: &str| message.contains("10 evaluations");
    assert!(
        matches!(&error, FlowError::Nn(NnError::Invalid { what: "dopri5", message }) if stopped(message)),
        "{error}"
    );
}

#[test]
fn settings_that_cannot_be_are_named() {
    let with = |change: fn(&mut SfmConfig)| {
        let mut config = config();
        change(&mut config);
        Sfm::new(&config, 0).unwrap_err()
    };
    let is_of =
        |error: &FlowError, expected: &str| matches!(error, FlowError::Config { field, .. } if *field == expected);
    type Change = fn(&mut SfmConfig);
    let cases: [(Change, &str); 4] = [
        (|config| config.head_dropout = 1.0, "head_dropout"),
        (|config| config.sfm_strength = 0.0, "sfm_strength"),
        (|config| config.flow.vocab_size = 0, "vocab_size"),
        (|config| config.flow.matching.prior_weight = 1.0, "flow.matching.prior_weight"),
    ];
    for (change, field) in cases {
        let error = with(change);
        assert!(is_of(&error, field), "{field}: {error}");
    }
    assert_eq!(config().flow.matching.t_scheduler, TimeSchedule::Cosine);
}
