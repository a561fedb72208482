//! Extractors of images that run the networks here, and the registry of all extractors.

pub mod clip_images;
mod mapped;
pub mod vae_latents;

use flowmill_extract::Registry;

/// The extractors, in the order of the recipe's reference: those of `flowmill-extract`, then those of this crate.
pub fn registry() -> Registry {
    flowmill_extract::extractors::registry()
        .with::<vae_latents::VaeLatentsConfig>()
        .with::<clip_images::ClipImagesConfig>()
}
