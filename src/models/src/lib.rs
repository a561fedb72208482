//! Models.

pub mod extractors;
pub mod flow;
