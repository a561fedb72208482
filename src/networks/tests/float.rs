//! FLOAT's flow matching transformer: windows, losses, dropped conditions, sampling.

use flowmill_networks::float::{
    Batch, Draws, DropoutConfig, Float, FloatConfig, FloatError, GuidanceOptions, Kept, MotionRequest, Window,
};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Tape, host};

fn config() -> FloatConfig {
    FloatConfig {
        dim_w: 6,
        dim_a: 8,
        dim_e: 3,
        audio_features: 5,
        dim_h: 16,
        fmt_depth: 2,
        num_heads: 2,
        mlp_ratio: 2.0,
        num_prev_frames: 3,
        num_frames: 7,
        attention_window: 1,
    }
}

/// A window with this number of current frames, whose clip lacks some previous ones.
fn window(config: &FloatConfig, sample: u64, frames: usize, missing: usize) -> Window {
    let rng_key = RngKey::new(3).sample(sample);
    let rows = config.num_prev_frames + frames;
    let mut motion = rng_key.purpose("motion").normals(rows * config.dim_w);
    let mut audio = rng_key.purpose("audio").normals(rows * config.audio_width());
    motion[..missing * config.dim_w].fill(0.0);
    audio[..missing * config.audio_width()].fill(0.0);
    let reference = rng_key.purpose("reference").normals(config.dim_w);
    Window { motion, audio, missing, reference, emotion: vec![0.0, 1.0, 0.0], sample }
}

/// A model whose weights are all random; a fresh one gives zeros.
fn random_model(config: &FloatConfig) -> (Float, Parameters) {
    let (model, mut parameters) = Float::new(config, 1).unwrap();
    for id in parameters.trainable_ids().collect::<Vec<_>>() {
        let shape = parameters.tensor(id).dims().to_vec();
        let values = RngKey::new(5).purpose(parameters.name(id)).normals(shape.iter().product());
        let values = values.into_iter().map(|x| 0.3 * x).collect();
        parameters.set(id, host::tensor(values, &shape).unwrap()).unwrap();
    }
    (model, parameters)
}

fn draws(batch: &Batch, dropout: &DropoutConfig) -> Draws {
    Draws::from_rng_key(&RngKey::new(9), batch, dropout).unwrap()
}

fn mean(values: impl Iterator<Item = f32>) -> f64 {
    let values: Vec<f64> = values.map(f64::from).collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn a_fresh_model_gives_zeros_so_the_losses_are_those_of_the_targets() {
    let config = config();
    let (model, parameters) = Float::new(&config, 1).unwrap();
    let windows = [window(&config, 0, 7, 0), window(&config, 1, 4, 3), window(&config, 2, 1, 2)];
    let batch = Batch::collate(&windows, &config).unwrap();
    let nothing =
        Kept { audio: false, reference: false, emotion: false, previous_motion: false, previous_audio: false };
    for kept in [Kept::ALL, nothing] {
        let draws = Draws { kept: vec![kept; 3], ..draws(&batch, &DropoutConfig::NONE) };
        let loss = model.loss(&Context::inference(&parameters), &batch, &draws).unwrap();
        let noise = host::read(&draws.noise).unwrap();
        let first = config.num_prev_frames * config.dim_w;
        let current = windows.iter().flat_map(|window| &window.motion[first..]);
        let expected = mean(current.zip(&noise).map(|(x, noise)| (x - noise).abs()));
        assert!((loss.current - expected).abs() < 1e-6, "{} {expected}", loss.current);
        // Dropped conditions change no target, and frames that a clip does not have are no part of the loss.
        let previous = windows.iter().flat_map(|window| &window.motion[window.missing * config.dim_w..first]);
        assert!((loss.previous - mean(previous.map(|x| x.abs()))).abs() < 1e-6);
        assert!((f64::from(loss.total.scalar().unwrap()) - loss.current - loss.previous).abs() < 1e-6);
        assert_eq!(loss.weight, (12 * config.dim_w) as f64);
    }
    let first = Batch::collate(&[window(&config, 0, 7, 3)], &config).unwrap();
    let loss = model.loss(&Context::inference(&parameters), &first, &draws(&first, &DropoutConfig::NONE)).unwrap();
    assert_eq!(loss.previous, 0.0);
}

#[test]
fn windows_do_not_depend_on_their_batch() {
    let config = config();
    let (model, parameters) = random_model(&config);
    let context = Context::inference(&parameters);
    let windows = [window(&config, 0, 7, 0), window(&config, 1, 4, 3), window(&config, 2, 6, 0)];
    let output = |windows: &[Window]| {
        let batch = Batch::collate(windows, &config).unwrap();
        let draws = draws(&batch, &DropoutConfig::default());
        host::read(model.predict(&context, &batch, &draws).unwrap().tensor()).unwrap()
    };
    let alone: Vec<f32> = windows.iter().flat_map(|window| output(std::slice::from_ref(window))).collect();
    let together = output(&windows);
    // Frames that a clip does not have are silent, whatever their features are.
    let mut loud = windows.clone();
    loud[1].audio[..3 * config.audio_width()].fill(7.0);
    assert_eq!(output(&loud), together);
    assert!(alone.iter().zip(&together).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn every_condition_reaches_the_output_and_every_parameter_gets_a_gradient() {
    let config = config();
    let (model, parameters) = random_model(&config);
    let batch = Batch::collate(&[window(&config, 0, 7, 0)], &config).unwrap();
    let output = |kept: Kept| {
        let draws = Draws { kept: vec![kept], ..draws(&batch, &DropoutConfig::NONE) };
        host::read(model.predict(&Context::inference(&parameters), &batch, &draws).unwrap().tensor()).unwrap()
    };
    let whole = output(Kept::ALL);
    for kept in [
        Kept { audio: false, ..Kept::ALL },
        Kept { reference: false, ..Kept::ALL },
        Kept { emotion: false, ..Kept::ALL },
        Kept { previous_motion: false, ..Kept::ALL },
        Kept { previous_audio: false, ..Kept::ALL },
    ] {
        assert_ne!(output(kept), whole, "{kept:?}");
    }
    let tape = Tape::new();
    let context = Context::training(&parameters, &tape, RngKey::new(0));
    let loss = model.loss(&context, &batch, &draws(&batch, &DropoutConfig::NONE)).unwrap();
    let gradients = tape.backward(&loss.total).unwrap();
    for id in parameters.trainable_ids() {
        assert!(gradients.get(id).is_some(), "{}", parameters.name(id));
    }
    assert!(!parameters.trainable(parameters.find("pos_embed").unwrap()));
}

#[test]
fn conditions_are_dropped_at_their_rates() {
    let config = config();
    let windows: Vec<Window> = (0..400).map(|sample| window(&config, sample, 1, 0)).collect();
    let batch = Batch::collate(&windows, &config).unwrap();
    let draws = draws(&batch, &DropoutConfig::default());
    let share = |kept: fn(&Kept) -> bool| draws.kept.iter().filter(|all| !kept(all)).count() as f64 / 400.0;
    for rare in [share(|kept| kept.audio), share(|kept| kept.reference), share(|kept| kept.emotion)] {
        assert!((0.05..0.16).contains(&rare), "{rare}");
    }
    for often in [share(|kept| kept.previous_motion), share(|kept| kept.previous_audio)] {
        assert!((0.42..0.58).contains(&often), "{often}");
    }
    assert_eq!(DropoutConfig { emotion: 1.5, ..DropoutConfig::NONE }.wrong(), Some("emotion"));
    assert_eq!(DropoutConfig::default().wrong(), None);
}

fn request(config: &FloatConfig, number: u64, frames: usize) -> MotionRequest {
    let rng_key = RngKey::new(11).sample(number);
    MotionRequest {
        audio: rng_key.purpose("audio").normals(frames * config.audio_width()),
        reference: rng_key.purpose("reference").normals(config.dim_w),
        emotion: vec![1.0, 0.0, 0.0],
    }
}

#[test]
fn a_clip_is_sampled_window_by_window() {
    let config = config();
    let requests = [request(&config, 0, 17), request(&config, 1, 7), request(&config, 2, 1)];
    let options = GuidanceOptions { steps: 3, ..GuidanceOptions::default() };
    // A fresh model moves nothing: what comes out is the noise.
    let (model, parameters) = Float::new(&config, 1).unwrap();
    let noise = |item: usize, window: usize| {
        RngKey::new(2).sample(item as u64).step(window as u64).normals(config.num_frames * config.dim_w)
    };
    let still = model.sample_from(&Context::inference(&parameters), &requests, &options, noise).unwrap();
    let expected: Vec<f32> = (0..3).flat_map(|window| noise(0, window)).take(17 * config.dim_w).collect();
    assert_eq!(still.iter().map(Vec::len).collect::<Vec<_>>(), [17, 7, 1].map(|frames| frames * config.dim_w));
    assert_eq!(still[0], expected);

    let (model, parameters) = random_model(&config);
    let context = Context::inference(&parameters);
    let together = model.sample(&context, &requests, &options, &RngKey::new(4)).unwrap();
    let again = model.sample(&context, &requests, &options, &RngKey::new(4)).unwrap();
    assert_eq!(together, again);
    let alone = model.sample(&context, &requests[..1], &options, &RngKey::new(4)).unwrap();
    assert!(alone[0].iter().zip(&together[0]).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + b.abs())));
    let plain = GuidanceOptions { audio: 1.0, emotion: 1.0, ..options };
    assert_ne!(model.sample(&context, &requests[..1], &plain, &RngKey::new(4)).unwrap(), alone);
    // The previous frames carry over: other speech in the first window changes the second.
    let mut changed = requests[0].clone();
    changed.audio[0] += 1.0;
    let changed = model.sample(&context, &[changed], &options, &RngKey::new(4)).unwrap();
    let second = config.num_frames * config.dim_w;
    assert_ne!(changed[0][second..2 * second], alone[0][second..2 * second]);
}

#[test]
fn what_does_not_fit_is_an_error_that_names_the_item() {
    let config = config();
    let refused = |change: fn(&mut FloatConfig)| {
        let mut config = config.clone();
        change(&mut config);
        match Float::new(&config, 0).unwrap_err() {
            FloatError::Config { field, .. } => field,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused(|config| config.num_heads = 5), "num_heads");
    assert_eq!(refused(|config| config.num_prev_frames = 8), "num_frames");
    assert_eq!(refused(|config| config.mlp_ratio = f32::NAN), "mlp_ratio");
    assert_eq!(refused(|config| config.dim_w = usize::MAX), "dim_w");
    FloatConfig::default().check().unwrap();
    let good = window(&config, 0, 7, 0);
    for change in [
        (|window| window.motion.truncate(18)) as fn(&mut Window),
        |window| window.motion.push(0.0),
        |window| window.audio.clear(),
        |window| window.missing = 4,
        |window| window.emotion.clear(),
    ] {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(matches!(Batch::collate(&[good.clone(), bad], &config), Err(FloatError::Item { item: 1, .. })));
    }
    let (model, parameters) = Float::new(&config, 0).unwrap();
    let bad = MotionRequest { audio: Vec::new(), ..request(&config, 0, 1) };
    let context = Context::inference(&parameters);
    let options = GuidanceOptions::default();
    let sampled = model.sample(&context, &[request(&config, 0, 1), bad], &options, &RngKey::new(0));
    assert!(matches!(sampled, Err(FloatError::Item { item: 1, .. })));
    let none = GuidanceOptions { steps: 0, ..options };
    assert!(model.sample(&context, &[request(&config, 0, 1)], &none, &RngKey::new(0)).is_err());
    assert!(none.check().is_err());
}
