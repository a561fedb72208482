//! Detection of gradients that exceed the range of half precision, as opposed to wrong ones, and the consequences.

use flowmill_nn::Parameters;

use crate::optimizer::GradientNorms;
use crate::pass::Pass;
use crate::{LossScale, LossScaleConfig, Observer, Overflow, TrainConfig, TrainError, coverage};

/// Results of a step before they are applied.
#[derive(Clone, Copy)]
pub(crate) struct Computed<'a> {
    /// The step, from 1.
    pub(crate) step: u64,
    pub(crate) rate: f64,
    pub(crate) pass: &'a Pass,
    pub(crate) norms: &'a GradientNorms,
}

impl Computed<'_> {
    /// Returns whether the gradient overflowed, so that the step is to be skipped: it is not finite, but the loss is. Updates
    /// the loss scale in either case. Without a scale nothing overflows.
    pub(crate) fn overflowed(
        &self,
        scale: &mut Option<LossScale>,
        config: &TrainConfig,
        parameters: &Parameters,
        observer: &mut dyn Observer,
    ) -> Result<bool, TrainError> {
        let (Some(scale), Some(settings), true) = (scale, config.loss_scale(), self.pass.means.loss.is_finite()) else {
            return Ok(false);
        };
        if self.norms.total.is_finite() {
            scale.fitted(&settings);
            return Ok(false);
        }
        let before = scale.scale();
        let text =
            format!("step {}: the gradient overflows fp16 at a loss scale of {before}; it is skipped", self.step);
        match scale.overflowed(&settings, config.max_skipped_in_a_row) {
            Overflow::Kept => observer.message(&text),
            Overflow::Halved => observer.message(&format!("{text}, the scale is now {}", scale.scale())),
            Overflow::Stuck => return Err(self.stuck(scale, &settings, parameters)),
        }
        Ok(true)
    }

    fn stuck(&self, scale: &LossScale, settings: &LossScaleConfig, parameters: &Parameters) -> TrainError {
        let (limit, remedy) = match settings.dynamic {
            true => (
                format!("may not go below its floor, {}", settings.floor),
                "lower loss_scale.floor only for a new model",
            ),
            false => ("is fixed".to_owned(), "or lower loss_scale.initial, or set loss_scale.dynamic: true"),
        };
        TrainError::LossScale {
            step: self.step,
            in_a_row: scale.overflows_in_a_row(),
            scale: scale.scale(),
            limit,
            loss: self.pass.means.loss,
            rate: self.rate,
            parameters: coverage::shorten(&self.norms.not_finite(parameters)),
            remedy,
        }
    }
}
