//! Random choices of training: the level, the mask, and the conditions that are left out.

use super::sequence::NO_PHONEMES;
use super::{Sample, Task};
use flowmill_nn::random::RngKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the random choices for each sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrawConfig {
    /// Weight of each level; empty for weights that fall by one per level: 8, 7, …, 1 of 8 levels.
    pub level_weights: Vec<f32>,
    /// Share of the samples of level 0 that are masked (NAR-len) instead of autoregressive.
    pub masked_rate: f32,
    /// Share of frames that are masked; 0 for the cosine of a uniform time, as in inference.
    pub mask_ratio: f32,
    /// Share of samples without a prompt.
    pub prompt_dropout: f32,
    /// Share of samples without prompt and phonemes, for classifier-free guidance.
    pub condition_dropout: f32,
}

impl Default for DrawConfig {
    fn default() -> Self {
        Self {
            level_weights: Vec::new(),
            masked_rate: 0.5,
            mask_ratio: 0.8,
            prompt_dropout: 0.0,
            condition_dropout: 0.1,
        }
    }
}

impl DrawConfig {
    /// Draws level, mask and dropped conditions of a sample of an audio task; other tasks have none. `rng_key` is keyed by the
    /// step and the sample.
    pub fn apply(&self, sample: &mut Sample, rng_key: &RngKey) {
        if !sample.task.is_audio() {
            return;
        }
        let uniform = |purpose| rng_key.purpose(purpose).uniform_at(0);
        sample.level = self.level(sample.response.levels(), uniform("vall-e level"));
        sample.mask = None;
        if sample.level == 0 && uniform("vall-e masked") < self.masked_rate {
            sample.mask = Some(self.mask(sample.response.frames(), rng_key));
        }
        // The prompt of these tasks is what they are about.
        if matches!(sample.task, Task::NoiseSuppression | Task::SpeechRemoval) {
            return;
        }
        let drops_all = uniform("vall-e condition dropout") < self.condition_dropout;
        if drops_all || uniform("vall-e prompt dropout") < self.prompt_dropout {
            sample.prompt = None;
        }
        if drops_all {
            sample.phonemes = NO_PHONEMES.to_vec();
        }
    }

    /// Returns the level at a share of the weights of the first `levels` levels.
    fn level(&self, levels: usize, share: f32) -> usize {
        let falling = |level: usize| (levels - level) as f32;
        let weight = |level: usize| match self.level_weights.is_empty() {
            true => falling(level),
            false => self.level_weights.get(level).copied().unwrap_or(0.0).max(0.0),
        };
        let total: f32 = (0..levels).map(weight).sum();
        let mut rest = share * total;
        for level in 0..levels {
            if rest < weight(level) {
                return level;
            }
            rest -= weight(level);
        }
        // Rounding, or weights of zero only: the last level that has a weight.
        (0..levels).rev().find(|level| weight(*level) > 0.0).unwrap_or(0)
    }

    /// Draws the masked frames; at least one.
    fn mask(&self, frames: usize, rng_key: &RngKey) -> Vec<bool> {
        let ratio = match self.mask_ratio {
            0.0 => (rng_key.purpose("vall-e mask time").uniform_at(0) * std::f32::consts::FRAC_PI_2).cos(),
            ratio => ratio,
        };
        let frames_key = rng_key.purpose("vall-e mask");
        let mut mask: Vec<bool> = frames_key.uniforms(frames).into_iter().map(|share| share < ratio).collect();
        if !mask.contains(&true) {
            let frame = rng_key.purpose("vall-e one masked frame").below_at(0, frames as u32) as usize;
            mask[frame..].iter_mut().take(1).for_each(|masked| *masked = true);
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vall_e::Codes;

    #[test]
    fn levels_follow_their_weights() {
        let draws = DrawConfig::default();
        let mut counts = [0; 8];
        (0..3600).for_each(|share| counts[draws.level(8, (share as f32 + 0.5) / 3600.0)] += 1);
        assert_eq!(counts, [800, 700, 600, 500, 400, 300, 200, 100]);
        let fixed = DrawConfig { level_weights: vec![0.0, 0.0, 1.0], ..DrawConfig::default() };
        assert!([0.0, 0.5, 0.999].into_iter().all(|share| fixed.level(8, share) == 2));
        assert_eq!(fixed.level(2, 0.5), 0, "levels without weight");
    }

    #[test]
    fn draws_depend_on_the_key_only_and_leave_other_tasks_alone() {
        let codes = Codes::new(8, 20, vec![5; 160]).unwrap();
        let sample =
            Sample { phonemes: vec![1, 7, 2], prompt: Some(codes.clone()), response: codes, ..Sample::default() };
        let draws = DrawConfig { prompt_dropout: 0.3, ..DrawConfig::default() };
        let drawn = |number: u64| {
            let mut drawn = sample.clone();
            draws.apply(&mut drawn, &RngKey::new(3).sample(number));
            drawn
        };
        let all: Vec<Sample> = (0..500).map(drawn).collect();
        assert!((0..500).zip(&all).all(|(number, sample)| drawn(number) == *sample));
        assert!(all.iter().all(|sample| sample.mask.is_none() || sample.level == 0));
        let share = |matches: fn(&Sample) -> bool| all.iter().filter(|sample| matches(sample)).count() as f32 / 500.0;
        assert!((share(|sample| sample.mask.is_some()) - 4.0 / 36.0).abs() < 0.05);
        assert!((share(|sample| sample.phonemes == NO_PHONEMES) - 0.1).abs() < 0.05);
        assert!((share(|sample| sample.prompt.is_none()) - 0.37).abs() < 0.08);
        let noisy = Sample { task: Task::NoiseSuppression, ..sample.clone() };
        let certain = DrawConfig { condition_dropout: 1.0, ..draws.clone() };
        let mut kept = noisy.clone();
        certain.apply(&mut kept, &RngKey::new(3));
        assert_eq!((kept.prompt, kept.phonemes), (noisy.prompt, noisy.phonemes), "the noisy speech stays");
        let mut length = Sample { task: Task::Length, ..sample.clone() };
        draws.apply(&mut length, &RngKey::new(3));
        assert_eq!(length, Sample { task: Task::Length, ..sample });
    }

    #[test]
    fn masks_have_at_least_one_frame() {
        let draws = DrawConfig { mask_ratio: 1e-9, ..DrawConfig::default() };
        (1..30).for_each(|frames| {
            let mask = draws.mask(frames, &RngKey::new(frames as u64));
            assert_eq!((mask.len(), mask.iter().filter(|masked| **masked).count()), (frames, 1));
        });
    }
}
