//! A model of any family, for training.

use std::path::Path;

use flowmill_family::{AnyModel, Batch};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters};
use flowmill_train::{BoxError, Loss, Sample, Task};

use crate::preview::Preview;

/// A model's own objective on batches of its data.
pub struct FamilyTask {
    /// The model.
    pub model: Box<dyn AnyModel>,
    /// Everything that is needed to generate with it.
    pub preview: Preview,
}

impl Task for FamilyTask {
    type Batch = Batch;

    fn loss(&self, context: &Context<'_>, batch: &Batch, rng_key: RngKey) -> Result<Loss, BoxError> {
        self.model.loss(context, batch, rng_key)
    }

    fn is_optional(&self, parameter: &str) -> bool {
        self.model.is_optional(parameter)
    }

    fn samples(&self, parameters: &Parameters) -> Result<Vec<Sample>, BoxError> {
        self.preview.samples(self.model.as_ref(), parameters)
    }

    fn export(&self, parameters: &Parameters, folder: &Path) -> Result<(), BoxError> {
        self.preview.export(parameters, folder)
    }
}
