//! Resources of this machine: queries to the system, one file per subject.

pub mod build;
pub mod devices;
pub mod disk;
pub mod machine;
pub mod weights;
