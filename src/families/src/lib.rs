//! The model families, one folder each, and the code that several of them share.
//!
//! | folder | family | description |
//! |---|---|---|
//! | `cosyvoice2` | `cosyvoice2-flow` | CosyVoice 2's token-to-mel flow |
//! | `cosyvoice3` | `cosyvoice3-flow` | CosyVoice 3's token-to-mel flow |
//! | `step_audio` | `step-audio-flow` | Step-Audio's token-to-mel flow of two codebooks |
//! | `sfm` | `sfm-flow` | CosyVoice 2's flow with shallow flow matching |
//! | `vall_e` | `vall-e` | VALL-E's codec language model |
//! | `float` | `float` | FLOAT's motion of a talking face |
//! | `stable_diffusion` | `stable-diffusion` | latent diffusion of images from captions |
//! | `pmg` | `pmg` | PMG's soft prompts of personal images |
//! | `token_to_mel` | | the common parts of the four flows |

mod canvas;
pub mod cosyvoice2;
pub mod cosyvoice3;
mod file_error;
pub mod float;
mod image_sheet;
pub mod pmg;
pub mod sfm;
pub mod stable_diffusion;
pub mod step_audio;
pub mod token_to_mel;
pub mod vall_e;

use flowmill_family::Registry;

pub use file_error::FileError;

/// Decibels per natural-log unit of magnitude: 20 / ln 10.
const DECIBELS_PER_NEPER: f64 = 20.0 / std::f64::consts::LN_10;

/// Returns the registry of all families; a recipe that names none takes the first.
pub fn registry() -> Registry {
    Registry::new()
        .with::<cosyvoice2::CosyVoice2Flow>()
        .with::<cosyvoice3::CosyVoice3Flow>()
        .with::<sfm::ShallowFlow>()
        .with::<step_audio::StepAudioFlow>()
        .with::<vall_e::VallE>()
        .with::<float::Float>()
        .with::<stable_diffusion::StableDiffusion>()
        .with::<pmg::Pmg>()
}
