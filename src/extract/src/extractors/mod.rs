//! The extractors that a recipe can name, one folder each, and the registry with a line for each.

pub mod campplus;
pub mod dac;
pub mod dual_kmeans;
pub mod encodec;
pub mod import;
pub mod kmeans;
pub mod lia;
pub mod mel_windows;
pub mod packed;
pub mod paraformer;
pub mod pca_motion;
pub mod phonemes;
pub mod pixels;
pub mod prompt_tokens;
pub mod rvq_kmeans;
pub mod s3;
pub mod statistics;
pub mod step_audio;
pub mod wav2vec2;

use crate::Registry;

/// The extractors, in the order of the recipe's reference. A stage whose recipe names none takes the first that gives what it needs.
pub fn registry() -> Registry {
    Registry::new()
        .with::<statistics::StatisticsConfig>()
        .with::<kmeans::KmeansConfig>()
        .with::<import::ImportConfig>()
        .with::<import::ImportCodesConfig>()
        .with::<import::ImportLatentsConfig>()
        .with::<packed::PackedConfig>()
        .with::<campplus::CampplusConfig>()
        .with::<s3::S3Config>()
        .with::<paraformer::ParaformerConfig>()
        .with::<step_audio::StepAudioConfig>()
        .with::<dual_kmeans::DualKmeansConfig>()
        .with::<phonemes::PhonemesConfig>()
        .with::<rvq_kmeans::RvqKmeansConfig>()
        .with::<encodec::EncodecConfig>()
        .with::<dac::DacConfig>()
        .with::<wav2vec2::Wav2Vec2Config>()
        .with::<lia::LiaConfig>()
        .with::<pca_motion::PcaMotionConfig>()
        .with::<mel_windows::MelWindowsConfig>()
        .with::<pixels::PixelsConfig>()
        .with::<prompt_tokens::PromptTokensConfig>()
}
