//! The stages that exist, in order: the one place that knows them all.

use flowmill_runner::Stage;

/// All stages, by number.
pub fn all() -> Vec<Box<dyn Stage>> {
    vec![
    ]
}

/// Number and name of each stage.
pub fn names(stages: &[Box<dyn Stage>]) -> Vec<(u8, &'static str)> {
    stages.iter().map(|stage| (stage.number(), stage.name())).collect()
}
