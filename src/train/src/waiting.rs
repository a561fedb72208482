//! Time that the loop spent waiting for data.

use crate::{Observer, Progress};

/// Seconds spent in the steps of this process.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    data: f64,
    all: f64,
}

impl Waiting {
    /// Takes a step into account.
    pub(crate) fn add(&mut self, step: &Progress) {
        self.data += step.data_wait;
        self.all += step.seconds;
    }

    /// Reports the share, and advice if it is large.
    pub(crate) fn tell(&self, observer: &mut dyn Observer) {
        if self.all <= 0.0 {
            return;
        }
        let share = 100.0 * self.data / self.all;
        let advice = if share > 10.0 { "; more num_workers or prefetch may help" } else { "" };
        observer.message(&format!(
            "waited for data {:.1} s of {:.1} s in steps ({share:.0} %){advice}",
            self.data, self.all
        ));
    }
}
