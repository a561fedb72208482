//! The stages that exist, in order: the one place that knows them all.

use flowmill_runner::Stage;

/// All stages, by number.
pub fn all() -> Vec<Box<dyn Stage>> {
    vec![
    ]
}
