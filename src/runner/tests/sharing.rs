//! Threads that one part leaves idle work for the others.

mod toy;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use flowmill_runner::{
    Experiment, Part, PartReport, PartWork, Phase, PlanContext, Recipe, RecipeError, Reporter, Stage, StageError, run,
};
use toy::{Said, Toy, options};

/// A time longer than any machine takes to start a thread.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two parts: `short` ends immediately; `long` then works on two rows, each of which waits for the other.
struct Uneven {
    short_is_over: Arc<(Mutex<bool>, Condvar)>,
}

impl Stage for Uneven {
    fn number(&self) -> u8 {
        0
    }
    fn name(&self) -> &'static str {
        "read"
    }
    fn title(&self) -> &'static str {
        "Work unevenly"
    }
    fn version(&self) -> u32 {
        1
    }
    fn check(&self, _recipe: &Recipe) -> Result<(), RecipeError> {
        Ok(())
    }
    fn show(&self, _recipe: &Recipe) -> Result<serde_json::Value, RecipeError> {
        Ok(serde_json::Value::Null)
    }
    fn plan(&self, phase: usize, _context: &PlanContext) -> Result<Option<Phase>, StageError> {
        if phase > 0 {
            return Ok(None);
        }
        let (over, awaited) = (Arc::clone(&self.short_is_over), Arc::clone(&self.short_is_over));
        let short = Part::new("short").work(move |_| {
            *over.0.lock().unwrap() = true;
            over.1.notify_all();
            Ok(PartReport::summary())
        });
        let long = Part::new("long").work(move |work| {
            let over = awaited.0.lock().unwrap();
            drop(awaited.1.wait_timeout_while(over, PATIENCE, |over| !*over).unwrap());
            long(work)
        });
        Ok(Some(Phase::new("uneven", vec![long, short])))
    }
}

fn long(work: &PartWork) -> Result<PartReport, StageError> {
    let ((to_b, from_a), (to_a, from_b)) = (channel(), channel());
    let meet = |to: Sender<()>, from: Receiver<()>| to.send(()).is_ok() && from.recv_timeout(PATIENCE).is_ok();
    let (a, b) = rayon::join(|| meet(to_b, from_b), || meet(to_a, from_a));
    if !(a && b) {
        return Err(StageError::new("the rows of the long part had one thread"));
    }
    let began = Instant::now();
    while work.threads() < 2 {
        if began.elapsed() > PATIENCE {
            return Err(StageError::new("the short part is over, and its share was not given to the long one"));
        }
        std::thread::yield_now();
    }
    Ok(PartReport::summary())
}

#[test]
fn a_part_gets_the_threads_that_shorter_ones_leave() {
    let toy = Toy::new(0);
    let stages: Vec<Box<dyn Stage>> = vec![Box::new(Uneven { short_is_over: Arc::default() })];
    let recipe = toy.recipe(&[]).unwrap();
    let said = Said::default();
    let reporter = Reporter::to_writers(said.clone(), said.clone());
    let outcome = run(&stages, &recipe, &Experiment::of_recipe(&recipe), &options(), &reporter);
    outcome.unwrap_or_else(|error| panic!("{error}\n{}", said.text()));
}
