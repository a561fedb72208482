//! Comparison of models with their public implementations. A golden file contains the weights, inputs, outputs and
//! gradients of a public implementation. [`check`] builds the model that the file's metadata names, with the
//! dimensions in it, runs the inputs and compares the results.
//!
//! A golden file is a `.safetensors` with the metadata key `config`, a JSON object. `config.model` names the model,
//! next to its dimensions. Tensors: `param.NAME` weights, `in.NAME` inputs including every random draw, `out.NAME`
//! expected outputs, `grad.NAME` the gradients of `out.loss`. Only these names are assumed, whatever the dimensions
//! are. Every `out.` or `grad.` tensor is checked: one that the model does not compute is an error. (Gradients of networks
//! that run forward only are an exception.)

mod campplus;
mod clip;
mod cosyvoice2_flow;
mod cosyvoice3_flow;
mod dac;
mod encodec;
mod error;
mod features;
mod float_fmt;
mod flow;
mod golden_file;
mod lia;
mod linguistic_tokenizer;
mod llama;
mod lpips;
mod pmg;
mod report;
mod s3_tokenizer;
mod sfm_flow;
mod sfm_head;
mod sfm_objective;
mod ssim;
mod stable_diffusion;
mod step_audio_flow;
mod vall_e;
mod vocoders;
mod wav2vec2;

pub use error::ParityError;
pub use golden_file::GoldenFile;
pub use report::{Comparison, GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, Report};

/// The result of fallible functions of this module.
pub type Result<T> = std::result::Result<T, ParityError>;

/// The function that checks a family of models.
type Check = fn(&GoldenFile) -> Result<Report>;

/// The models that can be checked, by their names in golden files, sorted.
const MODELS: &[(&str, Check)] = &[
    ("campplus", campplus::check),
    ("clip", clip::check),
    ("cosyvoice2_flow", cosyvoice2_flow::check),
    ("cosyvoice3_flow", cosyvoice3_flow::check),
    ("dac", dac::check),
    ("diffusion_sampling", stable_diffusion::check_sampling),
    ("encodec", encodec::check),
    ("features", features::check),
    ("float_decoder", lia::check_decoder),
    ("float_emotion", wav2vec2::check_emotion),
    ("float_fmt", float_fmt::check),
    ("float_motion_encoder", lia::check_encoder),
    ("hifigan", vocoders::check_hifigan),
    ("hift", vocoders::check_hift),
    ("llama_generate", llama::check),
    ("lpips", lpips::check),
    ("paraformer_online_encoder", linguistic_tokenizer::check),
    ("pmg", pmg::check),
    ("sd_vae", stable_diffusion::check_autoencoder),
    ("sfm_flow", sfm_flow::check),
    ("sfm_head", sfm_head::check),
    ("sfm_objective", sfm_objective::check),
    ("speech_tokenizer_v1_25hz", s3_tokenizer::check_v1),
    ("speech_tokenizer_v2_25hz", s3_tokenizer::check_v2),
    ("speech_tokenizer_v3_25hz", s3_tokenizer::check_v3),
    ("ssim", ssim::check),
    ("step_audio_flow", step_audio_flow::check),
    ("vall_e_generate", vall_e::check_generation),
    ("vall_e_v5", vall_e::check_training),
    ("vocos", vocoders::check_vocos),
    ("wav2vec2", wav2vec2::check),
];

/// Models that run forward only: the gradients in their files are not compared.
const FORWARD_ONLY: &[&str] = &["float_decoder"];

/// The names of the models that can be checked.
pub fn known_models() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

/// Runs the model of a golden file and compares all that the file expects.
///
/// # Errors
/// Returns an error if the file's model is unknown, the file does not match it, or a tensor of the file was not
/// compared.
pub fn check(file: &GoldenFile) -> Result<Report> {
    let known = MODELS.iter().find(|(name, _)| *name == file.model());
    let (_, check) = known.ok_or_else(|| ParityError::UnknownModel {
        model: file.model().to_owned(),
        known: known_models().collect::<Vec<_>>().join(", "),
    })?;
    let report = check(file)?;
    refuse_unchecked(file, &report)?;
    Ok(report)
}

/// Reads the settings of a model from the configuration, at a path; all of it for an empty path.
fn settings<T: serde::de::DeserializeOwned>(file: &GoldenFile, path: &[&str]) -> Result<T> {
    let value = file.value(path).ok_or_else(|| ParityError::config(path, "is missing"))?;
    serde_json::from_value(value.clone())
        .map_err(|error| ParityError::config(path, format!("is no configuration: {error}")))
}

/// Returns an error if an expected tensor was not compared.
///
/// # Errors
/// [`ParityError::Unchecked`] for the first one; when there is nothing to compare.
pub fn refuse_unchecked(file: &GoldenFile, report: &Report) -> Result<()> {
    let compared = |name: &str| report.0.iter().any(|comparison| comparison.name == name);
    let has_gradients = !FORWARD_ONLY.contains(&file.model());
    let is_expected = |name: &&str| name.starts_with("out.") || (has_gradients && name.starts_with("grad."));
    let mut expected = file.names().filter(is_expected);
    if let Some(name) = expected.find(|name| !compared(name)) {
        return Err(ParityError::Unchecked { name: name.to_owned(), model: file.model().to_owned() });
    }
    if report.0.is_empty() {
        return Err(ParityError::NotGolden(
            "it has no `out.` or `grad.` tensor: there is nothing to compare".to_owned(),
        ));
    }
    Ok(())
}
