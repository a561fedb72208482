//! The machine and the program that made the page.

use super::Subject;
use super::page::{Cell, Page, table};
use crate::doctor::{build, machine};
use crate::human;

/// Program, build, processor, memory, experiment.
pub fn add(subject: &Subject, page: &mut Page) {
    let processor = machine::processor();
    let memory = machine::memory().map_or("unknown".to_owned(), |memory| human::bytes(memory.total));
    let mut pairs = vec![
        ("flowmill".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("experiment".to_owned(), subject.experiment.display().to_string()),
        ("processor".to_owned(), format!("{}, {} of {} cores", processor.name, processor.cores, processor.installed)),
        ("memory".to_owned(), memory),
    ];
    pairs.extend(build::describe());
    let rows: Vec<Vec<Cell>> =
        pairs.into_iter().map(|(name, value)| vec![Cell::text(name), Cell::text(value)]).collect();
    page.section("Environment", table(&["of this page", ""], &rows));
}
