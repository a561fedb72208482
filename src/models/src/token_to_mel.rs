//! What all token-to-mel models have in common.

use crate::flow::{
    Flow, FlowBatch, FlowConfig, FlowDraws, FlowLoss, Generated, GenerationOptions, GenerationRequest, Result,
};
use crate::sfm::Sfm;
use flowmill_nn::Context;
use flowmill_nn::random::Draw;

/// A model from speech tokens and a speaker to mel spectrograms. Holds no weights: those are in the
/// [`Parameters`](flowmill_nn::Parameters) that were made with it.
pub trait TokenToMel: Send + Sync {
    /// What it takes and makes.
    fn config(&self) -> &FlowConfig;

    /// The loss of a batch.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    fn loss(&self, context: &Context, batch: &FlowBatch, draws: &FlowDraws) -> Result<FlowLoss>;

    /// The published settings of inference.
    fn default_options(&self) -> GenerationOptions;

    /// Generates mels; the noise of request `i` comes from `draw.sample(samples[i])`.
    ///
    /// # Errors
    /// When a request does not fit the model, or the solver gives up.
    fn generate(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
        draw: &Draw,
        samples: &[u64],
    ) -> Result<Generated>;

    /// The strength of a shallow flow's inference; other models have none.
    fn strength(&self) -> Option<f32> {
        None
    }
}

impl TokenToMel for Flow {
    fn config(&self) -> &FlowConfig {
        self.config()
    }

    fn loss(&self, context: &Context, batch: &FlowBatch, draws: &FlowDraws) -> Result<FlowLoss> {
        self.loss(context, batch, draws)
    }

    fn default_options(&self) -> GenerationOptions {
        self.default_options()
    }

    fn generate(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
        draw: &Draw,
        samples: &[u64],
    ) -> Result<Generated> {
        self.generate(context, requests, options, draw, samples)
    }
}

impl TokenToMel for Sfm {
    fn config(&self) -> &FlowConfig {
        &self.config().flow
    }

    fn loss(&self, context: &Context, batch: &FlowBatch, draws: &FlowDraws) -> Result<FlowLoss> {
        self.loss(context, batch, draws)
    }

    fn default_options(&self) -> GenerationOptions {
        self.default_options()
    }

    fn generate(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
        draw: &Draw,
        samples: &[u64],
    ) -> Result<Generated> {
        self.generate(context, requests, options, draw, samples)
    }

    fn strength(&self) -> Option<f32> {
        Some(self.config().sfm_strength)
    }
}
