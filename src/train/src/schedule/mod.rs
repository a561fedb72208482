//! Learning-rate schedules: the rate of every step as a pure function of its number and epoch.

mod config;
mod shapes;

pub use config::{Per, ScheduleConfig, ScheduleName};

/// Length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// Number of steps.
    pub steps: u64,
    /// Number of passes over the data that the steps begin.
    pub epochs: u64,
}

/// A schedule with its full rate and horizon.
#[derive(Debug, Clone)]
pub struct Schedule {
    config: ScheduleConfig,
    base: f64,
    horizon: u64,
}

impl Schedule {
    /// Creates a schedule. `base` is the full learning rate; `horizon` is the length of the whole run, used by shapes with an end.
    pub fn new(config: &ScheduleConfig, base: f64, horizon: Horizon) -> Self {
        let horizon = match config.per {
            Per::Step => horizon.steps,
            Per::Epoch => horizon.epochs,
        };
        Self { config: config.clone(), base, horizon }
    }

    /// Sets another full rate for the following steps and keeps the shape.
    pub fn set_base(&mut self, base: f64) {
        self.base = base;
    }

    /// Returns the learning rate of update number `step` in pass `epoch`, both from 0.
    pub fn rate(&self, step: u64, epoch: u64) -> f64 {
        match self.config.per {
            Per::Step => self.at(step),
            Per::Epoch => self.at(epoch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn horizon(steps: u64, epochs: u64) -> Horizon {
        Horizon { steps, epochs }
    }

    #[test]
    fn by_epoch_the_rate_changes_with_the_epoch_only() {
        let config =
            ScheduleConfig { name: ScheduleName::Cosine, per: Per::Epoch, final_ratio: 0.0, ..Default::default() };
        let schedule = Schedule::new(&config, 2.0, horizon(1000, 4));
        assert_eq!(schedule.rate(0, 0), 2.0);
        assert_eq!(schedule.rate(700, 2), schedule.rate(3, 2));
        assert!((schedule.rate(999, 2) - 1.0).abs() < 1e-15, "half way");
    }

    #[test]
    fn warm_up_then_inverse_square_root_is_warmup_lr_on_its_own_time_scale() {
        let config = |name| ScheduleConfig { name, warmup_steps: 16, ..Default::default() };
        let of = |config: &ScheduleConfig, step| Schedule::new(config, 1e-3, horizon(1000, 1)).rate(step, 0);
        let (plain, scaled) = (config(ScheduleName::WarmupLr), config(ScheduleName::WarmupInverseSqrt));
        for step in [1, 8, 16, 17, 100, 999] {
            let (a, b) = (of(&plain, step - 1), of(&scaled, step));
            assert!((a / b - 1.0).abs() < 1e-12, "{step}: {a} {b}");
        }
        let slow = ScheduleConfig { timescale: Some(100), ..scaled };
        assert!((of(&slow, 116) * 2f64.sqrt() / 1e-3 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn noam_is_warmup_lr_times_what_the_width_gives() {
        let config = |name| ScheduleConfig { name, warmup_steps: 400, ..Default::default() };
        let of = |name, base, step| Schedule::new(&config(name), base, horizon(1000, 1)).rate(step, 0);
        for step in [0, 10, 399, 400, 5000] {
            let expected = of(ScheduleName::WarmupLr, 2.0 / (512f64 * 400.0).sqrt(), step);
            assert!((of(ScheduleName::Noam, 2.0, step) / expected - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_warm_up_longer_than_the_run_and_a_run_of_one_step_give_finite_rates() {
        use ScheduleName::*;
        let names = [Constant, WarmupConstant, WarmupLr, WarmupInverseSqrt, Noam, NoamHoldAnnealing, Cosine];
        for name in names.into_iter().chain([WarmupCosine, WarmupLinear, OneCycle]) {
            for (warmup_steps, steps) in [(1, 1), (50, 1), (50, 10), (1, 2), (0, 1), (0, 3)] {
                let config = ScheduleConfig { name, warmup_steps, ..Default::default() };
                if config.check(1.0).is_err() {
                    continue;
                }
                let schedule = Schedule::new(&config, 1.0, horizon(steps, 1));
                for step in 0..steps + 2 {
                    let rate = schedule.rate(step, 0);
                    assert!((0.0..=1.0).contains(&rate), "{name:?}, step {step} of {steps}: {rate}");
                }
            }
        }
    }

    #[test]
    fn another_full_rate_keeps_the_shape() {
        let config = ScheduleConfig { name: ScheduleName::WarmupCosine, warmup_steps: 5, ..Default::default() };
        let schedule = Schedule::new(&config, 1.0, horizon(50, 1));
        let mut halved = schedule.clone();
        halved.set_base(0.5);
        assert!((0..50).all(|step| (halved.rate(step, 0) * 2.0 - schedule.rate(step, 0)).abs() < 1e-15));
    }
}
