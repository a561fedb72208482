//! The scores of a split, their lines, card and explanation.

use std::fmt::Write as _;

use flowmill_family::{Card, ExplainedScore, HubMetadata};
use serde::{Deserialize, Serialize};

/// The scores of one image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageScores {
    /// The row's id.
    pub image: String,
    /// The signal-to-noise ratio of the reconstruction, in decibels.
    pub reconstruction: f64,
    /// Trivial: of the mean image of the training.
    pub mean_image: f64,
    /// The error of the predicted noise with the image's caption.
    pub noise: f64,
    /// Trivial: with another image's caption.
    pub noise_other_caption: f64,
    /// Trivial: without a caption.
    pub noise_no_caption: f64,
}

/// The scores of a split, averaged over images.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The split.
    pub split: String,
    /// The number of images.
    pub images: usize,
    /// The means.
    pub mean: ImageScores,
    /// The images.
    pub each: Vec<ImageScores>,
}

impl Scores {
    /// Averages the scores of images.
    pub fn of(split: &str, each: Vec<ImageScores>) -> Self {
        let mean = |part: fn(&ImageScores) -> f64| each.iter().map(part).sum::<f64>() / each.len().max(1) as f64;
        let mean = ImageScores {
            image: "mean".to_owned(),
            reconstruction: mean(|scores| scores.reconstruction),
            mean_image: mean(|scores| scores.mean_image),
            noise: mean(|scores| scores.noise),
            noise_other_caption: mean(|scores| scores.noise_other_caption),
            noise_no_caption: mean(|scores| scores.noise_no_caption),
        };
        Self { split: split.to_owned(), images: each.len(), mean, each }
    }

    fn rows(&self) -> [(&'static str, String); 5] {
        let ImageScores { reconstruction, mean_image, noise, noise_other_caption, noise_no_caption, .. } = &self.mean;
        [
            ("reconstruction, signal to noise", format!("{reconstruction:.2} dB")),
            ("  trivial: the mean image", format!("{mean_image:.2} dB")),
            ("error of the predicted noise", format!("{noise:.4}")),
            ("  trivial: with another caption", format!("{noise_other_caption:.4}")),
            ("  trivial: without a caption", format!("{noise_no_caption:.4}")),
        ]
    }

    /// Formats the scores as lines for a terminal.
    pub fn lines(&self) -> Vec<String> {
        let title = format!("scores on {} ({} images)", self.split, self.images);
        let rows = self.rows().map(|(name, value)| format!("  {name:<48} {value}"));
        std::iter::once(title).chain(rows).collect()
    }

    /// Returns the card of a model.
    pub fn card(&self, image_size: usize) -> Card {
        let mut scores = format!("## Scores on `{}` ({} images)\n\n| score | |\n|---|---|\n", self.split, self.images);
        for (name, value) in self.rows() {
            // Writing to a String cannot fail.
            let _ = writeln!(scores, "| {name} | {value} |");
        }
        Card {
            kind: "latent diffusion model of images".to_owned(),
            does: format!("It makes images of {image_size} x {image_size} pixels from captions."),
            scores,
            public_code: "\nThe folders `vae`, `unet`, `text_encoder`, `tokenizer` and `scheduler` are those of the package diffusers: \
                          `StableDiffusionPipeline.from_pretrained(THIS_FOLDER)`.\n"
                .to_owned(),
            hub: HubMetadata { pipeline_tag: Some("text-to-image"), tags: &["latent-diffusion", "diffusers"] },
        }
    }

    /// Explains the scores, the most important one first.
    pub fn explain(&self) -> Vec<ExplainedScore> {
        let meanings = [
            "How near reconstructed images are to the real ones; higher is better.",
            "The same for the mean image of the training: a trivial answer to beat.",
            "The mean squared error of the noise that the U-Net predicts; lower is better, 1 is what no prediction has.",
            "The same with the caption of another image: a trivial answer to beat.",
            "The same without a caption: a trivial answer to beat.",
        ];
        let explained = |((name, value), meaning): ((&str, String), &str)| ExplainedScore {
            name: name.trim().to_owned(),
            value,
            meaning: meaning.to_owned(),
        };
        self.rows().into_iter().zip(meanings).map(explained).collect()
    }
}
