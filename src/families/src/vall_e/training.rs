//! Rules of training: the signs of a good one, the loss scale, what is drawn alone, and parameters that a training does not reach.

use flowmill_family::{LossScaleConfig, Reference, TrainSettings};
use flowmill_networks::vall_e::{DrawConfig, Task, VallEConfig};
use flowmill_nn::Parameters;

use super::VallE;
use super::options::{TaskWeights, TrainOptions};

/// The metrics at which speech becomes coherent, according to the guide of the public trainer, whose accuracy is top-10.
pub const GOOD_SIGNS: [Reference; 3] = [
    Reference { metric: "loss", value: 3.0, text: "coherent speech below" },
    Reference { metric: "top10", value: 0.7, text: "coherent speech above" },
    Reference { metric: "grad_norm", value: 0.2, text: "coherent speech below" },
];

/// The loss scale below which half precision ruins pretrained weights, according to that guide.
pub const LEAST_LOSS_SCALE: f64 = 8192.0;

/// Returns the public trainer's loss scale of half precision.
pub fn loss_scale() -> LossScaleConfig {
    LossScaleConfig { window: 1000, floor: 32_768.0, ceiling: 1_048_576.0, ..LossScaleConfig::default() }
}

/// Returns the settings under which each task, and each level of speech, is drawn alone, with all conditions; speech first.
pub fn variants(settings: &TrainSettings<VallE>) -> Vec<TrainSettings<VallE>> {
    let TrainSettings { config, options } = settings;
    let TrainOptions { tasks, draws, .. } = options;
    let none = TaskWeights::none();
    let weight = |level: usize| draws.level_weights.get(level).copied().unwrap_or(1.0);
    let with = |tasks: TaskWeights, level: usize, masked_rate: f32| {
        let mut level_weights = vec![0.0; config.levels];
        level_weights[level] = 1.0;
        let conditions = DrawConfig { prompt_dropout: 0.0, condition_dropout: 0.0, ..draws.clone() };
        let draws = DrawConfig { level_weights, masked_rate, ..conditions };
        TrainSettings { config: config.clone(), options: TrainOptions { tasks, draws, ..options.clone() } }
    };
    let mut variants = Vec::new();
    // Of the tasks with codes, speech stands for all: they have the same outputs.
    let speech = TaskWeights { tts: 1.0, ..none.clone() };
    if tasks.has_audio() {
        let levels = (0..config.levels).filter(|&level| weight(level) > 0.0);
        let in_order = levels.filter(|&level| level > 0 || draws.masked_rate < 1.0);
        variants.extend(in_order.map(|level| with(speech.clone(), level, 0.0)));
        if draws.masked_rate > 0.0 && weight(0) > 0.0 {
            variants.push(with(speech, 0, 1.0));
        }
    }
    if tasks.len > 0.0 {
        variants.push(with(TaskWeights { len: 1.0, ..none.clone() }, 0, 0.0));
    }
    if tasks.stt > 0.0 {
        variants.push(with(TaskWeights { stt: 1.0, ..none }, 0, 0.0));
    }
    variants
}

/// Freezes the parameters of everything that no sample of a training has: tasks without weight, masked frames without
/// a rate, tones. They keep their initial values, and no moving averages are kept for them.
pub fn freeze_unused(parameters: &mut Parameters, config: &VallEConfig, options: &TrainOptions) {
    let (levels, tasks, draws) = (config.levels, &options.tasks, &options.draws);
    let weight = |level: usize| draws.level_weights.get(level).copied().unwrap_or(1.0);
    let trains = |level: usize| weight(level) > 0.0;
    let audio = tasks.has_audio();
    let (masked, in_order) = (draws.masked_rate > 0.0, draws.masked_rate < 1.0);
    let response = |place: usize| format!("resps_emb.embeddings.{place}.");
    let classifier = |number: usize| format!("classifiers.proj.{number}.");
    let mut unused = vec!["tones_emb.".to_owned()];
    let mut without = |used: bool, names: &[String]| {
        if !used {
            unused.extend_from_slice(names);
        }
    };
    without(tasks.has(Task::Continuation) || tasks.needs_noise(), &["tasks_emb.".to_owned()]);
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
    fn each_level_and_task_is_drawn_alone_with_speech_first() {
        let config = VallEConfig { levels: 3, ..VallEConfig::default() };
        let tasks = TaskWeights { stt: 0.5, ..TaskWeights::default() };
        let options = TrainOptions { tasks, ..TrainOptions::default() };
        let drawn: Vec<(Task, usize, bool)> = variants(&TrainSettings { config, options })
            .iter()
            .map(|TrainSettings { options, .. }| {
                let level = options.draws.level_weights.iter().position(|weight| *weight > 0.0).unwrap();
                (options.tasks.task_at(0.5), level, options.draws.masked_rate > 0.0)
            })
            .collect();
        let speech = |level, masked| (Task::Speech, level, masked);
        let others = [(Task::Length, 0, false), (Task::Transcription, 0, false)];
        let expected = [speech(0, false), speech(1, false), speech(2, false), speech(0, true), others[0], others[1]];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn half_precision_has_the_published_scale() {
        let config = loss_scale();
        let mut scale = flowmill_train::LossScale::new(&config);
        let mut steps = |count: u64, fits: bool| {
            for _ in 0..count {
                if fits {
                    scale.fitted(&config);
                } else {
                    scale.overflowed(&config, 10);
                }
            }
            scale.scale()
        };
        assert_eq!(steps(999, true), 65_536.0);
        assert_eq!(steps(1, true), 131_072.0, "it doubles after a window of 1000 steps");
        assert_eq!(steps(10_000, true), 1_048_576.0, "the ceiling is 2^20");
        assert_eq!(steps(1, false), 1_048_576.0, "one overflow may be due to one batch");
        assert_eq!(steps(5, false), 32_768.0);
        assert_eq!(steps(3, false), 32_768.0, "it never falls below the floor");
        assert!(config.floor >= LEAST_LOSS_SCALE);
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
