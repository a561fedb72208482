//! Monitoring of the groups of parameters: warnings about vanishing gradients and disproportionate updates.

use std::collections::BTreeSet;

use flowmill_nn::{ParameterId, Parameters};

use crate::optimizer::{Changes, GradientNorms, OptimConfig, label};

/// A group's gradient has vanished when its norm is at most this share of the whole gradient's.
pub const VANISHED: f64 = 1e-7;
/// An update larger than this share of the weights rewrites them in ten steps; a healthy one is near 1/1000.
pub const RATIO_HIGH: f64 = 0.1;
/// Number of steps before anything is reported. Weights that start at zero are rightly rewritten by their first updates and until then
/// hold back the gradients of earlier layers; warm-ups and estimated rates begin with tiny updates.
pub const SETTLING: u64 = 20;
/// An update smaller than this share of the weights is lost in the rounding of single precision.
pub const RATIO_LOW: f64 = 1e-7;
/// A finding is reported when it holds on this number of consecutive logged steps.
pub const IN_A_ROW: u32 = 3;

/// Euclidean norms of a group at one logged step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GroupNorms {
    /// Norm of its gradient, before clipping.
    pub gradient: f64,
    /// Norm of its weights before the update.
    pub weights: f64,
    /// Norm of the update.
    pub update: f64,
}

impl GroupNorms {
    /// |update| / |weights|; `None` for weights that are all zero.
    pub fn ratio(&self) -> Option<f64> {
        (self.weights > 0.0).then(|| self.update / self.weights)
    }
}

/// A problem of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Finding {
    Vanished,
    TooLarge,
    TooSmall,
}

/// Monitors groups of parameters: those of `optim.groups`, and the others by the first part of their names.
#[derive(Debug)]
pub(crate) struct Health {
    groups: Vec<Group>,
    /// The group of each trainable parameter, in order.
    members: Vec<(ParameterId, usize)>,
    told: BTreeSet<(usize, Finding)>,
    /// The norms of the last monitored step, until they are taken.
    latest: Option<Vec<(String, GroupNorms)>>,
}

#[derive(Debug)]
struct Group {
    label: String,
    norms: GroupNorms,
    /// The last finding, and the number of consecutive logged steps on which it held.
    finding: Option<(Finding, u32)>,
}

impl Health {
    pub(crate) fn new(config: &OptimConfig, parameters: &Parameters) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        let mut members = Vec::new();
        for id in parameters.trainable_ids() {
            let label = label(config, parameters.name(id));
            let known = groups.iter().position(|group| group.label == label);
            members.push((id, known.unwrap_or(groups.len())));
            if known.is_none() {
                groups.push(Group { label, norms: GroupNorms::default(), finding: None });
            }
        }
        Self { groups, members, told: BTreeSet::new(), latest: None }
    }

    /// Takes step number `step` with learning rate `rate` into account. Returns the warnings; each finding is reported once per group.
    pub(crate) fn look(&mut self, step: u64, rate: f64, norms: &GradientNorms, changes: &Changes) -> Vec<String> {
        self.sum(norms, changes);
        let mut messages = Vec::new();
        for (index, group) in self.groups.iter_mut().enumerate() {
            let found = finding(&group.norms, norms.total, rate).filter(|_| step > SETTLING);
            group.finding = found.map(|found| match group.finding {
                Some((last, count)) if last == found => (found, count.saturating_add(1)),
                _ => (found, 1),
            });
            if let Some((found, count)) = group.finding
                && count >= IN_A_ROW
                && self.told.insert((index, found))
            {
                messages.push(message(found, group));
            }
        }
        self.latest = Some(self.groups.iter().map(|group| (group.label.clone(), group.norms)).collect());
        messages
    }

    /// Takes the groups with their norms at the last monitored step.
    pub(crate) fn take(&mut self) -> Option<Vec<(String, GroupNorms)>> {
        self.latest.take()
    }

    fn sum(&mut self, norms: &GradientNorms, changes: &Changes) {
        let mut squares = vec![[0f64; 3]; self.groups.len()];
        let mut changes = changes.0.iter().peekable();
        for ((id, group), (_, gradient)) in self.members.iter().zip(&norms.each) {
            let sums = &mut squares[*group];
            sums[0] += gradient.unwrap_or(0.0).powi(2);
            if let Some((_, change)) = changes.next_if(|(changed, _)| changed == id) {
                sums[1] += change.weights.powi(2);
                sums[2] += change.update.powi(2);
            }
        }
        for (group, sums) in self.groups.iter_mut().zip(squares) {
            let [gradient, weights, update] = sums.map(f64::sqrt);
            group.norms = GroupNorms { gradient, weights, update };
        }
    }
}

fn finding(norms: &GroupNorms, total: f64, rate: f64) -> Option<Finding> {
    if norms.gradient <= VANISHED * total {
        return Some(Finding::Vanished);
    }
    match norms.ratio()? {
        ratio if ratio > RATIO_HIGH => Some(Finding::TooLarge),
        ratio if ratio < RATIO_LOW && rate > 0.0 => Some(Finding::TooSmall),
        _ => None,
    }
}

fn message(finding: Finding, Group { label, norms, .. }: &Group) -> String {
    let ratio = norms.ratio().unwrap_or(0.0);
    match finding {
        Finding::Vanished => format!(
            "WARNING: the gradient of `{label}` has vanished (norm {:.1e}): these parameters no longer learn; freeze them, or \
             check the layers between them and the loss",
            norms.gradient
        ),
        Finding::TooLarge => format!(
            "WARNING: each update changes `{label}` by {:.0} % of its size: expect divergence; try a lower learning rate, or lr_multiple \
             below 1 for this group in optim.groups",
            100.0 * ratio
        ),
        Finding::TooSmall => format!(
            "WARNING: each update changes `{label}` by {ratio:.0e} of its size, which is lost in rounding; try a higher learning rate, or \
             lr_multiple above 1 for this group in optim.groups"
        ),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::optimizer::{Change, GroupConfig};

    /// Two groups of one parameter each, and the norms and changes of a step.
    fn look(
        health: &mut Health,
        parameters: &Parameters,
        step: u64,
        gradients: [f64; 2],
        updates: [f64; 2],
    ) -> Vec<String> {
        let ids: Vec<ParameterId> = parameters.trainable_ids().collect();
        let total = gradients.iter().map(|norm| norm * norm).sum::<f64>().sqrt();
        let each = ids.iter().zip(gradients).map(|(id, norm)| (*id, Some(norm))).collect();
        let change = |update| Change { weights: 2.0, update };
        let changes = Changes(ids.iter().zip(updates).map(|(id, update)| (*id, change(update))).collect());
        health.look(step, 1e-3, &GradientNorms { total, each }, &changes)
    }

    fn parameters() -> Parameters {
        let mut parameters = Parameters::new();
        for name in ["encoder.a.weight", "head.weight"] {
            parameters.add(name, Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap()).unwrap();
        }
        parameters
    }

    #[test]
    fn each_cause_is_told_once_when_it_lasts() {
        let parameters = parameters();
        let group = GroupConfig { pattern: "*head*".to_owned(), ..GroupConfig::default() };
        let config = OptimConfig { groups: vec![group], ..OptimConfig::default() };
        let mut health = Health::new(&config, &parameters);
        let mut told = Vec::new();
        let steps = [
            ([1.0, 1.0], [2e-3, 2e-3]), // sound
            ([1.0, 0.0], [2e-3, 2e-3]), // passes
            ([1.0, 1.0], [2e-3, 2e-3]),
            ([1.0, 1e-9], [2e-3, 2e-3]),
            ([1.0, 1e-9], [1.0, 2e-3]),
            ([1.0, 1e-9], [1.0, 2e-3]), // the head's gradient is reported
            ([1.0, 1e-9], [1.0, 2e-3]), // the encoder's updates are reported
            ([1.0, 1.0], [1.0, 1e-8]),
            ([1.0, 1.0], [1.0, 1e-8]),
            ([1.0, 1.0], [1.0, 1e-8]), // the head's updates are reported
            ([1.0, 1.0], [1.0, 1e-8]),
        ];
        for (step, (gradients, updates)) in steps.into_iter().enumerate() {
            let found = look(&mut health, &parameters, 100 + step as u64, gradients, updates);
            told.extend(found.into_iter().map(|text| (step, text)));
        }
        let has = |index: usize, step, words: [&str; 2]| {
            let (at, text): &(usize, String) = &told[index];
            assert!(*at == step && words.iter().all(|word| text.contains(word)), "{told:?}");
        };
        has(0, 5, ["`*head*`", "1.0e-9"]);
        has(1, 6, ["`encoder.*`", "50 %"]);
        has(2, 9, ["`*head*`", "5e-9"]);
        assert_eq!(told.len(), 3);
        let labels: Vec<String> = health.take().unwrap().into_iter().map(|(label, _)| label).collect();
        assert_eq!(labels, ["encoder.*", "*head*"]);
        assert_eq!(health.take(), None);
    }

    #[test]
    fn the_first_updates_may_be_large_or_small_and_gradients_held_back() {
        let parameters = parameters();
        for (gradients, updates) in [([1.0, 1.0], [1.0, 1.0]), ([1.0, 1e-9], [2e-3, 1.0]), ([1.0, 1.0], [1e-8, 1e-8])] {
            let mut health = Health::new(&OptimConfig::default(), &parameters);
            for step in 1..=SETTLING {
                assert!(look(&mut health, &parameters, step, gradients, updates).is_empty());
            }
            let told: usize =
                (1..=3).map(|step| look(&mut health, &parameters, SETTLING + step, gradients, updates).len()).sum();
            assert!(told > 0, "{gradients:?} {updates:?}");
        }
    }

    #[test]
    fn weights_that_start_at_zero_have_no_ratio() {
        assert_eq!(GroupNorms { gradient: 1.0, weights: 0.0, update: 1.0 }.ratio(), None);
    }
}
