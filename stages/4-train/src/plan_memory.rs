//! The memory that a recipe's training will need. Nothing is written.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use flowmill_family::Registry;
use flowmill_runner::{Recipe, StageError};
use flowmill_train::{DataOfRank, MemoryPlan, Observer};

use crate::TrainSection;
use crate::work::{Prepared, Training};

/// Trains the recipe's model on the largest batch of its data and measures the memory; see
/// [`flowmill_train::plan_memory`]. `folder` returns the folder of a stage by number; stages up to packing must be
/// finished. `usable` is the available memory in bytes. The plan is for one of `ranks` processes that train together.
///
/// # Errors
/// Returns an error if data or initial weights do not match the model, and the errors of the plan.
pub fn plan_memory(
    registry: &Registry,
    recipe: &Recipe,
    folder: &dyn Fn(u8) -> PathBuf,
    (usable, ranks): (Option<u64>, usize),
    observer: &mut dyn Observer,
) -> Result<MemoryPlan, StageError> {
    let section = TrainSection::read(recipe, registry).map_err(StageError::other)?;
    let training = Training::new(section, recipe, folder);
    // On a thread of a pool, like the runner: allocators keep memory per thread, so the threads that take part
    // determine its amount.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(rayon::current_num_threads()).build();
    let pool = pool.map_err(StageError::other)?;
    let (tell, told) = channel();
    thread::scope(|scope| {
        let planning = scope.spawn(move || pool.install(|| plan(&training, usable, ranks, &mut Teller(tell))));
        told.iter().for_each(|text: String| observer.message(&text));
        planning.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn plan(
    training: &Training,
    usable: Option<u64>,
    ranks: usize,
    observer: &mut Teller,
) -> Result<MemoryPlan, StageError> {
    let Prepared { data, task, mut parameters, .. } = training.prepare(false, &|message| observer.tell(message))?;
    let (data, settings) = DataOfRank::new(&data, &training.section.run, ranks);
    let plan = flowmill_train::plan_memory(&task, &mut parameters, &data, &settings, usable, observer);
    plan.map_err(StageError::other)
}

/// A sender of messages to another thread.
struct Teller(Sender<String>);

impl Teller {
    fn tell(&self, text: String) {
        // The other thread listens until this end is dropped.
        let _nobody_listens = self.0.send(text);
    }
}

impl Observer for Teller {
    fn message(&mut self, text: &str) {
        self.tell(text.to_owned());
    }
}
