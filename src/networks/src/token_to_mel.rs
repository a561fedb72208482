//! The common interface of all token-to-mel models.

use crate::flow::{
    Flow, FlowBatch, FlowConfig, FlowDraws, FlowLoss, Generated, GenerationOptions, GenerationRequest, Result,
};
use crate::sfm::Sfm;
use candle_core::Tensor;
use flowmill_nn::Context;
use flowmill_nn::random::RngKey;
use flowmill_nn::solvers::Solver;

/// A model from speech tokens and a speaker to mel spectrograms, without its weights, which are in the
/// [`Parameters`](flowmill_nn::Parameters) that were created with it.
pub trait TokenToMel: Send + Sync {
    /// Returns its encoder and estimator.
    fn flow(&self) -> &Flow;

    /// Returns the loss of a batch.
    ///
    /// # Errors
    /// Returns an error if the batch does not match the model.
    fn loss(&self, context: &Context, batch: &FlowBatch, draws: &FlowDraws) -> Result<FlowLoss>;

    /// Generates mels from given standard normal noise `[frame, bin]` per request, prompt frames first.
    ///
    /// # Errors
    /// [`FlowError::Batch`](crate::flow::FlowError::Batch) names the request that does not match the model; otherwise
    /// an error of the solver.
    fn generate_from(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
        noise: &[Tensor],
    ) -> Result<Generated>;

    /// Returns the strength of a shallow flow's inference; other models have none.
    fn strength(&self) -> Option<f32> {
        None
    }

    /// Returns the settings of the flow.
    fn config(&self) -> &FlowConfig {
        self.flow().config()
    }

    /// Returns the published settings of inference: 10 Euler steps, the configured guidance, full attention.
    fn default_options(&self) -> GenerationOptions {
        let guidance = TokenToMel::config(self).matching.inference_cfg_rate;
        GenerationOptions {
            solver: Solver::default(),
            strength: None,
            guidance,
            temperature: 1.0,
            streaming: false,
            unfinished: false,
            hold_prompts: false,
        }
    }

    /// Generates mels like [`generate_from`](Self::generate_from). The noise of request `i` comes from
    /// `draw.sample(samples[i])`, so it does not depend on the rest of the batch.
    ///
    /// # Errors
    /// See [`generate_from`](Self::generate_from).
    fn generate(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
        rng_key: &RngKey,
        samples: &[u64],
    ) -> Result<Generated> {
        let noise = self.flow().draw_noise(requests, options, rng_key, samples)?;
        self.generate_from(context, requests, options, &noise)
    }
}

impl TokenToMel for Flow {
    fn flow(&self) -> &Flow {
        self
    }

    fn loss(&self, context: &Context, batch: &FlowBatch, draws: &FlowDraws) -> Result<FlowLoss> {
        self.loss(context, batch, draws)
    }

    fn generate_from(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
        noise: &[Tensor],
    ) -> Result<Generated> {
        self.generate_from(context, requests, options, noise)
    }
}

impl TokenToMel for Sfm {
    fn flow(&self) -> &Flow {
        &self.flow
    }

    fn loss(&self, context: &Context, batch: &FlowBatch, draws: &FlowDraws) -> Result<FlowLoss> {
        self.loss(context, batch, draws)
    }

    fn generate_from(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
        noise: &[Tensor],
    ) -> Result<Generated> {
        self.generate_from(context, requests, options, noise)
    }

    fn strength(&self) -> Option<f32> {
        Some(self.config().sfm_strength)
    }
}
