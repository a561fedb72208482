//! The parts of a loss in metrics: losses and accuracies, overall and by level.

use flowmill_networks::vall_e::TrainLoss;

/// The largest number of levels of a model.
pub const MOST_LEVELS: usize = 16;

/// The names of a group of outputs: its loss, the share of its targets that are the most probable class, and the share
/// among the ten most probable ones.
struct Names {
    loss: &'static str,
    top1: &'static str,
    top10: &'static str,
}

macro_rules! names {
    ($($group:literal),*) => {
        [$(Names { loss: concat!("loss.", $group), top1: concat!("accuracy.", $group), top10: concat!("top10.", $group) }),*]
    };
}

/// The groups: levels, masked frames of level 0, transcripts, lengths.
const NAMES: [Names; MOST_LEVELS + 3] = names!(
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "nar-len", "stt", "len"
);

/// Sums of a group.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    loss: f64,
    top1: f64,
    top10: f64,
    outputs: f64,
}

/// Returns the number of the group of a label (`tts.3`, `tts-c.nar-len`, `stt`).
fn group(label: &str) -> Option<usize> {
    let name = label.rsplit('.').next()?;
    NAMES.iter().position(|names| names.loss.strip_prefix("loss.") == Some(name))
}

/// Returns the parts of the loss of a model with `levels` levels: always the same names, NaN for groups that the batch
/// does not have.
pub fn of(loss: &TrainLoss, levels: usize) -> Vec<(&'static str, f64)> {
    let mut groups = [Sums::default(); NAMES.len()];
    for ((label, value), (_, accuracy)) in loss.parts.iter().zip(&loss.accuracies) {
        if let Some(sums) = group(label).map(|group| &mut groups[group]) {
            let outputs = accuracy.outputs as f64;
            sums.loss += value * outputs;
            sums.top1 += accuracy.top1 * outputs;
            sums.top10 += accuracy.top10 * outputs;
            sums.outputs += outputs;
        }
    }
    let share = |sum: f64, outputs: f64| if outputs > 0.0 { sum / outputs } else { f64::NAN };
    let audio = || groups[..=MOST_LEVELS].iter();
    let outputs = audio().map(|sums| sums.outputs).sum();
    let mut parts = vec![
        ("accuracy", share(audio().map(|sums| sums.top1).sum(), outputs)),
        ("top10", share(audio().map(|sums| sums.top10).sum(), outputs)),
    ];
    for (_, (names, sums)) in NAMES.iter().zip(&groups).enumerate().filter(|(at, _)| *at < levels || *at >= MOST_LEVELS)
    {
        parts.push((names.loss, share(sums.loss, sums.outputs)));
        parts.push((names.top1, share(sums.top1, sums.outputs)));
        parts.push((names.top10, share(sums.top10, sums.outputs)));
    }
    parts
}

#[cfg(test)]
mod tests {
    use flowmill_networks::vall_e::Accuracy;
    use flowmill_nn::Value;

    use super::*;

    #[test]
    fn tasks_of_a_level_are_one_group_and_absent_groups_are_not_numbers() {
        let accuracy = |top1, top10, outputs| Accuracy { top1, top10, outputs };
        let loss = TrainLoss {
            total: Value::from_vec(vec![1.0], &[]).unwrap(),
            parts: [("len", 3.0), ("tts-c.1", 4.0), ("tts.1", 1.0), ("tts.nar-len", 2.0)]
                .map(|(l, v)| (l.into(), v))
                .into(),
            accuracies: vec![
                ("len".into(), accuracy(0.0, 1.0, 4)),
                ("tts-c.1".into(), accuracy(0.0, 0.5, 10)),
                ("tts.1".into(), accuracy(1.0, 1.0, 30)),
                ("tts.nar-len".into(), accuracy(0.5, 0.5, 40)),
            ],
            weight: 4.0,
        };
        let parts = of(&loss, 2);
        let value = |name: &str| parts.iter().find(|(own, _)| *own == name).unwrap().1;
        assert_eq!(parts.len(), 2 + 3 * 5);
        assert_eq!((value("loss.1"), value("accuracy.1"), value("top10.1")), (1.75, 0.75, 0.875));
        assert_eq!((value("loss.len"), value("top10.len"), value("accuracy.nar-len")), (3.0, 1.0, 0.5));
        assert_eq!((value("accuracy"), value("top10")), (50.0 / 80.0, 55.0 / 80.0));
        assert!(value("loss.0").is_nan() && value("accuracy.stt").is_nan());
    }
}
