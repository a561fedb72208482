//! Groups of parameters with settings of their own, chosen by name.

use flowmill_nn::{ParameterId, Parameters};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OptimConfig, OptimizerName};
use crate::TrainError;
use crate::coverage::shorten;

/// Advice about groups of frozen base weights of adapters.
const FROZEN_BESIDE_ADAPTERS: &str = ": train.lora freezes all but the adapters; leave the group out, or set optim.groups: [] where a base \
     recipe gives groups";

/// Parameters with settings of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// The parameters' names; `*` matches any characters, such as `sfm_head.*`. Required.
    pub pattern: String,
    /// Their learning rate, as a multiple of the others'.
    #[serde(default = "one")]
    pub lr_multiple: f64,
    /// Their weight decay; by default that of the others. `decay_matrices_only` applies to it too.
    #[serde(default)]
    pub weight_decay: Option<f64>,
    /// Freezes them. They cost neither a gradient nor optimizer state.
    #[serde(default)]
    pub frozen: bool,
    /// Trains their matrices by Muon (`true`) or by AdamW (`false`); only with `name: muon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon: Option<bool>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self { pattern: String::new(), lr_multiple: 1.0, weight_decay: None, frozen: false, muon: None }
    }
}

fn one() -> f64 {
    1.0
}

impl GroupConfig {
    pub(super) fn check(&self, optimizer: OptimizerName) -> Result<(), TrainError> {
        let fail = |what: &str| {
            let reason = format!("the group `{}`: {what}", self.pattern);
            Err(TrainError::Config { key: "optim.groups", reason })
        };
        if self.pattern.is_empty() {
            return fail("its pattern is empty");
        }
        if !(self.lr_multiple > 0.0 && self.lr_multiple.is_finite()) {
            return fail(&format!(
                "lr_multiple {} is not a positive number; use `frozen: true` for none",
                self.lr_multiple
            ));
        }
        if self.weight_decay.is_some_and(|decay| !(decay >= 0.0 && decay.is_finite())) {
            return fail("weight_decay is negative or not a number");
        }
        if self.muon.is_some() && optimizer != OptimizerName::Muon {
            return fail("`muon` says which matrices Muon trains; it goes with `name: muon` only");
        }
        Ok(())
    }
}

/// Settings that apply to one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParameterSettings {
    /// The learning rate as a multiple of the step's.
    pub lr_multiple: f64,
    /// The weight decay.
    pub weight_decay: f64,
    /// True if Muon trains it when it is a matrix.
    pub muon: bool,
}

/// Freezes the parameters of frozen groups.
///
/// # Errors
/// [`TrainError::Config`] when a group's pattern matches no remaining parameter, or no parameter remains trainable.
pub fn freeze(config: &OptimConfig, parameters: &mut Parameters) -> Result<(), TrainError> {
    let fail = |reason: String| Err(TrainError::Config { key: "optim.groups", reason });
    let mut members: Vec<Vec<ParameterId>> = vec![Vec::new(); config.groups.len()];
    for id in parameters.trainable_ids() {
        if let Some(group) = group_of(config, parameters.name(id)) {
            members[group].push(id);
        }
    }
    if let Some(empty) = members.iter().position(Vec::is_empty) {
        let pattern = &config.groups[empty].pattern;
        if parameters.ids().any(|id| matches(pattern, parameters.name(id))) {
            let adapters = parameters.ids().any(|id| parameters.low_rank(id).is_some());
            let remedy = if adapters { FROZEN_BESIDE_ADAPTERS } else { "" };
            return fail(format!("`{pattern}` matches only parameters that are frozen or of an earlier group{remedy}"));
        }
        return fail(format!(
            "no parameter is called `{pattern}`; the names are {}; a base recipe's groups are left out with optim.groups: []",
            shorten(&prefixes(parameters))
        ));
    }
    for (group, members) in config.groups.iter().zip(members) {
        if group.frozen {
            members.into_iter().for_each(|id| parameters.set_trainable(id, false));
        }
    }
    match parameters.trainable_ids().next() {
        Some(_) => Ok(()),
        None => fail("every parameter is frozen: nothing is left to train".to_owned()),
    }
}

/// The settings of a parameter.
pub fn settings(config: &OptimConfig, name: &str, axes: usize) -> ParameterSettings {
    let group = group_of(config, name).map(|group| &config.groups[group]);
    let decays = !config.decay_matrices_only || axes >= 2;
    let decay = group.and_then(|group| group.weight_decay).unwrap_or(config.weight_decay);
    ParameterSettings {
        lr_multiple: group.map_or(1.0, |group| group.lr_multiple),
        weight_decay: if decays { decay } else { 0.0 },
        muon: group.and_then(|group| group.muon).unwrap_or(true),
    }
}

fn group_of(config: &OptimConfig, name: &str) -> Option<usize> {
    config.groups.iter().position(|group| matches(&group.pattern, name))
}

/// The first parts of the names, each followed by `.*`.
fn prefixes(parameters: &Parameters) -> Vec<String> {
    let mut prefixes: Vec<String> = Vec::new();
    for id in parameters.ids() {
        let name = parameters.name(id);
        let prefix = prefix(name);
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    prefixes
}

/// Returns the group that a parameter is reported under: the pattern of its group, or the first part of its name followed by `.*`.
pub(crate) fn label(config: &OptimConfig, name: &str) -> String {
    group_of(config, name).map_or_else(|| prefix(name), |group| config.groups[group].pattern.clone())
}

fn prefix(name: &str) -> String {
    name.split_once('.').map_or(name.to_owned(), |(first, _)| format!("{first}.*"))
}

/// Returns whether a name matches a pattern, in which `*` matches any number of characters, including none.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let (between, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in between.split('*') {
        let Some(found) = name.find(part) else { return false };
        name = &name[found + part.len()..];
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};

    fn group(pattern: &str) -> GroupConfig {
        GroupConfig { pattern: pattern.to_owned(), ..GroupConfig::default() }
    }

    fn parameters() -> Parameters {
        let mut parameters = Parameters::new();
        for name in ["sfm_head.proj.weight", "encoder.a.weight", "encoder.b.bias"] {
            parameters.add(name, Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap()).unwrap();
        }
        parameters
    }

    fn said(groups: Vec<GroupConfig>) -> String {
        let config = OptimConfig { groups, ..OptimConfig::default() };
        match freeze(&config, &mut parameters()).unwrap_err() {
            TrainError::Config { key: "optim.groups", reason } => reason,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("sfm_head.*", "sfm_head.proj.weight", true),
            ("sfm_head.*", "encoder.sfm_head.proj", false),
            ("*.bias", "a.b.bias", true),
            ("*.bias", "a.bias.c", false),
            ("*", "", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("a*a", "a", false),
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("*b*b", "ab", false),
            ("a**c", "abc", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error_that_names_what_there_is() {
        let error = said(vec![group("sfm_haed.*")]);
        assert!(error.contains("sfm_haed.*") && error.contains("sfm_head.*, encoder.*"), "{error}");
        let error = said(vec![group("encoder.*"), group("*.bias")]);
        assert!(error.contains("`*.bias`") && !error.contains("sfm_head.*"), "it matches, but not first: {error}");
        let error = said(vec![GroupConfig { frozen: true, ..group("*") }]);
        assert!(!error.contains("`*`"), "the pattern is right, but nothing is left: {error}");
    }

    #[test]
    fn frozen_groups_are_not_trained_and_the_first_group_that_matches_decides() {
        let head = GroupConfig { lr_multiple: 2.0, weight_decay: Some(0.5), ..group("sfm_head.*") };
        let frozen = GroupConfig { frozen: true, ..group("*.bias") };
        let config = OptimConfig {
            groups: vec![head, frozen, group("*")],
            weight_decay: 0.1,
            decay_matrices_only: true,
            ..OptimConfig::default()
        };
        let mut parameters = parameters();
        freeze(&config, &mut parameters).unwrap();
        let trained: Vec<&str> = parameters.trainable_ids().map(|id| parameters.name(id)).collect();
        assert_eq!(trained, ["sfm_head.proj.weight", "encoder.a.weight"]);
        let expected = |lr_multiple, weight_decay| ParameterSettings { lr_multiple, weight_decay, muon: true };
        let of = |name, axes| settings(&config, name, axes);
        assert_eq!(of("sfm_head.proj.weight", 2), expected(2.0, 0.5));
        assert_eq!(of("sfm_head.proj.bias", 1), expected(2.0, 0.0));
        assert_eq!(of("encoder.a.weight", 2), expected(1.0, 0.1));
    }
}
