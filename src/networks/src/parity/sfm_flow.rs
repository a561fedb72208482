//! The shallow flow: encoder, the five losses and the gradients of their sum, and inference from the head's point on
//! the path.

use super::{GoldenFile, Report, Result, cosyvoice2_flow, flow};
use crate::sfm::{Sfm, SfmConfig};

pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let (defaults, flow) = (SfmConfig::default(), cosyvoice2_flow::config(file)?);
    cosyvoice2_flow::refuse_lies(file, &flow)?;
    let sfm_strength = flow::optional(file, &["sfm_strength"], defaults.sfm_strength)?;
    let (sfm, mut parameters) = Sfm::new(&SfmConfig { flow, head_dropout: 0.0, sfm_strength }, 0)?;
    flow::check_model(file, &sfm, &mut parameters)
}
