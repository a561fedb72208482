//! The shapes: the rate after a number of counts (steps or epochs).

use std::f64::consts::PI;

use super::{Schedule, ScheduleName};

impl Schedule {
    /// Returns the rate at `count`, from 0.
    pub(super) fn at(&self, count: u64) -> f64 {
        match self.config.name {
            ScheduleName::Constant => self.base,
            ScheduleName::WarmupConstant => self.base * self.warmed_up(count).unwrap_or(1.0),
            ScheduleName::WarmupLr => self.warmup_lr(count),
            ScheduleName::WarmupInverseSqrt => self.warmup_inverse_sqrt(count),
            ScheduleName::Noam => self.noam(count),
            ScheduleName::NoamHoldAnnealing => self.noam_hold_annealing(count),
            ScheduleName::Cosine => self.cosine(count, 0),
            ScheduleName::WarmupCosine => self.warmup_cosine(count),
            ScheduleName::WarmupLinear => self.warmup_linear(count),
            ScheduleName::OneCycle => self.one_cycle(count),
        }
    }

    /// Returns the share of the full rate during a warm-up from 0.
    fn warmed_up(&self, count: u64) -> Option<f64> {
        (count < self.config.warmup_steps).then(|| count as f64 / self.config.warmup_steps as f64)
    }

    /// Returns the final value of cosines and annealing, as a share of the full rate.
    fn floor(&self) -> f64 {
        self.config.final_lr.map_or(self.config.final_ratio, |floor| (floor / self.base).min(1.0))
    }

    fn warmup_lr(&self, count: u64) -> f64 {
        let (number, warmup) = ((count + 1) as f64, self.config.warmup_steps as f64);
        self.base * warmup.sqrt() * number.powf(-0.5).min(number * warmup.powf(-1.5))
    }

    fn warmup_inverse_sqrt(&self, count: u64) -> f64 {
        if let Some(share) = self.warmed_up(count) {
            return self.base * share;
        }
        let warmup = self.config.warmup_steps;
        let timescale = self.config.timescale.unwrap_or(warmup) as f64;
        self.base / (((count - warmup) as f64 + timescale) / timescale).sqrt()
    }

    fn noam(&self, count: u64) -> f64 {
        let (number, warmup) = ((count + 1) as f64, self.config.warmup_steps as f64);
        let width = self.config.model_width.unwrap_or(512) as f64;
        self.base * width.powf(-0.5) * number.powf(-0.5).min(number * warmup.powf(-1.5))
    }

    fn noam_hold_annealing(&self, count: u64) -> f64 {
        let (warmup, hold) = (self.config.warmup_steps, self.config.hold_steps.unwrap_or(0));
        if count <= warmup {
            return self.base * (count + 1) as f64 / (warmup + 1) as f64;
        }
        if count < warmup.saturating_add(hold) {
            return self.base;
        }
        if count > self.horizon {
            return self.base * self.floor();
        }
        let power = |number: u64| (number as f64).powf(self.config.decay_rate.unwrap_or(0.5)).max(1.0);
        self.base * (power(warmup) / power(count.saturating_sub(hold))).max(self.floor())
    }

    /// Half a cosine from the full rate at the count `from` to the floor at the horizon.
    fn cosine(&self, count: u64, from: u64) -> f64 {
        let span = self.horizon.saturating_sub(from).max(1) as f64;
        let progress = (count.saturating_sub(from) as f64 / span).min(1.0);
        let low = self.floor();
        self.base * (low + (1.0 - low) * 0.5 * (1.0 + (PI * progress).cos()))
    }

    fn warmup_cosine(&self, count: u64) -> f64 {
        let (warmup, low) = (self.config.warmup_steps, self.floor());
        if count < warmup {
            return self.base * (low + (1.0 - low) * count as f64 / warmup as f64);
        }
        self.cosine(count, warmup)
    }

    fn warmup_linear(&self, count: u64) -> f64 {
        let warmup = self.config.warmup_steps;
        let span = self.horizon.saturating_sub(warmup).max(1) as f64;
        let left = || self.horizon.saturating_sub(count) as f64 / span;
        self.base * self.warmed_up(count).unwrap_or_else(left).min(1.0)
    }

    /// One cycle. The rise ends where PyTorch ends it: one step before its share of the run.
    fn one_cycle(&self, count: u64) -> f64 {
        let first = self.base / self.config.div_factor.unwrap_or(25.0);
        let last = first / self.config.final_div_factor.unwrap_or(1e4);
        let total = self.horizon as f64;
        let top = (self.config.rise.unwrap_or(0.3) * total - 1.0).max(0.0);
        let count = (count as f64).min((total - 1.0).max(0.0));
        let between = |from: f64, to: f64, progress: f64| to + (from - to) / 2.0 * (1.0 + (PI * progress).cos());
        if count <= top && top > 0.0 {
            return between(first, self.base, count / top);
        }
        between(self.base, last, (count - top) / (total - 1.0 - top).max(1.0))
    }
}
