//! Shallow flow matching for speech (arXiv 2505.12226) on the CosyVoice 2 flow: the encoder's coarse mel and a small head give a
//! point on the path from noise to speech, and the flow starts there.
//!
//! Encoder and estimator are those of [`flow`](crate::flow) under the same names; the head is `sfm_head.*`, with the parameter
//! names of the public implementation (yynil/RWKVTTS: model/flow/sfm_head.py). The objective is the authors'
//! ([`ShallowFlowMatching`](flowmill_nn::objectives::ShallowFlowMatching)).

mod config;
mod generate;
mod head;
mod model;

pub use config::SfmConfig;
pub use head::SfmHead;
pub use model::Sfm;
