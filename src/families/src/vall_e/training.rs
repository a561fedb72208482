//! Parameters that a training does not reach.

use flowmill_networks::vall_e::{Task, VallEConfig};
use flowmill_nn::Parameters;

use super::options::TrainOptions;

/// Freezes the parameters of everything that no sample of a training has: tasks without weight, masked frames without
/// a rate, tones. They keep their initial values, and no moving averages are kept for them.
pub fn freeze_unused(parameters: &mut Parameters, config: &VallEConfig, options: &TrainOptions) {
    let (levels, tasks, draws) = (config.levels, &options.tasks, &options.draws);
    let weight = |level: usize| draws.level_weights.get(level).copied().unwrap_or(1.0);
    let trains = |level: usize| weight(level) > 0.0;
    let audio = tasks.has(Task::Speech) || tasks.has(Task::Continuation);
    let (masked, in_order) = (draws.masked_rate > 0.0, draws.masked_rate < 1.0);
    let response = |place: usize| format!("resps_emb.embeddings.{place}.");
    let classifier = |number: usize| format!("classifiers.proj.{number}.");
    let mut unused = vec!["tones_emb.".to_owned()];
    let mut without = |used: bool, names: &[String]| {
        if !used {
            unused.extend_from_slice(names);
        }
    };
    without(tasks.has(Task::Continuation), &["tasks_emb.".to_owned()]);
    without(tasks.has(Task::Length), &["len_emb.".to_owned(), classifier(levels + 2)]);
    without(tasks.has(Task::Transcription), &[classifier(levels + 1)]);
    without(audio && masked && trains(0), &[response(levels), classifier(levels)]);
    without(audio && in_order && trains(0), &[classifier(0)]);
    without(audio && in_order && trains(0) || tasks.has(Task::Transcription), &[response(0)]);
    for level in 1..levels {
        without(audio && trains(level), &[classifier(level)]);
    }
    let names: Vec<_> = parameters.trainable_ids().map(|id| (id, parameters.name(id).to_owned())).collect();
    for (id, name) in names {
        if unused.iter().any(|prefix| name.starts_with(prefix)) {
            parameters.set_trainable(id, false);
        }
    }
}
