//! Shallow flow matching for speech (arXiv 2505.12226) on the CosyVoice 2 flow: the encoder's coarse mel and a small
//! head determine a point on the path from noise to speech, and the flow starts there.
//!
//! Encoder and estimator are those of [`flow`](crate::flow) under the same names; the head is `sfm_head.*`. With
//! [`ConditionsConfig::Speaker`](crate::flow::ConditionsConfig::Speaker) and an encoder without chunks they are, by function and by
//! parameter names, those of the public model (yynil/RWKVTTS: model/flow: CausalMaskedDiffWithXvecSFM, SFMHead,
//! CausalConditionalDecoder). The objective and the start of inference are the authors'
//! ([`ShallowFlowMatching`](flowmill_nn::objectives::ShallowFlowMatching)).

mod config;
mod generate;
mod head;
mod model;

pub use config::SfmConfig;
pub use head::SfmHead;
pub use model::Sfm;
