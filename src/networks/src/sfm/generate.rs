//! Inference from the point that the head predicts, instead of from noise.

use super::Sfm;
use crate::flow::{Generated, GenerationOptions, GenerationRequest, Prepared, Result, in_groups};
use candle_core::Tensor;
use flowmill_nn::objectives::Placement;
use flowmill_nn::{Context, host};

impl Sfm {
    /// Generates a batch of mel spectrograms from given standard normal noise `[frame, bin]`, prompt frames first.
    ///
    /// # Errors
    /// [`FlowError::Batch`](crate::flow::FlowError::Batch) names the request that does not match the model.
    pub fn generate_from(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
        noise: &[Tensor],
    ) -> Result<Generated> {
        self.flow.check_requests(requests, options, noise)?;
        in_groups(requests, noise, options, |requests, noise| {
            let prepared = self.flow.prepare(context, requests, options)?;
            let (placements, start) = self.start(context, &prepared, options, noise)?;
            let times: Vec<f64> = placements.iter().map(|placement| placement.time).collect();
            let solution = self.flow.follow(context, &prepared, options, start, &times)?;
            self.flow.cut(solution, requests, &prepared.rows)
        })
    }

    /// Returns `X_s` of each item, `[row, bin]`: the strengthened prediction of the head, and the amount of noise
    /// that belongs to that point.
    fn start(
        &self,
        context: &Context,
        prepared: &Prepared,
        options: &GenerationOptions,
        noise: &[Tensor],
    ) -> Result<(Vec<Placement>, Vec<f32>)> {
        let predicted = self.head.forward(context, &prepared.frames, &prepared.rows)?;
        let (times, variances) = (host::read(predicted.time.tensor())?, host::read(predicted.log_variance.tensor())?);
        let strength = options.strength.unwrap_or(self.config().sfm_strength);
        let place = |(time, log_variance): (&f32, &f32)| self.objective().place(*time, log_variance.exp(), strength);
        let placements: Vec<Placement> = times.iter().zip(&variances).map(place).collect();
        let bins = self.config().flow.output_size;
        let mut start = host::read(predicted.mean.tensor())?;
        for ((rows, placement), noise) in prepared.rows.ranges().iter().zip(&placements).zip(noise) {
            let noise = host::contiguous(noise)?;
            let noise = host::slice("noise", &noise)?;
            let deviation = placement.noise * f64::from(options.temperature);
            for (x, noise) in start[rows.start * bins..rows.end * bins].iter_mut().zip(&*noise) {
                *x = (placement.scale * f64::from(*x) + deviation * f64::from(*noise)) as f32;
            }
        }
        Ok((placements, start))
    }
}
