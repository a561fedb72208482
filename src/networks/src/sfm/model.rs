//! The shallow flow: parameters and training loss.

use super::{SfmConfig, SfmHead};
use crate::flow::{Encoded, Flow, FlowBatch, FlowDraws, FlowLoss, Result, pack};
use flowmill_nn::init::Builder;
use flowmill_nn::objectives::ShallowFlowMatching;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Value};

/// A flow with an SFM head, without its weights, which are in the [`Parameters`] that were created with it.
#[derive(Debug, Clone)]
pub struct Sfm {
    config: SfmConfig,
    pub(crate) flow: Flow,
    pub(super) head: SfmHead,
}

impl Sfm {
    /// Creates a model with random weights: those of the flow, and `sfm_head.*`.
    ///
    /// # Errors
    /// [`FlowError::Config`](crate::flow::FlowError::Config) if the settings are inconsistent.
    pub fn new(config: &SfmConfig, seed: u64) -> Result<(Self, Parameters)> {
        config.check()?;
        let (flow, mut parameters) = Flow::new(&config.flow, seed)?;
        let mut builder = Builder::new(&mut parameters, RngKey::new(seed).purpose("initial weights"));
        let (channels, bins) = (config.flow.input_size, config.flow.output_size);
        let head = SfmHead::new(builder.scope("sfm_head"), channels, bins, config.head_dropout)?;
        Ok((Self { config: config.clone(), flow, head }, parameters))
    }

    /// Returns the settings of the model.
    pub fn config(&self) -> &SfmConfig {
        &self.config
    }

    /// Returns the objective, which also gives the start of inference.
    pub(super) fn objective(&self) -> ShallowFlowMatching {
        ShallowFlowMatching { sigma_min: self.config.flow.matching.sigma_min }
    }

    /// Returns the loss of a batch, the sum of five parts: `coarse` is the mean squared error of the encoder's mel,
    /// `t` and `sigma` those of the head's time and log variance, `mu` that of its `X_h`, and `cfm` that of the
    /// velocity on the path that starts at `X_h`. All are over valid frames only. `draws.t` is uniform: the position
    /// of each item on that path, before the schedule.
    ///
    /// # Errors
    /// [`FlowError::Batch`](crate::flow::FlowError::Batch) if the batch does not match the model.
    pub fn loss(&self, context: &Context, batch: &FlowBatch, draws: &FlowDraws) -> Result<FlowLoss> {
        let config = self.flow.config();
        batch.check(config)?;
        let (lengths, speakers) = (&batch.token_lengths, &batch.speaker_embedding);
        let Encoded { frames, means: coarse, rows } =
            self.flow.encoded(context, &batch.tokens, lengths, speakers, draws.streaming)?;
        let predicted = self.head.forward(context, &frames, &rows)?;
        let (mel, noise) = (self.flow.packed_mel(batch)?, pack(&draws.noise, batch)?);
        let progress: Vec<f32> = draws.t.iter().map(|t| config.matching.t_scheduler.warp(*t)).collect();
        let path = self.objective().path(&predicted, &mel, &noise, &progress, &rows)?;
        let conditions = self.flow.conditions(context, &coarse, &mel, batch, draws, &rows)?;
        let velocity = self.flow.velocity(context, &path.position, &path.times, &conditions, &rows, draws.streaming)?;
        let parts = [
            ("coarse", coarse.mean_square_error(&Value::plain(mel)?, &rows)?),
            ("cfm", path.matching_loss(&velocity, &rows)?),
            ("mu", path.mean_loss),
            ("t", path.time_loss),
            ("sigma", path.variance_loss),
        ];
        let mut total = parts[0].1.clone();
        for (_, part) in &parts[1..] {
            total = total.add(part)?;
        }
        FlowLoss::new(total, &parts, rows.valid() * config.output_size)
    }
}
