//! The scores of a split, their lines, card and explanation.

use std::fmt::Write as _;

use flowmill_family::{Card, ExplainedScore, HubMetadata};
use serde::{Deserialize, Serialize};

/// A figure of the model, next to those of the trivial answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// With the user's own history.
    pub own_history: f64,
    /// Trivial: with another user's history.
    pub other_history: f64,
    /// Trivial: without a prompt.
    pub no_prompt: f64,
    /// Trivial: of the mean of the history's images; none for the error of the noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_mean: Option<f64>,
}

/// The scores of one user.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UserScores {
    /// The user.
    pub user: String,
    /// The error of the predicted noise of the target, with each of the seeds.
    pub noise: Vec<Compared>,
    /// Structural similarity of the generated image with the target; none without images.
    pub ssim: Option<Compared>,
    /// LPIPS distance from the target; none without weights.
    pub lpips: Option<Compared>,
    /// Cosine of the CLIP embeddings of the generated image and the target; none without weights.
    pub clip_target: Option<Compared>,
    /// Mean cosine of the CLIP embeddings of the generated image and the history.
    pub clip_history: Option<Compared>,
}

/// The scores of a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The split.
    pub split: String,
    /// The number of users.
    pub users: usize,
    /// True if the error of the noise with the right history is below both others, by more than the spread over the seeds.
    pub is_personal: bool,
    /// The mean error of the predicted noise.
    pub noise: Compared,
    /// The mean error of each seed of the noise.
    pub noise_of_seeds: Vec<Compared>,
    /// The range over the seeds of the error's excess over that with the right history: with another history, and without a prompt.
    pub noise_spread: [f64; 2],
    /// Mean structural similarity.
    pub ssim: Option<Compared>,
    /// Mean LPIPS distance.
    pub lpips: Option<Compared>,
    /// Mean CLIP similarity to the target.
    pub clip_target: Option<Compared>,
    /// Mean CLIP similarity to the history.
    pub clip_history: Option<Compared>,
    /// The users.
    pub each: Vec<UserScores>,
}

/// Returns the means of figures; `None` of none.
fn mean<'a>(figures: impl Iterator<Item = &'a Compared>) -> Option<Compared> {
    let figures: Vec<&Compared> = figures.collect();
    let of = |part: fn(&Compared) -> f64| figures.iter().map(|figure| part(figure)).sum::<f64>() / figures.len() as f64;
    let history: Vec<f64> = figures.iter().filter_map(|figure| figure.history_mean).collect();
    (!figures.is_empty()).then(|| Compared {
        own_history: of(|figure| figure.own_history),
        other_history: of(|figure| figure.other_history),
        no_prompt: of(|figure| figure.no_prompt),
        history_mean: (!history.is_empty()).then(|| history.iter().sum::<f64>() / history.len() as f64),
    })
}

impl Scores {
    /// Averages the scores of users.
    pub fn of(split: &str, each: Vec<UserScores>) -> Self {
        let seeds = each.iter().map(|user| user.noise.len()).max().unwrap_or(0);
        let of_seed = |seed: usize| mean(each.iter().filter_map(|user| user.noise.get(seed))).unwrap_or_default();
        let noise_of_seeds: Vec<Compared> = (0..seeds).map(of_seed).collect();
        let gaps = |part: fn(&Compared) -> f64| -> (f64, f64) {
            let gaps = noise_of_seeds.iter().map(|seed| part(seed) - seed.own_history);
            gaps.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), gap| (low.min(gap), high.max(gap)))
        };
        let (other, none) = (gaps(|seed| seed.other_history), gaps(|seed| seed.no_prompt));
        let exceeds = |(low, high): (f64, f64)| low.is_finite() && low > high - low;
        let spread = |(low, high): (f64, f64)| if low.is_finite() { high - low } else { 0.0 };
        Self {
            split: split.to_owned(),
            users: each.len(),
            is_personal: exceeds(other) && exceeds(none),
            noise: mean(noise_of_seeds.iter()).unwrap_or_default(),
            noise_spread: [spread(other), spread(none)],
            ssim: mean(each.iter().filter_map(|user| user.ssim.as_ref())),
            lpips: mean(each.iter().filter_map(|user| user.lpips.as_ref())),
            clip_target: mean(each.iter().filter_map(|user| user.clip_target.as_ref())),
            clip_history: mean(each.iter().filter_map(|user| user.clip_history.as_ref())),
            noise_of_seeds,
            each,
        }
    }

    /// Returns the measures with their names, digits and meanings.
    fn measures(&self) -> Vec<(&'static str, Compared, &'static str)> {
        let noise = (
            "error of the predicted noise",
            self.noise,
            "How far the predicted noise of the next liked image is off; lower is better. It must be below both trivial answers.",
        );
        let others = [
            (
                "structural similarity to the target",
                self.ssim,
                "How alike generated and liked image are, pixel by pixel; 1 at best.",
            ),
            (
                "LPIPS distance from the target",
                self.lpips,
                "How different generated and liked image look to people; 0 at best.",
            ),
            (
                "CLIP similarity to the target",
                self.clip_target,
                "How alike generated and liked image are in content; 1 at best.",
            ),
            (
                "CLIP similarity to the history",
                self.clip_history,
                "How alike the generated image and the liked ones are in content; 1 at best.",
            ),
        ];
        let others = others.into_iter().filter_map(|(name, figures, meaning)| Some((name, figures?, meaning)));
        std::iter::once(noise).chain(others).collect()
    }

    fn rows(&self) -> Vec<(String, String)> {
        let number = |value: f64| format!("{value:.4}");
        let mut rows = Vec::new();
        for (name, figures, _) in self.measures() {
            rows.push((name.to_owned(), number(figures.own_history)));
            rows.push(("  trivial: another user's history".to_owned(), number(figures.other_history)));
            rows.push(("  trivial: no prompt".to_owned(), number(figures.no_prompt)));
            rows.extend(
                figures.history_mean.map(|value| ("  trivial: the mean of the history".to_owned(), number(value))),
            );
        }
        let spread = format!("{:.4}, {:.4}", self.noise_spread[0], self.noise_spread[1]);
        rows.push(("spread of both gaps of the noise over the seeds".to_owned(), spread));
        rows
    }

    /// Formats the scores as lines for a terminal.
    pub fn lines(&self) -> Vec<String> {
        let title = format!("scores on {} ({} users)", self.split, self.users);
        std::iter::once(title)
            .chain(self.rows().into_iter().map(|(name, value)| format!("  {name:<48} {value}")))
            .collect()
    }

    /// Returns the card of a model.
    pub fn card(&self, image_size: usize) -> Card {
        let mut scores = format!("## Scores on `{}` ({} users)\n\n| score | |\n|---|---|\n", self.split, self.users);
        for (name, value) in self.rows() {
            // Writing to a String cannot fail.
            let _ = writeln!(scores, "| {name} | {value} |");
        }
        Card {
            kind: "soft prompts of personal images (PMG)".to_owned(),
            does: format!(
                "It makes images of {image_size} x {image_size} pixels to the taste of a person, from the captions of images that they \
                 liked. The frozen language model and the frozen diffusion model are not in this folder."
            ),
            scores,
            public_code: "\nUse it with `flowmill imagine --model THIS_FOLDER --user USER.json --out DIR`.\n\n`pytorch_model.bin` has the \
                          soft prompts in the form that the public code loads.\n"
                .to_owned(),
            hub: HubMetadata { pipeline_tag: Some("text-to-image"), tags: &["personalization", "soft-prompts"] },
        }
    }

    /// Explains the scores, the most important one first.
    pub fn explain(&self) -> Vec<ExplainedScore> {
        let explained = |(name, figures, meaning): (&str, Compared, &str)| ExplainedScore {
            name: name.to_owned(),
            value: format!(
                "{:.4} (another history {:.4}, no prompt {:.4})",
                figures.own_history, figures.other_history, figures.no_prompt
            ),
            meaning: meaning.to_owned(),
        };
        self.measures().into_iter().map(explained).collect()
    }

    /// Returns the figures for the receipt.
    pub fn facts(&self) -> Vec<(&'static str, f64)> {
        let mut facts = vec![
            ("noise", self.noise.own_history),
            ("noise_other_history", self.noise.other_history),
            ("noise_no_prompt", self.noise.no_prompt),
        ];
        if let Some(ssim) = self.ssim {
            facts.extend([("ssim", ssim.own_history), ("ssim_other_history", ssim.other_history)]);
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_personal_if_both_gaps_exceed_their_spread() {
        let noise = |own_history: f64, other_history: f64, no_prompt: f64| Compared {
            own_history,
            other_history,
            no_prompt,
            history_mean: None,
        };
        let user = |noise: Vec<Compared>| UserScores { noise, ..UserScores::default() };
        let good = user(vec![noise(0.5, 0.6, 0.7), noise(0.4, 0.52, 0.6)]);
        let scores = Scores::of("test", vec![good.clone()]);
        assert!(scores.is_personal && (scores.noise.own_history - 0.45).abs() < 1e-12);
        assert!((scores.noise_spread[0] - 0.02).abs() < 1e-12);
        let bad = user(vec![noise(0.5, 0.51, 0.7), noise(0.4, 0.5, 0.6)]);
        assert!(!Scores::of("test", vec![bad]).is_personal && !Scores::of("test", vec![]).is_personal);
        let seen = UserScores { ssim: Some(Compared { history_mean: Some(0.3), ..noise(0.5, 0.4, 0.2) }), ..good };
        let scores = Scores::of("test", vec![seen.clone(), UserScores { ssim: None, ..seen }]);
        assert_eq!(scores.ssim.unwrap().history_mean, Some(0.3));
        assert_eq!(scores.lpips, None);
    }
}
