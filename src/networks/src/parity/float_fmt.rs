//! FLOAT's flow matching transformer: output, losses, gradients and incremental guidance.

use candle_core::Tensor;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Tape, host};

use super::{GoldenFile, ParityError, Report, Result};
use crate::float::{Batch, Draws, Float, FloatConfig, GuidanceOptions, Kept, Window};

/// The guidance of the files, which their configuration leaves out.
const GUIDANCE: GuidanceOptions = GuidanceOptions { steps: 1, audio: 2.0, emotion: 1.5 };

pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let config = config(file)?;
    let (model, mut parameters) = Float::new(&config, 0)?;
    file.load(&mut parameters)?;
    let mask: Vec<bool> = file.integers("param.alignment_mask")?.into_iter().map(|blocked| blocked != 0).collect();
    if mask != config.alignment_mask() {
        let expected = format!("a band of {} frames", config.attention_window);
        return Err(ParityError::tensor("param.alignment_mask", "another mask", expected));
    }
    let (windows, draws) = inputs(file, &config)?;
    let batch = Batch::collate(&windows, &config)?;
    let mut report = Report::default();
    let output = model.predict(&Context::inference(&parameters), &batch, &draws)?;
    let shape = (windows.len(), config.window(), config.dim_w);
    report.output("out.pred", &host::fetch(output.tensor())?.reshape(shape)?, file.floats("out.pred", 3)?)?;

    let tape = Tape::new();
    let loss = model.loss(&Context::training(&parameters, &tape, RngKey::new(0)), &batch, &draws)?;
    for (name, found) in [("out.loss_cur", loss.current), ("out.loss_prev", loss.previous)] {
        report.output(name, &Tensor::new(&[found as f32], &candle_core::Device::Cpu)?, file.floats(name, 1)?)?;
    }
    report.gradients(file, &parameters, &tape.backward(&loss.total)?)?;

    let expected = file.tensor("out.cfv")?;
    match windows.as_slice() {
        [window] if expected.rank() == 3 => {
            // The guided velocity is that of the point of the loss.
            let (mut window, time) = (window.clone(), draws.times[0]);
            let current = &mut window.motion[config.num_prev_frames * config.dim_w..];
            let noise = host::read(&draws.noise)?;
            current.iter_mut().zip(noise).for_each(|(x, noise)| *x = (1.0 - time) * noise + time * *x);
            let found = model.guided_window(&Context::inference(&parameters), &window, time, &GUIDANCE)?;
            report.output("out.cfv", &host::tensor(found, &[1, config.window(), config.dim_w])?, expected)?;
        }
        // Files of several windows have the number 0 in its place.
        _ => report.output("out.cfv", &host::tensor(vec![0.0], &[1])?, expected)?,
    }
    Ok(report)
}

/// Returns the model's settings. Its speech conditions are projected already.
fn config(file: &GoldenFile) -> Result<FloatConfig> {
    let size = |key: &str| file.size(&[key]);
    let frames = file.number(&["wav2vec_sec"])? * file.number(&["fps"])?;
    let config = FloatConfig {
        dim_w: size("dim_w")?,
        dim_a: size("dim_a")?,
        dim_e: size("dim_e")?,
        audio_features: 0,
        dim_h: size("dim_h")?,
        fmt_depth: size("fmt_depth")?,
        num_heads: size("num_heads")?,
        mlp_ratio: file.number(&["mlp_ratio"])? as f32,
        num_prev_frames: size("num_prev_frames")?,
        num_frames: frames.round() as usize,
        attention_window: size("attention_window")?,
    };
    config.check()?;
    file.expect_modules("blocks", config.fmt_depth)?;
    file.expect_weight("blocks.0.mlp.fc1.weight", &[config.mlp_size(), config.dim_h])?;
    file.expect_weight("x_embedder.proj.weight", &[config.dim_h, config.dim_w])?;
    file.expect_weight("c_embedder.weight", &[config.dim_h, config.dim_w + config.dim_a + config.dim_e])?;
    file.expect_weight("pos_embed", &[1, config.window(), config.dim_h])?;
    Ok(config)
}

/// Returns the windows and draws of the file.
fn inputs(file: &GoldenFile, config: &FloatConfig) -> Result<(Vec<Window>, Draws)> {
    let times: Vec<f32> = file.floats("in.t", 1)?.to_vec1()?;
    let (items, previous, current) = (times.len(), config.num_prev_frames, config.num_frames);
    let joined = |before: &str, now: &str, width: usize| -> Result<Vec<Vec<f32>>> {
        let before = file.shaped(before, &[items, previous, width])?;
        let now = file.shaped(now, &[items, current, width])?;
        let joined = Tensor::cat(&[before, now], 1)?.flatten_from(1)?;
        Ok(joined.to_vec2()?)
    };
    let motions = joined("in.prev_x", "in.x1", config.dim_w)?;
    let speech = joined("in.prev_wa", "in.wa", config.dim_a)?;
    let references: Vec<Vec<f32>> = file.shaped("in.wr", &[items, config.dim_w])?.to_vec2()?;
    let emotions: Vec<Vec<f32>> = file.shaped("in.we", &[items, 1, config.dim_e])?.squeeze(1)?.to_vec2()?;
    let windows = motions.into_iter().zip(speech).zip(references.into_iter().zip(emotions));
    let windows = windows.map(|((motion, audio), (reference, emotion))| Window {
        motion,
        audio,
        missing: 0,
        reference,
        emotion,
        sample: 0,
    });
    let noise = file.shaped("in.z", &[items, current, config.dim_w])?.flatten_to(1)?;
    Ok((windows.collect(), Draws { times, noise, kept: vec![Kept::ALL; items] }))
}
