//! Comparison of optimizers: parameters after given gradients.

use candle_core::Device;
use flowmill_nn::Parameters;
use serde_json::Value;

use super::settings::Settings;
use super::{Compared, Result, Tensors, bad_config, bad_tensor, compare, elements, gradients, parameters, tensor};
use crate::optimizer::{Adafactor, Adam, AdjustLr, Decay, Muon, OptimConfig, Prodigy, Rule, Sgd, Update};

pub(super) fn check(config: &Value, tensors: &Tensors, device: &Device) -> Result<Vec<Compared>> {
    let Some(optimizers) = config.get("optimisers").and_then(Value::as_object) else { return Ok(Vec::new()) };
    let steps = config.get("steps").and_then(Value::as_u64).ok_or_else(|| bad_config("steps", "is not a count"))?;
    let kept: Option<Vec<u64>> =
        config.get("kept_steps").and_then(Value::as_array).and_then(|steps| steps.iter().map(Value::as_u64).collect());
    let kept = kept.ok_or_else(|| bad_config("kept_steps", "is not a list of steps"))?;
    if let Some(step) = kept.iter().find(|step| !(1..=steps).contains(step)) {
        return Err(bad_config("kept_steps", format!("has {step}, which is not a step from 1 to {steps}")));
    }
    let mut compared = Vec::new();
    for (name, settings) in optimizers {
        let settings = Settings::new("optimisers", name, settings)?;
        compared.extend(Problem { name, steps, kept: &kept, tensors, device }.check(&settings)?);
        settings.finish()?;
    }
    Ok(compared)
}

/// One optimizer of a file.
struct Problem<'a> {
    name: &'a str,
    steps: u64,
    kept: &'a [u64],
    tensors: &'a Tensors,
    device: &'a Device,
}

impl Problem<'_> {
    fn check(&self, settings: &Settings<'_>) -> Result<Vec<Compared>> {
        let prefix = format!("out.{}.", self.name);
        let names: Vec<&str> = self.tensors.keys().filter_map(|name| name.strip_prefix(prefix.as_str())).collect();
        let mut parameters = parameters(self.tensors, names.iter().copied(), self.device)?;
        let (config, rule) = rule(settings)?;
        let mut optimizer = rule.build(&config, &parameters)?;
        let mut found: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
        for step in 1..=self.steps {
            // Steps are limited by the gradients in the file.
            let gradients = gradients(self.tensors, &parameters, (step - 1) as usize)?;
            optimizer.step(&mut parameters, &gradients, Update::new(config.lr, 1.0))?;
            for _ in self.kept.iter().filter(|kept| **kept == step) {
                keep(&mut found, &parameters)?;
            }
            if names.is_empty() {
                break;
            }
        }
        let compare = |(name, found): (&str, Vec<f64>)| {
            let name = format!("{prefix}{name}");
            let expected = tensor(self.tensors, &name)?;
            if expected.dims().first() != Some(&self.kept.len()) {
                return Err(bad_tensor(
                    &name,
                    format!("is {:?}, not of {} kept steps", expected.dims(), self.kept.len()),
                ));
            }
            compare("optimizer", &name, &found, expected)
        };
        names.into_iter().zip(found).map(compare).collect()
    }
}

fn keep(found: &mut [Vec<f64>], parameters: &Parameters) -> Result<()> {
    for (found, id) in found.iter_mut().zip(parameters.ids()) {
        found.extend(elements(parameters.tensor(id))?);
    }
    Ok(())
}

/// Returns the optimizer for a library's name and settings, with the library's defaults.
fn rule(settings: &Settings<'_>) -> Result<(OptimConfig, Rule)> {
    let library = settings.text("library", None)?;
    let name = library.rsplit('.').next().unwrap_or_default();
    let lr = |default| settings.number("lr", Some(default));
    let decay = |default| settings.number("weight_decay", Some(default));
    let (lr, weight_decay, rule) = match name {
        "SGD" => (lr(1e-3)?, decay(0.0)?, Rule::Sgd(sgd(settings)?)),
        "Adam" => (lr(1e-3)?, decay(0.0)?, Rule::Adam(adam(settings, Decay::Gradient)?)),
        "AdamW" => (lr(1e-3)?, decay(0.01)?, Rule::Adam(adam(settings, Decay::Weights)?)),
        "Adafactor" => (lr(1e-2)?, decay(0.0)?, Rule::Adafactor(adafactor(settings)?)),
        "Prodigy" => (lr(1.0)?, decay(0.0)?, Rule::Prodigy(prodigy(settings)?)),
        "Muon" => (lr(1e-3)?, decay(0.1)?, Rule::Muon(muon(settings)?)),
        _ => return settings.refuse("library", format!("is `{library}`, an optimizer that is not known here")),
    };
    Ok((OptimConfig { lr, weight_decay, ..OptimConfig::default() }, rule))
}

fn sgd(settings: &Settings<'_>) -> Result<Sgd> {
    let (momentum, dampening) = (settings.number("momentum", Some(0.0))?, settings.number("dampening", Some(0.0))?);
    Ok(Sgd { momentum, dampening, nesterov: settings.flag("nesterov", false)? })
}

fn adam(settings: &Settings<'_>, decay: Decay) -> Result<Adam> {
    let decoupled = settings.flag("decoupled_weight_decay", decay == Decay::Weights)?;
    Ok(Adam {
        betas: settings.numbers("betas", [0.9, 0.999])?,
        eps: settings.number("eps", Some(1e-8))?,
        decay: if decoupled { Decay::Weights } else { Decay::Gradient },
    })
}

fn adafactor(settings: &Settings<'_>) -> Result<Adafactor> {
    let eps = match settings.value("eps").and_then(Value::as_array).map(Vec::as_slice) {
        Some([first, second]) => [first.as_f64(), second.as_f64()],
        _ => [None, None],
    };
    Ok(Adafactor {
        decay_rate: settings.number("beta2_decay", Some(-0.8))?,
        eps: eps[0].unwrap_or(f64::from(f32::EPSILON)),
        parameter_eps: eps[1].unwrap_or(1e-3),
        clip_threshold: settings.number("d", Some(1.0))?,
    })
}

fn prodigy(settings: &Settings<'_>) -> Result<Prodigy> {
    if !settings.flag("decouple", true)? {
        return settings.refuse("decouple", "is false; only decoupled weight decay is known here");
    }
    if settings.count("slice_p", Some(1))? != 1 {
        return settings.refuse("slice_p", "is not 1; only whole parameters are known here");
    }
    Ok(Prodigy {
        betas: settings.numbers("betas", [0.9, 0.999])?,
        beta3: settings.value("beta3").and_then(Value::as_f64),
        eps: settings.number("eps", Some(1e-8))?,
        d0: settings.number("d0", Some(1e-6))?,
        d_coef: settings.number("d_coef", Some(1.0))?,
        growth_rate: settings.number("growth_rate", Some(f64::INFINITY))?,
        bias_correction: settings.flag("use_bias_correction", false)?,
        safeguard_warmup: settings.flag("safeguard_warmup", false)?,
    })
}

fn muon(settings: &Settings<'_>) -> Result<Muon> {
    let adjust_lr = match settings.text("adjust_lr_fn", Some("original"))?.as_str() {
        "original" => AdjustLr::Original,
        "match_rms_adamw" => AdjustLr::MatchRmsAdamw,
        other => return settings.refuse("adjust_lr_fn", format!("is `{other}`, which is not known here")),
    };
    let ns_steps = settings.count("ns_steps", Some(5))?;
    Ok(Muon {
        momentum: settings.number("momentum", Some(0.95))?,
        nesterov: settings.flag("nesterov", true)?,
        ns_steps: u32::try_from(ns_steps.min(100)).unwrap_or(100),
        ns_coefficients: settings.numbers("ns_coefficients", [3.4445, -4.775, 2.0315])?,
        eps: settings.number("eps", Some(1e-7))?,
        adjust_lr,
        // PyTorch's Muon accepts only matrices, so this is never used for one.
        rest: Adam { betas: [0.9, 0.999], eps: 1e-8, decay: Decay::Weights },
        rest_lr_multiple: 1.0,
    })
}
