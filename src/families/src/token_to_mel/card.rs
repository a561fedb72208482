//! The model card: a description of the model and its scores.

use std::fmt::Write as _;

use flowmill_audio::features::MelConfig;
use flowmill_extract::dual_codebook::{LINGUISTIC_PER_GROUP, SEMANTIC_PER_GROUP};
use flowmill_networks::flow::{EstimatorConfig, FlowConfig};
use flowmill_nn::solvers::Method;

use super::evaluation::Scores;

/// The setting with which a model works on mels of mean 0 and deviation 1.
const NORMALIZED: &str = "train.normalise_mel";

/// Returns a sentence on the model's purpose.
pub fn does(config: &FlowConfig, mel: &MelConfig) -> String {
    let rate = f64::from(mel.sample_rate) / mel.hop_length as f64;
    let (units, bins) = (units(config, rate), mel.n_mels);
    format!("It turns {units} and a speaker embedding into a log-mel of {bins} bins at {}.", hertz(rate))
}

/// Describes the speech units of a model, at the rate that follows from the mel's.
fn units(config: &FlowConfig, mel_rate: f64) -> String {
    let rate = mel_rate / config.token_mel_ratio.max(1) as f64;
    match config.dual_codebook {
        Some(_) => {
            let linguistic = rate * LINGUISTIC_PER_GROUP as f64 / SEMANTIC_PER_GROUP as f64;
            let (linguistic, semantic) = (hertz(linguistic), hertz(rate));
            format!("speech units of two codebooks ({linguistic} and {semantic}, in one sequence)")
        }
        None => format!("speech units at {}", hertz(rate)),
    }
}

/// Returns the features that public inference code lacks, as settings of a recipe to change. The classes of CosyVoice 2 have some sizes fixed;
/// those of Step-Audio read them from their configuration.
pub fn departures(config: &FlowConfig) -> Vec<String> {
    let features = [
        (config.mel_normalisation.is_some(), NORMALIZED),
        (config.matching.gaussian_skip.is_some(), "matching.gaussian_skip"),
        (config.direct_mel_kernel > 0, "direct_mel_kernel"),
    ];
    let features = features.into_iter().filter(|(departs, _)| *departs).map(|(_, setting)| format!("`{setting}`"));
    let sizes = [
        ("input_size", config.input_size, 512),
        ("encoder.num_up_blocks", config.encoder.num_up_blocks, 4),
        ("pre_lookahead_len", config.pre_lookahead_len, 3),
        ("token_mel_ratio", config.token_mel_ratio, 2),
    ];
    let is_fixed = matches!(config.estimator, EstimatorConfig::UNet(_));
    let sizes = sizes.into_iter().filter(|(_, own, public)| is_fixed && own != public);
    features.chain(sizes.map(|(setting, own, public)| format!("`{setting}` {own} ({public} there)"))).collect()
}

/// Formats a rate with at most one decimal: `25 Hz`, `16.7 Hz`.
fn hertz(rate: f64) -> String {
    format!("{} Hz", (rate * 10.0).round() / 10.0)
}

/// Returns how public inference code loads `flow.pt`, or the reason why it cannot; `file` is its configuration.
pub fn public_code(departures: &[String], file: &str) -> String {
    if departures.is_empty() {
        return format!("\nPublic inference code reads `flow.pt` with the settings of the flow in `{file}`.\n");
    }
    let mut text = format!(
        "\n**Not for public inference code as is.** Public code does not implement these settings of the recipe: {}. `synth` \
         does. Train without them for weights (`flow.pt`) that public code can use.\n",
        departures.join(", ")
    );
    if departures.contains(&format!("`{NORMALIZED}`")) {
        text.push_str(
            "\nThe model outputs mels of mean 0 and deviation 1, and takes them as a prompt. A log-mel is its output, bin by bin \
             multiplied by the `deviation` and added to the `mean` of `mel_normalisation` in `config.json`.\n",
        );
    }
    text
}

/// Formats the scores as a Markdown section.
pub fn scores_section(scores: &Scores) -> String {
    let mut section = format!(
        "## Scores on `{}` ({} utterances, {} mel frames, {} samples each)\n\n| log-spectral distance to the real mel | dB |\n|---|---|\n",
        scores.split, scores.utterances, scores.frames, scores.samples
    );
    for (name, value) in distance_rows(scores) {
        line(&mut section, format_args!("| {name} | {value:.2} |"));
    }
    section.push_str("\n| besides | |\n|---|---|\n");
    for (name, value) in other_rows(scores) {
        line(&mut section, format_args!("| {name} | {value} |"));
    }
    section
}

/// Formats the scores as lines for a terminal.
pub fn lines(scores: &Scores) -> Vec<String> {
    let title = format!(
        "scores on {} ({} utterances, {} samples each); log-spectral distance to the real mel:",
        scores.split, scores.utterances, scores.samples
    );
    let distances = distance_rows(scores).into_iter().map(|(name, value)| format!("  {name:<44} {value:>6.2} dB"));
    let others = other_rows(scores).into_iter().map(|(name, value)| format!("  {name:<44} {value}"));
    std::iter::once(title).chain(distances).chain(others).collect()
}

fn distance_rows(scores: &Scores) -> [(String, f64); 5] {
    let distance = &scores.distance_db;
    [
        (format!("mean of {} samples of the model", scores.samples), distance.mean_of_samples),
        ("one sample of the model".to_owned(), distance.single_sample),
        ("trivial: mean mel per unit and speaker".to_owned(), distance.unit_and_speaker_mean),
        ("trivial: mean mel per unit".to_owned(), distance.unit_mean),
        ("trivial: corpus mean mel".to_owned(), distance.corpus_mean),
    ]
}

fn other_rows(scores: &Scores) -> [(String, String); 5] {
    let pitch = scores.pitch_correlation.map_or("no voiced frames".to_owned(), |value| format!("{value:.3}"));
    [
        (
            "spread of samples / spread of real speech".to_owned(),
            format!("{:.3}  ({:.2} / {:.2} dB)", scores.spread_ratio, scores.sample_spread_db, scores.real_spread_db),
        ),
        ("departure of samples / of real from the mean".to_owned(), format!("{:.3}", scores.residual_ratio)),
        ("energy contour of the wav, correlation".to_owned(), format!("{:.3}", scores.energy_correlation)),
        ("pitch where voiced, correlation".to_owned(), pitch),
        (
            format!("evaluations of the velocity per sample ({})", solver_name(scores.solver)),
            format!("{:.1}", scores.evaluations_per_sample),
        ),
    ]
}

fn solver_name(method: Method) -> &'static str {
    match method {
        Method::Euler => "euler",
        Method::Dopri5 => "dopri5",
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{arguments}");
}
