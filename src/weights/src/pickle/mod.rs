//! Pickles: parsed as data, never executed.
//!
//! A pickle is a program for a stack machine that may call any Python function. Only the calls that create tensors, arrays, containers
//! and scalars are supported here, and they create values without a call. Every other call creates an object of which only the name is
//! kept. A pickle may also share and nest values freely. The conversion of values to a tree has a memory budget, so that no small file
//! grows large.

mod construct;
mod globals;
mod list;
mod machine;
mod numpy;
mod opcodes;
mod tree;
mod value;

pub use value::PickleValue;

pub(crate) use machine::{Pickle, StorageRef};
pub(crate) use tree::Tree;

use super::Parsed;
use super::source::Source;

/// Parses the pickle that begins at the source's position; the source is then at its end.
pub(crate) fn parse(source: &mut Source<'_>) -> Parsed<Pickle> {
    machine::Machine::new(source).run()
}
