//! A token-to-mel model as something to train.

use flowmill_models::TokenToMel;
use flowmill_models::flow::{FlowBatch, FlowDraws};
use flowmill_nn::Context;
use flowmill_nn::random::Draw;
use flowmill_train::{BoxError, Loss, Task};

/// A model's own objective on batches of utterances.
pub struct FlowTask(pub Box<dyn TokenToMel>);

impl Task for FlowTask {
    type Batch = FlowBatch;

    fn loss(&self, context: &Context<'_>, batch: &FlowBatch, draw: Draw) -> Result<Loss, BoxError> {
        let draws = FlowDraws::from_draw(&draw, batch, self.0.config())?;
        let loss = self.0.loss(context, batch, &draws)?;
        Ok(Loss { total: loss.total, parts: loss.parts, weight: loss.weight })
    }
}
