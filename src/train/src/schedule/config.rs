//! The recipe's `schedule` section.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::TrainError;

/// Default length of the warm-up.
const WARMUP_STEPS: u64 = 2500;
/// Default floor, as a share of the full rate.
const FINAL_RATIO: f64 = 0.01;

/// The shape of the learning rate over the run. Formulas: docs/TRAINING.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleName {
    /// The same rate at every step.
    Constant,
    /// Linear warm-up from 0, then the full rate: `constant_with_warmup` of Hugging Face.
    WarmupConstant,
    /// Linear warm-up, then falling with the inverse square root of the step: `WarmupLR` of ESPnet, WeNet and CosyVoice.
    WarmupLr,
    /// Linear warm-up from 0, then falling with the inverse square root of the step on its own time scale: `inverse_sqrt` of Hugging
    /// Face.
    WarmupInverseSqrt,
    /// Warm-up and inverse square root as in "Attention is all you need": `width^-0.5 min(n^-0.5, n warmup^-1.5)`, times the
    /// full rate.
    Noam,
    /// Linear warm-up, the full rate for some steps, then falling with a power of the step to a floor: `NoamHoldAnnealing` of NeMo and
    /// CosyVoice.
    NoamHoldAnnealing,
    /// Half a cosine from the full rate down to the floor at the horizon: `CosineAnnealingLR` of PyTorch.
    Cosine,
    /// Linear warm-up from the floor to the full rate, then half a cosine down to the floor at the horizon.
    WarmupCosine,
    /// Linear warm-up from 0, then linearly to 0 at the horizon: `linear` of Hugging Face.
    WarmupLinear,
    /// Up along half a cosine, then down along another one to almost 0: `OneCycleLR` of PyTorch (Smith and Topin, arXiv 1708.07120).
    OneCycle,
}

impl ScheduleName {
    /// Returns whether the rate depends on the length of the whole run.
    pub fn has_horizon(self) -> bool {
        match self {
            Self::Constant | Self::WarmupConstant | Self::WarmupLr | Self::WarmupInverseSqrt | Self::Noam => false,
            // It reaches its floor only after the last step of the run.
            Self::NoamHoldAnnealing => false,
            Self::Cosine | Self::WarmupCosine | Self::WarmupLinear | Self::OneCycle => true,
        }
    }
}

impl fmt::Display for ScheduleName {
    /// Writes the name as in a recipe.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The unit that a schedule counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Steps.
    #[default]
    Step,
    /// Epochs: the rate is constant within an epoch, and the settings count epochs instead of steps.
    Epoch,
}

/// The learning rate over the run. Settings that the shape does not have are rejected; `null` removes a setting of a
/// base recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// The shape.
    ///
    /// Counterparts: `scheduler`, `lr_scheduler`.
    pub name: ScheduleName,
    /// The unit that the schedule counts.
    ///
    /// Counterparts: a scheduler stepped once per epoch.
    #[serde(skip_serializing_if = "is_per_step")]
    pub per: Per,
    /// Steps until the full rate is reached, in shapes with a warm-up.
    ///
    /// Counterparts: `warmup_steps`, `lr_warmup_steps`.
    #[serde(deserialize_with = "default_warmup_steps")]
    #[schemars(with = "Option<u64>")]
    pub warmup_steps: u64,
    /// The floor as a share of the full rate (`cosine`, `warmup_cosine`, `noam_hold_annealing`).
    ///
    /// Counterparts: FLOAT's 1 %.
    #[serde(deserialize_with = "default_final_ratio")]
    #[schemars(with = "Option<f64>")]
    pub final_ratio: f64,
    /// The floor as a learning rate, instead of `final_ratio`.
    ///
    /// Counterparts: `learning_rate_final`, `eta_min`, `min_lr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_lr: Option<f64>,
    /// Steps at the full rate (`noam_hold_annealing`); default 0.
    ///
    /// Counterparts: `hold_steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_steps: Option<u64>,
    /// Power of the step that the rate falls with (`noam_hold_annealing`); default 0.5.
    ///
    /// Counterparts: `decay_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_rate: Option<f64>,
    /// Steps beyond the warm-up after which the rate has fallen to 1/√2 (`warmup_inverse_sqrt`); default
    /// `warmup_steps`.
    ///
    /// Counterparts: `timescale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timescale: Option<u64>,
    /// Width of the model (`noam`); default 512.
    ///
    /// Counterparts: `model_size`, `d_model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_width: Option<u64>,
    /// Share of the run in which the rate rises (`one_cycle`); default 0.3.
    ///
    /// Counterparts: `pct_start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<f64>,
    /// Ratio of the full rate to that of the first step (`one_cycle`); default 25.
    ///
    /// Counterparts: `div_factor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub div_factor: Option<f64>,
    /// Ratio of the rate of the first step to that of the last (`one_cycle`); default 10000.
    ///
    /// Counterparts: `final_div_factor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_div_factor: Option<f64>,
}

/// The shapes with a warm-up.
const WARM: &[ScheduleName] = {
    use ScheduleName::{
        Noam, NoamHoldAnnealing, WarmupConstant, WarmupCosine, WarmupInverseSqrt, WarmupLinear, WarmupLr,
    };
    &[WarmupConstant, WarmupLr, WarmupInverseSqrt, Noam, NoamHoldAnnealing, WarmupCosine, WarmupLinear]
};

/// The shapes with a floor.
const FLOORED: &[ScheduleName] = &[ScheduleName::Cosine, ScheduleName::WarmupCosine, ScheduleName::NoamHoldAnnealing];

/// Settings that only some shapes have, and these shapes.
const SETTINGS: [(&str, &[ScheduleName]); 10] = [
    ("schedule.warmup_steps", WARM),
    ("schedule.final_ratio", FLOORED),
    ("schedule.final_lr", FLOORED),
    ("schedule.hold_steps", &[ScheduleName::NoamHoldAnnealing]),
    ("schedule.decay_rate", &[ScheduleName::NoamHoldAnnealing]),
    ("schedule.timescale", &[ScheduleName::WarmupInverseSqrt]),
    ("schedule.model_width", &[ScheduleName::Noam]),
    ("schedule.rise", &[ScheduleName::OneCycle]),
    ("schedule.div_factor", &[ScheduleName::OneCycle]),
    ("schedule.final_div_factor", &[ScheduleName::OneCycle]),
];

fn default_warmup_steps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(WARMUP_STEPS))
}

fn default_final_ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(FINAL_RATIO))
}

fn is_per_step(per: &Per) -> bool {
    *per == Per::Step
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            name: ScheduleName::WarmupLr,
            per: Per::Step,
            warmup_steps: WARMUP_STEPS,
            final_ratio: FINAL_RATIO,
            final_lr: None,
            hold_steps: None,
            decay_rate: None,
            timescale: None,
            model_width: None,
            rise: None,
            div_factor: None,
            final_div_factor: None,
        }
    }
}

fn refuse(key: &'static str, reason: impl Into<String>) -> Result<(), TrainError> {
    Err(TrainError::Config { key, reason: reason.into() })
}

impl ScheduleConfig {
    /// Checks that the settings can be used with the full rate `base`.
    pub(crate) fn check(&self, base: f64) -> Result<(), TrainError> {
        use ScheduleName::{Noam, NoamHoldAnnealing, WarmupConstant, WarmupInverseSqrt, WarmupLr};
        let optional = [
            ("schedule.final_lr", self.final_lr.is_some()),
            ("schedule.hold_steps", self.hold_steps.is_some()),
            ("schedule.decay_rate", self.decay_rate.is_some()),
            ("schedule.timescale", self.timescale.is_some()),
            ("schedule.model_width", self.model_width.is_some()),
            ("schedule.rise", self.rise.is_some()),
            ("schedule.div_factor", self.div_factor.is_some()),
            ("schedule.final_div_factor", self.final_div_factor.is_some()),
        ];
        self.refuse_foreign(&|key| optional.contains(&(key, true)))?;
        let needs_warmup = [WarmupLr, WarmupConstant, WarmupInverseSqrt, Noam, NoamHoldAnnealing];
        if needs_warmup.contains(&self.name) && self.warmup_steps == 0 {
            let reason = "must be at least 1 for this schedule; use `name: constant`, `cosine` or `warmup_linear` for no warm-up";
            return refuse("schedule.warmup_steps", reason);
        }
        if !(0.0..=1.0).contains(&self.final_ratio) {
            return refuse("schedule.final_ratio", format!("{} is not between 0 and 1", self.final_ratio));
        }
        if let Some(floor) = self.final_lr.filter(|floor| !(0.0..=base).contains(floor)) {
            return refuse("schedule.final_lr", format!("{floor} is not between 0 and optim.lr, which is {base}"));
        }
        if let Some(rate) = self.decay_rate.filter(|rate| !(*rate > 0.0 && *rate <= 10.0)) {
            return refuse("schedule.decay_rate", format!("{rate} is not above 0, up to 10"));
        }
        for (key, value) in [("schedule.timescale", self.timescale), ("schedule.model_width", self.model_width)] {
            if value == Some(0) {
                return refuse(key, "must be at least 1");
            }
        }
        if let Some(rise) = self.rise.filter(|rise| !(*rise > 0.0 && *rise < 1.0)) {
            return refuse("schedule.rise", format!("{rise} is not between 0 and 1"));
        }
        let factors = [("schedule.div_factor", self.div_factor), ("schedule.final_div_factor", self.final_div_factor)];
        for (key, factor) in factors {
            if let Some(factor) = factor.filter(|factor| !(*factor >= 1.0 && factor.is_finite())) {
                return refuse(key, format!("{factor} is not a number of 1 or more"));
            }
        }
        Ok(())
    }

    /// Returns whether the shape has a setting (`schedule.warmup_steps`).
    pub fn has(&self, setting: &str) -> bool {
        SETTINGS.iter().any(|(key, owners)| *key == setting && owners.contains(&self.name))
    }

    /// Fails for a setting among the `given` ones that the shape does not have, which must be a mistake.
    ///
    /// # Errors
    /// [`TrainError::Config`] with the shapes that have the setting.
    pub fn refuse_foreign(&self, given: &dyn Fn(&'static str) -> bool) -> Result<(), TrainError> {
        let foreign = SETTINGS.into_iter().find(|(key, owners)| given(key) && !owners.contains(&self.name));
        let Some((key, owners)) = foreign else { return Ok(()) };
        let owners = owners.iter().map(ScheduleName::to_string).collect::<Vec<_>>().join(", ");
        let name = self.name;
        refuse(
            key,
            format!(
                "is a setting of {owners}; schedule.name is {name}, which has none: leave it out, or set {key}: null where a base recipe \
                 gives it"
            ),
        )
    }
}
