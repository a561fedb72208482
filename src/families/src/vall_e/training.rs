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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use flowmill_networks::vall_e::{DrawConfig, VallE};

    use super::*;
    use crate::vall_e::TaskWeights;

    /// The names of frozen parameters without their endings.
    fn frozen(options: &TrainOptions) -> BTreeSet<String> {
        let config = VallEConfig { dim: 8, heads: 2, layers: 1, levels: 3, audio_tokens: 4, ..VallEConfig::default() };
        let (_, mut parameters) = VallE::new(&config, 0).unwrap();
        freeze_unused(&mut parameters, &config, options);
        let trained: BTreeSet<String> = parameters.trainable_ids().map(|id| parameters.name(id).to_owned()).collect();
        let all = parameters.named_tensors().into_iter().map(|(name, _)| name);
        let names = all.filter(|name| !trained.contains(name));
        names.map(|name| name.trim_end_matches(".weight").trim_end_matches(".bias").to_owned()).collect()
    }

    #[test]
    fn what_no_sample_has_is_frozen() {
        // Never read by any task: the network freezes these.
        let unread = ["dropout_token", "proms_emb.embeddings.2"];
        let set = |names: &[&str]| unread.iter().chain(names).map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let classifier = |number: usize| format!("classifiers.proj.{number}");
        assert_eq!(frozen(&TrainOptions::default()), set(&["tones_emb", "tasks_emb", &classifier(4)]));
        let tasks = TaskWeights { len: 0.0, ..TaskWeights::default() };
        let draws = DrawConfig { masked_rate: 0.0, level_weights: vec![1.0, 0.0, 1.0], ..DrawConfig::default() };
        let options = TrainOptions { tasks, draws, ..TrainOptions::default() };
        let (one, three, four, five) = (classifier(1), classifier(3), classifier(4), classifier(5));
        let expected = ["tones_emb", "tasks_emb", "len_emb", "resps_emb.embeddings.3", &one, &three, &four, &five];
        assert_eq!(frozen(&options), set(&expected));
    }
}
