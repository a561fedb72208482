//! Training objectives: pure functions of tensors and their random draws.

mod flow_matching;
mod shallow;

pub use flow_matching::{FlowMatching, PathPoint};
pub use shallow::{Placement, ShallowFlowMatching, ShallowPath, ShallowPrediction};
