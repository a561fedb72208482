//! Comparison of schedules: learning rates at every step.

use serde_json::Value;

use super::settings::Settings;
use super::{Compared, Result, Tensors, compare, tensor};
use crate::schedule::{Horizon, Schedule, ScheduleConfig, ScheduleName};

pub(super) fn check(config: &Value, tensors: &Tensors) -> Result<Vec<Compared>> {
    let Some(schedules) = config.get("schedules").and_then(Value::as_object) else { return Ok(Vec::new()) };
    schedules.iter().map(|(name, settings)| check_one(tensors, name, settings)).collect()
}

fn check_one(tensors: &Tensors, name: &str, settings: &Value) -> Result<Compared> {
    let settings = Settings::new("schedules", name, settings)?;
    let schedule = schedule(name, &settings)?;
    for told in ["steps", "source", "note"] {
        settings.value(told);
    }
    settings.finish()?;
    let full_name = format!("out.schedule.{name}");
    let expected = tensor(tensors, &full_name)?;
    let found: Vec<f64> = (0..expected.elem_count() as u64).map(|step| schedule.rate(step, 0)).collect();
    compare("schedule", &full_name, &found, expected)
}

/// Returns the schedule for a name; a number at its end belongs to one of its settings.
fn schedule(name: &str, settings: &Settings<'_>) -> Result<Schedule> {
    let base = settings.number("base_lr", None)?;
    let kind = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_' || c == '.');
    let warmup = || settings.count("warmup_steps", Some(0));
    let named = |name| ScheduleConfig { name, ..ScheduleConfig::default() };
    let (config, steps) = match kind {
        "constant" => (named(ScheduleName::Constant), 0),
        "warmup_lr" => (ScheduleConfig { warmup_steps: warmup()?, ..named(ScheduleName::WarmupLr) }, 0),
        "noam_hold_annealing" => {
            let config = ScheduleConfig {
                warmup_steps: warmup()?,
                hold_steps: Some(settings.count("hold_steps", Some(0))?),
                decay_rate: Some(settings.number("decay_rate", Some(0.5))?),
                final_lr: Some(settings.number("min_lr", Some(0.0))?),
                ..named(ScheduleName::NoamHoldAnnealing)
            };
            (config, settings.count("max_steps", None)?)
        }
        "cosine_floor" | "cosine" => {
            let final_lr = Some(settings.number("eta_min", Some(0.0))?);
            (ScheduleConfig { final_lr, ..named(ScheduleName::Cosine) }, settings.count("T_max", None)?)
        }
        "cosine_warmup_floor" | "cosine_warmup" => {
            let final_ratio = settings.number("final_ratio", Some(0.0))?;
            let config = ScheduleConfig { warmup_steps: warmup()?, final_ratio, ..named(ScheduleName::WarmupCosine) };
            (config, settings.count("total", None)?)
        }
        "linear_to_zero" | "linear_to_zero_warmup" => {
            let config = ScheduleConfig { warmup_steps: warmup()?, ..named(ScheduleName::WarmupLinear) };
            (config, settings.count("total", None)?)
        }
        "onecycle" => {
            let top = settings.number("max_lr", Some(base))?;
            let config = ScheduleConfig {
                rise: Some(settings.number("pct_start", Some(0.3))?),
                div_factor: Some(settings.number("div_factor", Some(25.0))?),
                final_div_factor: Some(settings.number("final_div_factor", Some(1e4))?),
                ..named(ScheduleName::OneCycle)
            };
            let steps = settings.count("total_steps", None)?;
            return Ok(Schedule::new(&config, top, Horizon { steps, epochs: 0 }));
        }
        _ => return settings.refuse("", "is a schedule that is not known here"),
    };
    Ok(Schedule::new(&config, base, Horizon { steps, epochs: 0 }))
}
