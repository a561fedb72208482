//! The scores in words, for people who have not seen them before.

use flowmill_family::ExplainedScore;

use super::evaluation::Scores;

/// Explains the scores, the most important one first.
pub fn of(scores: &Scores) -> Vec<ExplainedScore> {
    let distance = &scores.distance_db;
    let line = |name: &str, value: String, meaning: String| ExplainedScore { name: name.to_owned(), value, meaning };
    let mut lines = vec![
        line(
            "distance of the model",
            decibels(distance.mean_of_samples),
            format!(
                "Log-spectral distance between the real mel and the mean of {} samples; lower is better. {}",
                scores.samples,
                verdict(distance.mean_of_samples, distance.best_trivial())
            ),
        ),
        line(
            "distance of one sample",
            decibels(distance.single_sample),
            "The same for a single sample. It varies as speech does, so it lies above the distance of the mean.".to_owned(),
        ),
        line(
            "trivial answer: mean per unit and speaker",
            decibels(distance.unit_and_speaker_mean),
            "The distance of the average mel of each speech unit as one speaker says it. A useful model is below it.".to_owned(),
        ),
        line(
            "trivial answer: mean per unit",
            decibels(distance.unit_mean),
            "The distance of the average mel of each speech unit, whoever speaks.".to_owned(),
        ),
        line(
            "trivial answer: mean of the corpus",
            decibels(distance.corpus_mean),
            "The distance of one average mel for every frame: the answer of a model that learned nothing.".to_owned(),
        ),
        line(
            "spread",
            format!("{:.3}", scores.spread_ratio),
            format!(
                "How much samples vary over time ({}) divided by how much real speech does ({}). 1 is right, less is blurred, more is noisy.",
                decibels(scores.sample_spread_db),
                decibels(scores.real_spread_db)
            ),
        ),
        line(
            "uncertainty",
            format!("{:.3}", scores.residual_ratio),
            "How far samples are from their mean, divided by how far the recording is from it. 1 means that the model is as unsure as it \
             is wrong; below 1 it is too sure."
                .to_owned(),
        ),
        line(
            "loudness",
            format!("{:.3}", scores.energy_correlation),
            "Correlation of the loudness over time with that of the recording. 1 is best.".to_owned(),
        ),
    ];
    let pitch = scores.pitch_correlation.map_or("none".to_owned(), |value| format!("{value:.3}"));
    lines.push(line(
        "pitch",
        pitch,
        "Correlation of the pitch with that of the recording, where both are voiced. 1 is best; none means no such frames.".to_owned(),
    ));
    lines.push(line(
        "evaluations per sample",
        format!("{:.1}", scores.evaluations_per_sample),
        "How often the network runs for one sample: the cost of sampling.".to_owned(),
    ));
    lines
}

/// Compares the model with the best trivial answer.
fn verdict(model: f64, trivial: f64) -> String {
    let difference = decibels((model - trivial).abs());
    match model < trivial {
        true => format!("It is {difference} better than the best trivial answer."),
        false => {
            format!("It is {difference} worse than the best trivial answer: the model has not learned enough yet.")
        }
    }
}

fn decibels(value: f64) -> String {
    format!("{value:.2} dB")
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn a_model_is_compared_with_the_best_trivial_answer() {
        assert!(verdict(5.0, 6.5).contains("1.50 dB better"));
        assert!(verdict(8.0, 6.5).contains("1.50 dB worse"));
    }
}
