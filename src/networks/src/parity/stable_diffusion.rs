//! The autoencoder of Stable Diffusion, and sampling.

use candle_core::{Device, Tensor};
use flowmill_nn::init::Builder;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, host};

use super::{GoldenFile, ParityError, Report, Result, settings};
use crate::stable_diffusion::sampling::{Method, Sampler, Schedule, ScheduleConfig, guided};
use crate::stable_diffusion::{Autoencoder, AutoencoderConfig, UNet, UNetConfig, channels_first, channels_last};

/// Compares the posterior and the decoder of the autoencoder.
pub(super) fn check_autoencoder(file: &GoldenFile) -> Result<Report> {
    let config: AutoencoderConfig = settings(file, &[])?;
    config.check()?;
    let channels = &config.block_out_channels;
    file.expect_weight("encoder.conv_in.weight", &[channels[0], config.in_channels, 3, 3])?;
    for (level, channels) in channels.iter().enumerate() {
        file.expect_modules(&format!("encoder.down_blocks.{level}.resnets"), config.layers_per_block)?;
        let name = format!("encoder.down_blocks.{level}.resnets.0.conv2.weight");
        file.expect_weight(&name, &[*channels, *channels, 3, 3])?;
    }
    file.expect_weight("post_quant_conv.bias", &[config.latent_channels])?;
    let mut parameters = Parameters::new();
    let model = Autoencoder::new(Builder::new(&mut parameters, RngKey::new(0)), &config)?;
    file.load(&mut parameters)?;
    let context = Context::inference(&parameters);
    let posterior = model.encode(&context, &channels_last(file.floats("in.image", 4)?)?)?;
    let mut report = Report::default();
    report.output("out.mean", &channels_first(&posterior.mean)?, file.floats("out.mean", 4)?)?;
    report.output("out.logvar", &channels_first(&posterior.log_variance)?, file.floats("out.logvar", 4)?)?;
    // The file decodes its own means.
    let decoded = model.decode(&context, &channels_last(file.floats("out.mean", 4)?)?)?;
    report.output("out.reconstruction", &channels_first(&decoded)?, file.floats("out.reconstruction", 4)?)?;
    Ok(report)
}

/// Compares the sizes of the configuration with the weights, whose names begin with `prefix`.
pub(super) fn refuse_lies(file: &GoldenFile, prefix: &str, config: &UNetConfig) -> Result<()> {
    config.check()?;
    let channels = &config.block_out_channels;
    file.expect_weight(&format!("{prefix}conv_in.weight"), &[channels[0], config.in_channels, 3, 3])?;
    file.expect_weight(&format!("{prefix}conv_out.bias"), &[config.out_channels])?;
    for (level, channels) in channels.iter().enumerate() {
        file.expect_modules(&format!("{prefix}down_blocks.{level}.resnets"), config.layers_per_block)?;
        let name = format!("{prefix}down_blocks.{level}.resnets.0.conv2.weight");
        file.expect_weight(&name, &[*channels, *channels, 3, 3])?;
    }
    let last = channels[channels.len() - 1];
    let name = format!("{prefix}mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight");
    file.expect_weight(&name, &[last, config.cross_attention_dim])
}

/// The methods of the file, by their names in it.
const METHODS: [(&str, &str, Method); 5] = [
    ("ddim", "ddim", Method::Ddim),
    ("ddim_v", "ddim_v", Method::Ddim),
    ("ddpm", "ddpm", Method::Ddpm),
    ("pndm", "pndm", Method::Pndm),
    ("euler", "euler", Method::Euler),
];

/// Compares the methods of sampling.
pub(super) fn check_sampling(file: &GoldenFile) -> Result<Report> {
    let mut report = Report::default();
    let shared: ScheduleConfig = settings(file, &["schedulers", "ddim"])?;
    let alphas: Vec<f32> = Schedule::new(&shared)?.alphas().iter().map(|alpha| *alpha as f32).collect();
    let count = alphas.len();
    report.output(
        "out.alphas_cumprod",
        &Tensor::from_vec(alphas, count, &Device::Cpu)?,
        file.floats("out.alphas_cumprod", 1)?,
    )?;
    let counts = file.value(&["steps"]).and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    for count in counts.iter().filter_map(serde_json::Value::as_u64) {
        for (name, key, method) in METHODS {
            let config: ScheduleConfig = settings(file, &["schedulers", key])?;
            check_analytic(file, &format!("{name}_{count}"), (method, &config), count as usize, &mut report)?;
        }
    }
    check_guided(file, &mut report)?;
    Ok(report)
}

/// The analytic model of the file: `eps[0] x + eps[1] step / 1000`.
fn check_analytic(
    file: &GoldenFile,
    name: &str,
    (method, config): (Method, &ScheduleConfig),
    count: usize,
    report: &mut Report,
) -> Result<()> {
    let factors = file.value(&["eps"]).and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let factor = |index: usize| factors.get(index).and_then(serde_json::Value::as_f64).unwrap_or(0.0) as f32;
    let (of_sample, of_step) = (factor(0), factor(1));
    let sampler = Sampler::new(&Schedule::new(config)?, method, count, method.spacing())?;
    let noise = file.floats("in.ddpm_noise", 5)?;
    let model = |sample: &[f32], step: f32| -> Result<Vec<f32>> {
        Ok(sample.iter().map(|x| of_sample * x + of_step * step / 1000.0).collect())
    };
    check_run(file, name, sampler, (file.floats("in.x", 4)?, Some(noise)), model, report)
}

/// Compares the steps and all samples of a run that begins with the given latents.
fn check_run(
    file: &GoldenFile,
    name: &str,
    mut sampler: Sampler,
    (start, noise): (&Tensor, Option<&Tensor>),
    model: impl Fn(&[f32], f32) -> Result<Vec<f32>>,
    report: &mut Report,
) -> Result<()> {
    let steps = format!("out.{name}.timesteps");
    let found = sampler.steps().to_vec();
    if file.tensor(&steps)?.dtype() == candle_core::DType::I64 {
        let found: Vec<i64> = found.iter().map(|step| *step as i64).collect();
        report.exact(&steps, &found, &file.integers(&steps)?);
    } else {
        let count = found.len();
        report.output(&steps, &Tensor::from_vec(found, count, &Device::Cpu)?, file.floats(&steps, 1)?)?;
    }
    let sigmas = format!("out.{name}.sigmas");
    if file.find(&sigmas).is_some() {
        let found: Vec<f32> = sampler.sigmas().iter().map(|sigma| *sigma as f32).collect();
        let count = found.len();
        report.output(&sigmas, &Tensor::from_vec(found, count, &Device::Cpu)?, file.floats(&sigmas, 1)?)?;
    }
    let first = sampler.first_deviation();
    let mut sample: Vec<f32> = host::read(start)?.into_iter().map(|x| first * x).collect();
    let mut samples = Vec::new();
    while let Some(step) = sampler.next_step() {
        let factor = sampler.input_factor();
        let input: Vec<f32> = sample.iter().map(|x| factor * x).collect();
        let output = model(&input, step)?;
        let place = samples.len() / sample.len().max(1);
        let drawn = match noise.filter(|_| sampler.needs_noise()) {
            Some(noise) if place < noise.dims()[0] => Some(host::read(&noise.get(place)?)?),
            _ => None,
        };
        sampler.advance(&mut sample, &output, drawn.as_deref())?;
        samples.extend_from_slice(&sample);
    }
    let name = format!("out.{name}.samples");
    let expected = file.tensor(&name)?;
    let shape = [&[samples.len() / sample.len().max(1)], start.dims()].concat();
    report.output(&name, &Tensor::from_vec(samples, shape, &Device::Cpu)?, expected)
}

/// Compares sampling with guidance, by the U-Net of the file.
fn check_guided(file: &GoldenFile, report: &mut Report) -> Result<()> {
    let config: UNetConfig = settings(file, &["unet"])?;
    refuse_lies(file, "unet.", &config)?;
    let mut parameters = Parameters::new();
    let model = UNet::new(Builder::new(&mut parameters, RngKey::new(0)).scope("unet"), &config)?;
    file.load(&mut parameters)?;
    let context = Context::inference(&parameters);
    let latents = file.floats("in.latent", 4)?;
    let [with, without] = ["in.cond", "in.uncond"]
        .map(|name| Ok::<_, ParityError>(flowmill_nn::Value::plain(file.floats(name, 3)?.clone())?));
    let (with, without) = (with?, without?);
    let shape = latents.dims().to_vec();
    let predict = |sample: &[f32], step: f32, conditions: &flowmill_nn::Value| -> Result<Vec<f32>> {
        let latents = channels_last(&Tensor::from_slice(sample, shape.as_slice(), &Device::Cpu)?)?;
        let predicted = model.forward(&context, &latents, &[step], conditions)?;
        Ok(host::read(&channels_first(&predicted)?)?)
    };
    let start = host::read(latents)?;
    for (name, conditions) in [("out.eps_cond", &with), ("out.eps_uncond", &without)] {
        let found = predict(&start, 801.0, conditions)?;
        report.output(name, &Tensor::from_vec(found, shape.as_slice(), &Device::Cpu)?, file.floats(name, 4)?)?;
    }
    let (scale, count) = (file.number(&["guidance_scale"])? as f32, file.size(&["guided_steps"])?);
    for (key, method) in [("ddim", Method::Ddim), ("pndm", Method::Pndm), ("euler", Method::Euler)] {
        let config: ScheduleConfig = settings(file, &["schedulers", key])?;
        let sampler = Sampler::new(&Schedule::new(&config)?, method, count, method.spacing())?;
        let model = |sample: &[f32], step: f32| -> Result<Vec<f32>> {
            Ok(guided(&predict(sample, step, &with)?, &predict(sample, step, &without)?, scale))
        };
        check_run(file, &format!("guided_{key}"), sampler, (latents, None), model, report)?;
    }
    Ok(())
}
