//! CLIP (Radford et al., arXiv 2103.00020): transformers of images and of texts whose embeddings are alike if they fit together. Names of
//! parameters and settings are those of the package transformers (`CLIPModel`).

mod config;
mod image;
mod model;
mod text;
mod transformer;

pub use config::{ClipConfig, ImageConfig, TextConfig};
pub use image::{ImageStates, ImageTower};
pub use model::{Clip, cosine_similarities, normalized};
pub use text::{TextStates, TextTower};

/// An error of CLIP or its settings.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// A layer refused its input.
    #[error(transparent)]
    Nn(#[from] flowmill_nn::NnError),
    /// A setting of a `config.json` that is out of range or not supported.
    #[error("CLIP's config.json, `{field}`: {message}")]
    Config {
        /// The setting, as a dotted path.
        field: &'static str,
        /// The problem.
        message: String,
    },
}

/// The result of every fallible function of CLIP.
pub type Result<T> = std::result::Result<T, ClipError>;
