//! Overfitting on a few batches, to test a recipe's training. Nothing is written, except speech to listen to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowmill_family::{Batch, Configured, Registry};
use flowmill_nn::random::RngKey;
use flowmill_runner::{Recipe, StageError};
use flowmill_train::{BatchCost, BoxError, DataSource, Observer, Overfit, OverfitOptions};

use crate::TrainSection;
use crate::data::TrainingData;
use crate::evaluate::prepared;
use crate::heard::{Heard, hear};
use crate::work::Prepared;

/// The result of [`overfit`].
#[derive(Debug, Clone, PartialEq)]
pub struct Overfitted {
    /// The result of the training.
    pub overfit: Overfit,
    /// The first utterances as the trained model speaks them, if it speaks.
    pub heard: Option<Heard>,
}

/// Trains the recipe's model from its initial weights repeatedly on the same few batches; see [`flowmill_train::overfit`]. Each
/// batch is repeated in all variants of the family ([`Family::variants`](flowmill_family::Family::variants)). A model that speaks
/// then speaks the first utterances into `place`. `folder` returns the folder of a stage by number; stages up to packing must be
/// finished. Runs on the threads of the caller's pool.
///
/// # Errors
/// Returns an error if data or initial weights do not match the model, and the errors of [`flowmill_train::overfit`].
pub fn overfit(
    registry: &Registry,
    recipe: &Recipe,
    folder: &dyn Fn(u8) -> PathBuf,
    options: OverfitOptions,
    place: &Path,
    observer: &mut dyn Observer,
) -> Result<Overfitted, StageError> {
    let section = TrainSection::read(recipe, registry).map_err(StageError::other)?;
    let (settings, count) = (section.run.clone(), section.settings.sample_count);
    let Prepared { config, task, mut parameters, data } = prepared(section, recipe, folder, false, observer)?;
    let rng_key = RngKey::new(settings.seed).purpose("overfit");
    let varied = Varied::new(&data, config.as_ref(), rng_key)?;
    let times = varied.models.len();
    let steps = if options.enough.is_some() { options.steps * times as u64 } else { options.steps };
    let options = OverfitOptions { batches: options.batches * times, steps, ..options };
    let tried = flowmill_train::overfit(&task, &mut parameters, &varied, &settings, options, observer);
    let overfit = tried.map_err(StageError::other)?;
    let overfit = Overfit { batches: overfit.batches / times, ..overfit };
    if !config.speaks() || overfit.interrupted {
        return Ok(Overfitted { overfit, heard: None });
    }
    let batches = data.batches(0).map_err(StageError::other)?;
    let items: Vec<u32> = batches.into_iter().next().unwrap_or_default().into_iter().take(count).collect();
    // The key of the training, so that the prompts are the same.
    let examples = data.examples_of(&items, rng_key)?;
    let heard = match examples {
        Some(examples) => hear(&task, &parameters, &examples, place, observer)?,
        None => None,
    };
    Ok(Overfitted { overfit, heard })
}

/// Training data of which each batch comes in all variants of the family, one after the other. The numbers of the items of variant
/// `v` begin at `v` times the number of all items.
struct Varied<'a> {
    data: &'a TrainingData,
    models: Vec<Arc<dyn Configured>>,
    /// The number of items of the data.
    items: u32,
    /// Random numbers of a model that speaks: an utterance has the same prompt in all variants.
    rng_key: Option<RngKey>,
}

impl<'a> Varied<'a> {
    fn new(data: &'a TrainingData, config: &dyn Configured, rng_key: RngKey) -> Result<Self, StageError> {
        let (models, items) = (config.variants(), data.train_len());
        let rng_key = config.speaks().then_some(rng_key);
        match u32::try_from(items * models.len()) {
            // Its items are fewer.
            Ok(_) => Ok(Self { data, models, items: items as u32, rng_key }),
            Err(_) => Err(StageError::new(format!("{items} utterances are too many for a test of overfitting"))),
        }
    }

    fn own(&self, items: &[u32]) -> Vec<u32> {
        items.iter().map(|item| item % self.items.max(1)).collect()
    }
}

impl DataSource for Varied<'_> {
    type Batch = Batch;

    fn batches(&self, epoch: u64) -> Result<Vec<Vec<u32>>, BoxError> {
        let varied = |batch: Vec<u32>| {
            (0..self.models.len() as u32)
                .map(move |variant| batch.iter().map(|item| item + variant * self.items).collect())
        };
        Ok(self.data.batches(epoch)?.into_iter().flat_map(varied).collect())
    }

    fn load(&self, items: &[u32], rng_key: RngKey) -> Result<Batch, BoxError> {
        let variant = items.first().map_or(0, |item| item / self.items.max(1)) as usize;
        let model = self.models.get(variant).ok_or("a batch of another plan")?;
        self.data.load_as(model.as_ref(), &self.own(items), self.rng_key.unwrap_or(rng_key))
    }

    fn validation(&self) -> Vec<Vec<u32>> {
        Vec::new()
    }

    fn cost(&self, items: &[u32]) -> BatchCost {
        self.data.cost(&self.own(items))
    }

    fn id(&self, item: u32) -> &str {
        self.data.id(item % self.items.max(1))
    }
}
