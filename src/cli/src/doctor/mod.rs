//! What this machine has: questions to the system, one file per subject.

pub mod build;
pub mod devices;
pub mod disk;
pub mod machine;
pub mod weights;
