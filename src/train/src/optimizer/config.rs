//! The recipe's `optim` section.

use flowmill_nn::Parameters;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::adafactor::Adafactor;
use super::adam::{Adam, Decay};
use super::muon::{AdjustLr, Muon};
use super::prodigy::{Prodigy, ProdigyOptimizer};
use super::rule::PerParameter;
use super::sgd::Sgd;
use super::{GroupConfig, Optimizer};
use crate::TrainError;

/// The name of an optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Adam (Kingma and Ba, arXiv 1412.6980); weight decay is an L2 penalty.
    Adam,
    /// Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101).
    AdamW,
    /// Stochastic gradient descent with momentum; weight decay is an L2 penalty.
    Sgd,
    /// Adam with second moments in factored form (Shazeer and Stern, arXiv 1804.04235).
    Adafactor,
    /// AdamW that estimates its own learning rate; `lr` multiplies the estimate and is usually 1 (arXiv 2306.06101).
    Prodigy,
    /// Orthogonalized momentum for matrices, AdamW for the rest.
    Muon,
}

/// Settings of the optimizer. Settings that the chosen optimizer does not have are rejected; `null` removes a setting of a
/// base recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptimConfig {
    /// The optimizer.
    ///
    /// Counterparts: CosyVoice `optim: adam`; FLOAT and PMG AdamW.
    pub name: OptimizerName,
    /// Full learning rate, which the schedule scales. `prodigy` multiplies its own estimate by it: use 1.
    ///
    /// Counterparts: `optim_conf.lr`, `learning_rate`.
    pub lr: f64,
    /// Weight decay. Decoupled: every update multiplies the weights by `1 - rate * weight_decay`. With `adam` and
    /// `sgd` it is an L2 penalty: `weight_decay` times the weights is added to the gradient.
    ///
    /// Counterparts: `weight_decay`.
    pub weight_decay: f64,
    /// Leaves vectors and scalars (biases, gains) out of the weight decay.
    ///
    /// Counterparts: RWKVTTS's two parameter groups.
    pub decay_matrices_only: bool,
    /// Parameters with settings of their own, by name, such as `[{pattern: "sfm_head.*", lr_multiple: 2.0}]`. The
    /// first matching pattern counts; a pattern that matches nothing is an error.
    ///
    /// Counterparts: parameter groups; RWKVTTS's SFM head at twice the rate.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_none")]
    #[schemars(with = "Option<Vec<GroupConfig>>")]
    pub groups: Vec<GroupConfig>,
    /// Decay of the running means of gradients and of their squares (`adam`, `adamw`, `prodigy`, AdamW with
    /// `muon`); default `[0.9, 0.999]`.
    ///
    /// Counterparts: `betas`, `adam_beta1`, `adam_beta2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub betas: Option<[f64; 2]>,
    /// Term added to the root of the mean square (`adam`, `adamw`, `prodigy`, AdamW with `muon`), default 1e-8;
    /// lower bound on that root (`adafactor`), default 2^-23.
    ///
    /// Counterparts: `eps`, `adam_epsilon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// Share of the running sum (`sgd`, default 0.9) or mean (`muon`, default 0.95) of gradients that each update keeps.
    ///
    /// Counterparts: `momentum`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Looks ahead by one update of that sum or mean (`sgd`, default false; `muon`, default true).
    ///
    /// Counterparts: `nesterov`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nesterov: Option<bool>,
    /// Share of each new gradient that is left out (`sgd`); default 0.
    ///
    /// Counterparts: `dampening`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dampening: Option<f64>,
    /// Exponent of the decay of the moments (`adafactor`); default -0.8.
    ///
    /// Counterparts: `beta2_decay`, `decay_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_rate: Option<f64>,
    /// Lower bound on a parameter's size (`adafactor`); default 1e-3.
    ///
    /// Counterparts: `eps[1]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter_eps: Option<f64>,
    /// Largest update, as root mean square; larger ones are scaled down to it (`adafactor`); default 1.
    ///
    /// Counterparts: `d`, `clip_threshold`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_threshold: Option<f64>,
    /// Decay of the sums in the estimate (`prodigy`); default the root of the second beta.
    ///
    /// Counterparts: `beta3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta3: Option<f64>,
    /// Initial estimate (`prodigy`); default 1e-6.
    ///
    /// Counterparts: `d0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d0: Option<f64>,
    /// Factor on the estimate (`prodigy`); default 1.
    ///
    /// Counterparts: `d_coef`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d_coef: Option<f64>,
    /// Largest factor by which the estimate may grow in one update (`prodigy`); default no limit.
    ///
    /// Counterparts: `growth_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_rate: Option<f64>,
    /// Corrects for moments that start at zero (`prodigy`); default false.
    ///
    /// Counterparts: `use_bias_correction`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias_correction: Option<bool>,
    /// Keeps the rate out of the estimate's denominator, for schedules with a warm-up (`prodigy`); default false.
    ///
    /// Counterparts: `safeguard_warmup`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safeguard_warmup: Option<bool>,
    /// Newton-Schulz iterations (`muon`), 1 to 99; default 5.
    ///
    /// Counterparts: `ns_steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_steps: Option<u32>,
    /// Adjustment of the learning rate to a matrix's shape (`muon`); default `match_rms_adamw`.
    ///
    /// Counterparts: `adjust_lr_fn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adjust_lr: Option<AdjustLr>,
    /// Learning rate of AdamW for parameters that are not matrices, as a multiple of `lr` (`muon`); default 1.
    ///
    /// Counterparts: a second optimizer's `lr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest_lr_multiple: Option<f64>,
}

/// Reads a list; null is an empty one.
fn null_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<GroupConfig>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            name: OptimizerName::AdamW,
            lr: 1e-3,
            weight_decay: 0.0,
            decay_matrices_only: false,
            groups: Vec::new(),
            betas: None,
            eps: None,
            momentum: None,
            nesterov: None,
            dampening: None,
            decay_rate: None,
            parameter_eps: None,
            clip_threshold: None,
            beta3: None,
            d0: None,
            d_coef: None,
            growth_rate: None,
            bias_correction: None,
            safeguard_warmup: None,
            ns_steps: None,
            adjust_lr: None,
            rest_lr_multiple: None,
        }
    }
}

/// An optimizer with all of its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// `adam` and `adamw`.
    Adam(Adam),
    /// `sgd`.
    Sgd(Sgd),
    /// `adafactor`.
    Adafactor(Adafactor),
    /// `prodigy`.
    Prodigy(Prodigy),
    /// `muon`.
    Muon(Muon),
}

impl Rule {
    /// Builds the optimizer over the trainable parameters, with empty state; rate, decay and groups come from the configuration.
    pub fn build(self, config: &OptimConfig, parameters: &Parameters) -> Result<Box<dyn Optimizer>, TrainError> {
        Ok(match self {
            Self::Adam(rule) => Box::new(PerParameter::new(rule, config, parameters)?),
            Self::Sgd(rule) => Box::new(PerParameter::new(rule, config, parameters)?),
            Self::Adafactor(rule) => Box::new(PerParameter::new(rule, config, parameters)?),
            Self::Prodigy(rule) => Box::new(ProdigyOptimizer::new(rule, config, parameters)?),
            Self::Muon(rule) => Box::new(PerParameter::new(rule, config, parameters)?),
        })
    }
}

fn refuse<T>(key: &'static str, reason: String) -> Result<T, TrainError> {
    Err(TrainError::Config { key, reason })
}

impl OptimConfig {
    /// Builds the optimizer over the trainable parameters, with empty state.
    ///
    /// # Errors
    /// [`TrainError::Config`] as in [`rule`](Self::rule); also when there is no memory for the state.
    pub fn build(&self, parameters: &Parameters) -> Result<Box<dyn Optimizer>, TrainError> {
        self.rule()?.build(self, parameters)
    }

    pub(crate) fn check(&self) -> Result<(), TrainError> {
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return refuse("optim.lr", format!("{} is not a positive number", self.lr));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return refuse("optim.weight_decay", format!("{} is negative or not a number", self.weight_decay));
        }
        self.rule()?;
        self.groups.iter().try_for_each(|group| group.check(self.name))
    }

    /// Returns the optimizer with its settings.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a setting of another optimizer, or one that is out of range.
    pub fn rule(&self) -> Result<Rule, TrainError> {
        self.refuse_foreign()?;
        Ok(match self.name {
            OptimizerName::Adam => Rule::Adam(self.adam(Decay::Gradient)?),
            OptimizerName::AdamW => Rule::Adam(self.adam(Decay::Weights)?),
            OptimizerName::Sgd => Rule::Sgd(self.sgd()?),
            OptimizerName::Adafactor => Rule::Adafactor(self.adafactor()?),
            OptimizerName::Prodigy => Rule::Prodigy(self.prodigy()?),
            OptimizerName::Muon => Rule::Muon(self.muon()?),
        })
    }

    /// Fails for a setting that the optimizer does not have, which must be a mistake.
    fn refuse_foreign(&self) -> Result<(), TrainError> {
        use OptimizerName::{Adafactor, Adam, AdamW, Muon, Prodigy, Sgd};
        let settings: [(&'static str, bool, &[OptimizerName]); 17] = [
            ("optim.betas", self.betas.is_some(), &[Adam, AdamW, Prodigy, Muon]),
            ("optim.eps", self.eps.is_some(), &[Adam, AdamW, Adafactor, Prodigy, Muon]),
            ("optim.momentum", self.momentum.is_some(), &[Sgd, Muon]),
            ("optim.nesterov", self.nesterov.is_some(), &[Sgd, Muon]),
            ("optim.dampening", self.dampening.is_some(), &[Sgd]),
            ("optim.decay_rate", self.decay_rate.is_some(), &[Adafactor]),
            ("optim.parameter_eps", self.parameter_eps.is_some(), &[Adafactor]),
            ("optim.clip_threshold", self.clip_threshold.is_some(), &[Adafactor]),
            ("optim.beta3", self.beta3.is_some(), &[Prodigy]),
            ("optim.d0", self.d0.is_some(), &[Prodigy]),
            ("optim.d_coef", self.d_coef.is_some(), &[Prodigy]),
            ("optim.growth_rate", self.growth_rate.is_some(), &[Prodigy]),
            ("optim.bias_correction", self.bias_correction.is_some(), &[Prodigy]),
            ("optim.safeguard_warmup", self.safeguard_warmup.is_some(), &[Prodigy]),
            ("optim.ns_steps", self.ns_steps.is_some(), &[Muon]),
            ("optim.adjust_lr", self.adjust_lr.is_some(), &[Muon]),
            ("optim.rest_lr_multiple", self.rest_lr_multiple.is_some(), &[Muon]),
        ];
        let foreign = settings.into_iter().find(|(_, given, owners)| *given && !owners.contains(&self.name));
        let Some((key, _, owners)) = foreign else { return Ok(()) };
        let name = |name: OptimizerName| format!("{name:?}").to_lowercase();
        let owners = owners.iter().map(|owner| name(*owner)).collect::<Vec<_>>().join(", ");
        let name = name(self.name);
        refuse(
            key,
            format!(
                "is a setting of {owners}; optim.name is {name}: leave it out, or set {key}: null where a base recipe gives it"
            ),
        )
    }

    fn adam(&self, decay: Decay) -> Result<Adam, TrainError> {
        Ok(Adam { betas: self.betas()?, eps: positive("optim.eps", self.eps, 1e-8)?, decay })
    }

    fn betas(&self) -> Result<[f64; 2], TrainError> {
        let betas = self.betas.unwrap_or([0.9, 0.999]);
        betas.iter().try_for_each(|beta| share("optim.betas", Some(*beta), 0.0).map(drop))?;
        Ok(betas)
    }

    fn sgd(&self) -> Result<Sgd, TrainError> {
        let momentum = share("optim.momentum", self.momentum, 0.9)?;
        let dampening = share("optim.dampening", self.dampening, 0.0)?;
        let nesterov = self.nesterov.unwrap_or(false);
        if nesterov && (momentum == 0.0 || dampening != 0.0) {
            return refuse("optim.nesterov", "needs a momentum above 0, and no dampening".to_owned());
        }
        Ok(Sgd { momentum, dampening, nesterov })
    }

    fn adafactor(&self) -> Result<Adafactor, TrainError> {
        let decay_rate = self.decay_rate.unwrap_or(-0.8);
        if !(-1.0..0.0).contains(&decay_rate) {
            return refuse("optim.decay_rate", format!("{decay_rate} is not at least -1 and below 0"));
        }
        Ok(Adafactor {
            decay_rate,
            eps: positive("optim.eps", self.eps, f64::from(f32::EPSILON))?,
            parameter_eps: positive("optim.parameter_eps", self.parameter_eps, 1e-3)?,
            clip_threshold: positive("optim.clip_threshold", self.clip_threshold, 1.0)?,
        })
    }

    fn prodigy(&self) -> Result<Prodigy, TrainError> {
        let growth_rate = self.growth_rate.unwrap_or(f64::INFINITY);
        if growth_rate.is_nan() || growth_rate < 1.0 {
            return refuse("optim.growth_rate", format!("{growth_rate} is less than 1"));
        }
        Ok(Prodigy {
            betas: self.betas()?,
            beta3: self.beta3.map(|beta3| share("optim.beta3", Some(beta3), 0.0)).transpose()?,
            eps: positive("optim.eps", self.eps, 1e-8)?,
            d0: positive("optim.d0", self.d0, 1e-6)?,
            d_coef: positive("optim.d_coef", self.d_coef, 1.0)?,
            growth_rate,
            bias_correction: self.bias_correction.unwrap_or(false),
            safeguard_warmup: self.safeguard_warmup.unwrap_or(false),
        })
    }

    fn muon(&self) -> Result<Muon, TrainError> {
        let ns_steps = self.ns_steps.unwrap_or(5);
        if !(1..100).contains(&ns_steps) {
            return refuse("optim.ns_steps", format!("{ns_steps} is not between 1 and 99"));
        }
        Ok(Muon {
            momentum: share("optim.momentum", self.momentum, 0.95)?,
            nesterov: self.nesterov.unwrap_or(true),
            ns_steps,
            ns_coefficients: [3.4445, -4.775, 2.0315],
            eps: 1e-7,
            adjust_lr: self.adjust_lr.unwrap_or(AdjustLr::MatchRmsAdamw),
            rest: self.adam(Decay::Weights)?,
            rest_lr_multiple: positive("optim.rest_lr_multiple", self.rest_lr_multiple, 1.0)?,
        })
    }
}

/// Returns a number above 0.
fn positive(key: &'static str, value: Option<f64>, default: f64) -> Result<f64, TrainError> {
    let value = value.unwrap_or(default);
    if value > 0.0 && value.is_finite() { Ok(value) } else { refuse(key, format!("{value} is not a positive number")) }
}

/// Returns a number from 0 up to, but not including, 1.
fn share(key: &'static str, value: Option<f64>, default: f64) -> Result<f64, TrainError> {
    let value = value.unwrap_or(default);
    if (0.0..1.0).contains(&value) {
        Ok(value)
    } else {
        refuse(key, format!("{value} must be at least 0 and less than 1"))
    }
}
