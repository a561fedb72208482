//! The model card: a README next to the weights that describes the model, its data and its scores.

use std::fmt::Write as _;

use flowmill_family::{Card, HubMetadata};
use flowmill_runner::to_yaml;
use serde_json::{Map, Value, json};

/// The name of this program on model hubs.
const LIBRARY: &str = "flowmill";

/// The content of the card except the scores.
pub struct CardFacts<'a> {
    /// The recipe's name.
    pub recipe: &'a str,
    /// Trainable parameters.
    pub parameters: usize,
    /// The settings of every stage, section by section.
    pub recipe_settings: &'a Value,
    /// Rows and seconds of each split, `(split, utterances, seconds)`.
    pub splits: &'a [(String, u64, f64)],
    /// Steps of the checkpoints that were averaged.
    pub averaged_steps: &'a [u64],
    /// The family's name.
    pub family: &'a str,
    /// Languages of the training data, as far as rows name them.
    pub languages: &'a [String],
}

/// Returns the card as Markdown; `card` is the family's part.
pub fn render(facts: &CardFacts, card: &Card) -> String {
    let mut text = front_matter(facts, &card.hub);
    let _ = write!(
        text,
        "# {}\n\nA {} of {} parameters, made by Flowmill {}. {}\n\n",
        facts.recipe,
        card.kind,
        facts.parameters,
        env!("CARGO_PKG_VERSION"),
        card.does,
    );
    text.push_str("## Data\n\n| split | utterances | minutes |\n|---|---|---|\n");
    for (split, utterances, seconds) in facts.splits {
        line(&mut text, format_args!("| {split} | {utterances} | {:.2} |", seconds / 60.0));
    }
    let steps: Vec<String> = facts.averaged_steps.iter().map(u64::to_string).collect();
    line(&mut text, format_args!("\nWeights: the mean of the checkpoints of steps {}.\n", steps.join(", ")));
    text.push_str(&card.scores);
    text.push_str("\n## Use\n\n```console\n$ flowmill synth --model THIS_FOLDER --wav recording.wav --out OUT\n```\n");
    text.push_str(&card.public_code);
    let recipe = serde_json::to_string_pretty(facts.recipe_settings).unwrap_or_default();
    line(&mut text, format_args!("\n## Recipe\n\n```json\n{recipe}\n```"));
    text
}

/// Returns the metadata for model hubs, in YAML. The license is left to the person who publishes the model.
fn front_matter(facts: &CardFacts, hub: &HubMetadata) -> String {
    let mut metadata = Map::new();
    metadata.insert("library_name".to_owned(), json!(LIBRARY));
    if let Some(task) = hub.pipeline_tag {
        metadata.insert("pipeline_tag".to_owned(), json!(task));
    }
    let tags: Vec<&str> = [LIBRARY, facts.family].into_iter().chain(hub.tags.iter().copied()).collect();
    metadata.insert("tags".to_owned(), json!(tags));
    if !facts.languages.is_empty() {
        metadata.insert("language".to_owned(), json!(facts.languages));
    }
    let metadata = to_yaml(&Value::Object(metadata));
    format!(
        "---\n{metadata}# license: state the license of the weights, which depends on the data, before publishing\n---\n\n"
    )
}

fn line(text: &mut String, arguments: std::fmt::Arguments) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{arguments}");
}
