//! A token-to-mel model as something to train.

use std::path::Path;

use flowmill_models::TokenToMel;
use flowmill_models::flow::{FlowBatch, FlowDraws};
use flowmill_nn::random::Draw;
use flowmill_nn::{Context, Parameters};
use flowmill_train::{BoxError, Loss, Sample, Task};

use crate::studio::Studio;

/// A model's own objective on batches of utterances.
pub struct FlowTask {
    /// The model.
    pub model: Box<dyn TokenToMel>,
    /// What it takes to generate with it.
    pub studio: Studio,
}

impl Task for FlowTask {
    type Batch = FlowBatch;

    fn loss(&self, context: &Context<'_>, batch: &FlowBatch, draw: Draw) -> Result<Loss, BoxError> {
        let draws = FlowDraws::from_draw(&draw, batch, self.model.config())?;
        let loss = self.model.loss(context, batch, &draws)?;
        Ok(Loss { total: loss.total, parts: loss.parts, weight: loss.weight })
    }

    fn samples(&self, parameters: &Parameters) -> Result<Vec<Sample>, BoxError> {
        self.studio.samples(self.model.as_ref(), parameters)
    }

    fn export(&self, parameters: &Parameters, folder: &Path) -> Result<(), BoxError> {
        self.studio.export(parameters, folder)
    }
}
