//! Choice of a class from logits.

use super::SamplingOptions;
use flowmill_nn::kernels::reduce::maximum;

/// Chooses a class; `uniform` is a random number in [0, 1), `previous` are the tokens so far. Logits that are left out become minus
/// infinity.
pub(super) fn sample(logits: &mut [f32], previous: &[u32], options: &SamplingOptions, uniform: f32) -> u32 {
    penalize(logits, previous, options);
    keep_within_deviations(logits, options.top_sigma);
    if options.temperature <= 0.0 {
        return largest(logits);
    }
    keep_above_share(logits, options.min_p);
    keep_most_probable(logits, options.top_k, options.top_p);
    logits.iter_mut().for_each(|logit| *logit /= options.temperature);
    draw(logits, uniform)
}

/// Returns the most probable class, among equal ones the first.
pub(super) fn largest(logits: &[f32]) -> u32 {
    let larger = |best: (u32, f32), (class, logit): (u32, &f32)| if *logit > best.1 { (class, *logit) } else { best };
    (0..).zip(logits).fold((0, f32::NEG_INFINITY), larger).0
}

/// Returns the probability of the most probable class.
pub(super) fn largest_probability(logits: &[f32]) -> f32 {
    let top = maximum(logits);
    1.0 / logits.iter().map(|logit| (logit - top).exp()).sum::<f32>()
}

/// Lowers the logits of earlier tokens.
fn penalize(logits: &mut [f32], previous: &[u32], options: &SamplingOptions) {
    let SamplingOptions { repetition_penalty, repetition_decay, .. } = *options;
    if repetition_penalty == 1.0 {
        return;
    }
    for (distance, token) in (1u32..).zip(previous.iter().rev()) {
        let Some(logit) = logits.get_mut(*token as usize) else { continue };
        let factor = repetition_penalty.powf((distance as f32).powf(-repetition_decay));
        *logit = if *logit > 0.0 { *logit / factor } else { *logit * factor };
    }
}

/// Leaves out classes whose logits are more than `deviations` standard deviations below the largest; nothing if 0.
pub(super) fn keep_within_deviations(logits: &mut [f32], deviations: f32) {
    if deviations <= 0.0 || logits.len() < 2 {
        return;
    }
    let count = logits.len() as f64;
    let mean = logits.iter().map(|logit| f64::from(*logit)).sum::<f64>() / count;
    let squares = logits.iter().map(|logit| (f64::from(*logit) - mean).powi(2)).sum::<f64>();
    let top = maximum(logits);
    let least = top - deviations * (squares / (count - 1.0)).sqrt() as f32;
    logits.iter_mut().filter(|logit| **logit < least).for_each(|logit| *logit = f32::NEG_INFINITY);
}

/// Leaves out classes whose probability is less than a share of the largest.
fn keep_above_share(logits: &mut [f32], share: f32) {
    if share <= 0.0 {
        return;
    }
    let least = maximum(logits) + share.ln();
    logits.iter_mut().filter(|logit| **logit < least).for_each(|logit| *logit = f32::NEG_INFINITY);
}

/// Leaves out classes that are not among the `count` most probable (0 for all), or not in the smallest set of most probable classes whose
/// probability exceeds `share`.
fn keep_most_probable(logits: &mut [f32], count: usize, share: f32) {
    if count == 0 && share >= 1.0 {
        return;
    }
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let mut kept = if count == 0 { order.len() } else { count.min(order.len()) };
    if share < 1.0 {
        let top = order.first().map_or(0.0, |first| logits[*first]);
        let weights: Vec<f64> = order[..kept].iter().map(|class| f64::from(logits[*class] - top).exp()).collect();
        let wanted = f64::from(share) * weights.iter().sum::<f64>();
        let mut sum = 0.0;
        let reaches = |weight: &f64| {
            sum += weight;
            sum > wanted
        };
        kept = weights.iter().position(reaches).map_or(kept, |last| last + 1);
    }
    order[kept..].iter().for_each(|class| logits[*class] = f32::NEG_INFINITY);
}

/// Draws a class by its probability.
fn draw(logits: &[f32], uniform: f32) -> u32 {
    let top = maximum(logits);
    let weights: Vec<f64> = logits.iter().map(|logit| f64::from(logit - top).exp()).collect();
    let mut rest = f64::from(uniform) * weights.iter().sum::<f64>();
    for (class, weight) in (0..).zip(&weights) {
        if rest < *weight {
            return class;
        }
        rest -= weight;
    }
    // Rounding, or no number among the logits.
    largest(logits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_nn::random::RngKey;

    const LOGITS: [f32; 5] = [0.0, 2.0, 1.0, 2.0, -1.0];

    fn kept(logits: &[f32]) -> Vec<usize> {
        (0..logits.len()).filter(|class| logits[*class].is_finite()).collect()
    }

    #[test]
    fn the_most_probable_class_is_the_first_of_equal_ones() {
        assert_eq!(sample(&mut LOGITS.clone(), &[], &SamplingOptions::greedy(), 0.9), 1);
        let penalty = SamplingOptions { repetition_penalty: 3.0, ..SamplingOptions::greedy() };
        assert_eq!(sample(&mut LOGITS.clone(), &[1], &penalty, 0.0), 3);
        assert_eq!(sample(&mut LOGITS.clone(), &[1, 3], &penalty, 0.0), 2);
        assert_eq!(largest(&[f32::NAN, f32::NAN]), 0);
    }

    #[test]
    fn penalties_lower_logits_of_either_sign_and_decay() {
        let options = SamplingOptions { repetition_penalty: 2.0, repetition_decay: 1.0, ..SamplingOptions::greedy() };
        let mut logits = LOGITS;
        penalize(&mut logits, &[4, 1, 99], &options);
        assert_eq!(logits[1], 2.0 / 2f32.powf(0.5));
        assert_eq!(logits[4], -(2f32.powf(1.0 / 3.0)));
    }

    #[test]
    fn filters_keep_the_most_probable_classes() {
        let mut logits = LOGITS;
        keep_most_probable(&mut logits, 2, 1.0);
        assert_eq!(kept(&logits), [1, 3]);
        let mut logits = LOGITS;
        // The probabilities of the two largest are 0.39 each.
        keep_most_probable(&mut logits, 0, 0.5);
        assert_eq!(kept(&logits), [1, 3]);
        let mut logits = LOGITS;
        keep_most_probable(&mut logits, 0, 1e-6);
        assert_eq!(kept(&logits), [1]);
        let mut logits = LOGITS;
        keep_above_share(&mut logits, 0.3);
        assert_eq!(kept(&logits), [1, 2, 3]);
        let mut logits = LOGITS;
        // The deviation is 1.30.
        keep_within_deviations(&mut logits, 1.0);
        assert_eq!(kept(&logits), [1, 2, 3]);
    }

    #[test]
    fn draws_have_the_probabilities_of_the_softmax() {
        let (rng_key, count) = (RngKey::new(5), 20_000);
        let options = SamplingOptions { temperature: 0.5, ..SamplingOptions::default() };
        let mut counts = [0.0; 5];
        for uniform in rng_key.uniforms(count) {
            counts[sample(&mut LOGITS.clone(), &[], &options, uniform) as usize] += 1.0 / count as f32;
        }
        let weights = LOGITS.map(|logit| (logit / 0.5).exp());
        let total: f32 = weights.iter().sum();
        counts.iter().zip(weights).for_each(|(share, weight)| assert!((share - weight / total).abs() < 0.01));
        // e^2 of 1 + 2 e^2 + e + 1 / e.
        assert!((largest_probability(&LOGITS) - 0.391_7).abs() < 1e-4);
    }
}
