//! The model card: a README beside the weights that says what the model is, what it was made of, and how well it does.

use std::fmt::Write as _;

use flowmill_nn::solvers::Method;
use serde_json::Value;

use crate::evaluation::Scores;
use crate::model_folder::NORMALISED;

/// What the card tells besides the scores.
pub struct CardFacts<'a> {
    /// The recipe's name.
    pub recipe: &'a str,
    /// Trainable parameters.
    pub parameters: usize,
    /// What it takes: "speech units at 25 Hz".
    pub units: &'a str,
    /// What it makes: "a log-mel of 80 bins at 50 Hz".
    pub mel: &'a str,
    /// What every stage was told, section by section.
    pub recipe_settings: &'a Value,
    /// Rows and seconds of each split, `(split, utterances, seconds)`.
    pub splits: &'a [(String, u64, f64)],
    /// What public inference code does not know of the model, as settings of the recipe.
    pub departures: &'a [&'static str],
    /// Steps of the checkpoints that were averaged.
    pub averaged_steps: &'a [u64],
}

/// The card as Markdown.
pub fn render(facts: &CardFacts, scores: &Scores) -> String {
    let mut card = format!(
        "# {}\n\nA token-to-mel flow of {} parameters, made by Flowmill {}. It turns {} and a speaker \
         embedding into {}.\n\n",
        facts.recipe,
        facts.parameters,
        env!("CARGO_PKG_VERSION"),
        facts.units,
        facts.mel,
    );
    card.push_str("## Data\n\n| split | utterances | minutes |\n|---|---|---|\n");
    for (split, utterances, seconds) in facts.splits {
        line(&mut card, format_args!("| {split} | {utterances} | {:.2} |", seconds / 60.0));
    }
    let steps: Vec<String> = facts.averaged_steps.iter().map(u64::to_string).collect();
    line(&mut card, format_args!("\nWeights: the mean of the checkpoints of steps {}.\n", steps.join(", ")));
    card.push_str(&scores_section(scores));
    card.push_str("\n## Use\n\n```console\n$ flowmill synth --model THIS_FOLDER --wav recording.wav --out OUT\n```\n");
    card.push_str(&public_code(facts.departures));
    let recipe = serde_json::to_string_pretty(facts.recipe_settings).unwrap_or_default();
    line(&mut card, format_args!("\n## Recipe\n\n```json\n{recipe}\n```"));
    card
}

/// What keeps `flow.pt` from public inference code, if anything.
fn public_code(departures: &[&str]) -> String {
    if departures.is_empty() {
        return String::new();
    }
    let settings: Vec<String> = departures.iter().map(|setting| format!("`{setting}`")).collect();
    let mut text = format!(
        "\n**Not for public inference code as is.** Public code does not know what these settings of the recipe do: {}. `synth` \
         does. Train without them for weights (`flow.pt`) that public code can use.\n",
        settings.join(", ")
    );
    if departures.contains(&NORMALISED) {
        text.push_str(
            "\nThe weights give, and take as a prompt, mels of mean 0 and deviation 1: a log-mel is what they give, bin by bin \
             multiplied by the `deviation` and added to the `mean` of `mel_normalisation` in `config.json`.\n",
        );
    }
    text
}

/// The scores as a Markdown section.
fn scores_section(scores: &Scores) -> String {
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

/// The scores as lines for a terminal.
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
