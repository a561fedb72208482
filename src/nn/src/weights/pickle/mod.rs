//! Pickles: parsed as data, never executed.
//!
//! A pickle is a program for a stack machine that may call any Python function. Only the calls that tensors, containers and
//! scalars are made of are understood here, and they make values, not calls; every other name is refused.
//! A pickle may also share and nest values at will: values become a tree under a budget, so that no small file grows large.

mod globals;
mod list;
mod machine;
mod opcodes;
mod tree;
mod value;

pub use value::PickleValue;

pub(crate) use machine::{Pickle, StorageRef};
pub(crate) use tree::Tree;

use super::Parsed;
use super::source::Source;

/// Parses the pickle that begins at the source's position; the source is left behind its end.
pub(crate) fn parse(source: &mut Source<'_>) -> Parsed<Pickle> {
    machine::Machine::new(source).run()
}
