//! Classifier-free guidance of logits.

use super::Guidance;

/// Sums for the standard deviation of logits.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, logits: &[f32]) {
        self.count += logits.len() as f64;
        self.sum += logits.iter().map(|logit| f64::from(*logit)).sum::<f64>();
        self.squares += logits.iter().map(|logit| f64::from(*logit).powi(2)).sum::<f64>();
    }

    /// The standard deviation, without bias.
    fn deviation(&self) -> f64 {
        let variance = (self.squares - self.sum * self.sum / self.count.max(1.0)) / (self.count - 1.0).max(1.0);
        variance.max(0.0).sqrt()
    }
}

/// Guidance of the rows of one response. The rescaling counts all rows so far, as the public implementation does.
#[derive(Debug, Clone)]
pub(super) struct Guide {
    guidance: Guidance,
    conditional: Moments,
    guided: Moments,
}

impl Guide {
    pub(super) fn new(guidance: Guidance) -> Self {
        Self { guidance, conditional: Moments::default(), guided: Moments::default() }
    }

    /// Replaces logits with all conditions, `[row, class]`, by guided ones; `others` are those without the conditions that are left out.
    pub(super) fn apply(&mut self, logits: &mut [f32], others: &[f32]) {
        let Guidance { strength, rescale, .. } = self.guidance;
        self.conditional.add(logits);
        for (logit, without) in logits.iter_mut().zip(others) {
            *logit = without + (*logit - without) * strength;
        }
        self.guided.add(logits);
        let guided = self.guided.deviation();
        if rescale > 0.0 && guided > 0.0 {
            let factor = rescale * (self.conditional.deviation() / guided) as f32 + (1.0 - rescale);
            logits.iter_mut().for_each(|logit| *logit *= factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strength_of_one_changes_nothing_and_a_full_rescale_keeps_the_deviation() {
        let (logits, without) = ([1.0, 3.0, -2.0, 0.5], [0.5, 1.0, 1.0, -3.0]);
        let guided = |strength, rescale| {
            let mut guided = logits;
            Guide::new(Guidance { strength, rescale, ..Guidance::default() }).apply(&mut guided, &without);
            guided
        };
        guided(1.0, 0.7).iter().zip(logits).for_each(|(a, b)| assert!((a - b).abs() < 1e-6));
        assert_eq!(guided(2.0, 0.0), [1.5, 5.0, -5.0, 4.0]);
        let deviation = |logits: &[f32]| {
            let mut moments = Moments::default();
            moments.add(logits);
            moments.deviation()
        };
        assert!((deviation(&guided(3.0, 1.0)) - deviation(&logits)).abs() < 1e-6);
        assert!((deviation(&[1.0, 2.0, 4.0]) - (7.0f64 / 3.0).sqrt()).abs() < 1e-9);
    }
}
