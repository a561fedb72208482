//! The scorer: for held-out users, the error of the predicted noise and generated images, next to those with another user's history and
//! without a prompt.

use std::sync::Arc;

use flowmill_corpus::{ColumnSpec, Row};
use flowmill_family::{BoxError, Loaded, Report, Scored, Scorer};
use flowmill_image::Raster;
use flowmill_nn::Value;
use flowmill_nn::random::RngKey;
use serde_json::json;

use super::imagination::{Imagination, Places};
use super::measures::{Judges, mean_image, structural};
use super::network::Example;
use super::rows::{self, User};
use super::scores::{Compared, Scores, UserScores};
use super::{ExportOptions, Pmg};
use crate::image_sheet::{Sheet, image};

/// Seeds of the noise whose errors are compared.
const SEEDS: u64 = 3;
/// Most users on the sheet.
const SHOWN: usize = 8;

/// Scores a split.
pub struct UserScorer {
    imagination: Imagination,
    judges: Judges,
    options: ExportOptions,
    rng_key: RngKey,
    scores: Vec<UserScores>,
    sheet: Vec<(String, Vec<Vec<Raster>>)>,
}

/// A held-out user in memory.
struct HeldOut {
    example: Example,
    /// The target, then the history; empty if the data have no images.
    images: Vec<Raster>,
    conditions: Value,
}

/// Images that were generated for a user.
struct Generated {
    own: Raster,
    other: Raster,
    none: Raster,
}

impl UserScorer {
    /// Prepares scoring a model.
    ///
    /// # Errors
    /// Returns an error if a frozen network is missing or not that of the training.
    pub fn new(loaded: Loaded<Pmg>, options: ExportOptions, seed: u64) -> Result<Self, BoxError> {
        let frozen = loaded.config.frozen()?;
        let place = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| loaded.folder.join(path));
        let (lpips, clip) = (place(&frozen.lpips_file), place(&frozen.clip_folder));
        let judges = Judges::open(lpips.as_deref(), clip.as_deref(), &loaded.device)?;
        Ok(Self {
            imagination: Imagination::open(loaded, &Places::default())?,
            judges,
            options,
            rng_key: RngKey::new(seed).purpose("scores"),
            scores: Vec::new(),
            sheet: Vec::new(),
        })
    }

    fn held_out(&self, row: &Row, sample: u64) -> Result<HeldOut, BoxError> {
        let user = User::of(row, &self.imagination.config)?;
        let images = rows::images(row, &self.imagination.config)?;
        let example = Example { user, sample };
        let context = self.imagination.context();
        let conditions = self.imagination.network.conditions(&context, std::slice::from_ref(&example))?;
        Ok(HeldOut { example, images, conditions })
    }

    /// Returns the error of the noise for each seed.
    fn noise(&self, user: &HeldOut, other: &Value, none: &Value) -> Result<Vec<Compared>, BoxError> {
        let draws = self.options.noise_draws;
        let of_seed = |seed: u64| {
            let key = self.rng_key.purpose("noise").epoch(seed);
            let error = |conditions: &Value| self.imagination.noise_error(conditions, &user.example, draws, &key);
            Ok(Compared {
                own_history: error(&user.conditions)?,
                other_history: error(other)?,
                no_prompt: error(none)?,
                history_mean: None,
            })
        };
        (0..SEEDS).map(of_seed).collect()
    }

    /// Generates from the own history, from another one, and without a prompt, each from the same noise.
    fn generate(&self, user: &HeldOut, other: &Value, none: &Value) -> Result<Generated, BoxError> {
        let ExportOptions { images, negative_prompt, .. } = &self.options;
        let key = self.rng_key.purpose("images").sample(user.example.sample);
        let one = |conditions: &Value| -> Result<Raster, BoxError> {
            let made = self.imagination.images(conditions, negative_prompt, images, &[key], &mut |_, _| {})?;
            Ok(made.into_iter().next().ok_or("no image was made")?)
        };
        Ok(Generated { own: one(&user.conditions)?, other: one(other)?, none: one(none)? })
    }

    /// Compares generated images with the target and the history.
    fn compare(&self, scores: &mut UserScores, user: &HeldOut, generated: &Generated) -> Result<(), BoxError> {
        let Some((target, history)) = user.images.split_first().filter(|(_, history)| !history.is_empty()) else {
            return Ok(());
        };
        let mean = mean_image(history)?;
        type Measure<'a> = dyn Fn(&Raster) -> Result<Option<f64>, BoxError> + 'a;
        let compared = |measure: &Measure<'_>| -> Result<Option<Compared>, BoxError> {
            let [own, other, none] = [&generated.own, &generated.other, &generated.none].map(measure);
            let history_mean = measure(&mean)?;
            let figures = (own?, other?, none?);
            let (Some(own_history), Some(other_history), Some(no_prompt)) = figures else { return Ok(None) };
            Ok(Some(Compared { own_history, other_history, no_prompt, history_mean }))
        };
        scores.ssim = compared(&|image: &Raster| structural(image, target).map(Some))?;
        scores.lpips = compared(&|image: &Raster| self.judges.perceptual(image, target))?;
        scores.clip_target = compared(&|image: &Raster| self.judges.similarity(image, std::slice::from_ref(target)))?;
        scores.clip_history = compared(&|image: &Raster| self.judges.similarity(image, history))?;
        Ok(())
    }
}

impl Scorer for UserScorer {
    fn columns(&self) -> Vec<ColumnSpec> {
        rows::columns_of_scores()
    }

    fn learn(&mut self, _: &Row) -> Result<(), BoxError> {
        // The trivial answers need nothing of the training.
        Ok(())
    }

    fn score(&mut self, rows: &[Arc<Row>], interrupted: &dyn Fn() -> bool) -> Result<Vec<Scored>, BoxError> {
        let first = self.scores.len() as u64;
        let users: Vec<Result<HeldOut, String>> = rows
            .iter()
            .zip(first..)
            .map(|(row, number)| self.held_out(row, number).map_err(|error| error.to_string()))
            .collect();
        let empty = self.imagination.caption("")?;
        let mut scored: Vec<Scored> = Vec::new();
        for (at, (row, user)) in rows.iter().zip(&users).enumerate() {
            if interrupted() {
                break;
            }
            let user = match user {
                Ok(user) => user,
                Err(reason) => {
                    scored.push(Err(reason.clone()));
                    continue;
                }
            };
            // The next user with another prompt; a single one has its own.
            let mut others = (1..rows.len()).filter_map(|step| users[(at + step) % rows.len()].as_ref().ok());
            let other = others.find(|other| other.example.user.tokens != user.example.user.tokens);
            let other = other.map_or(&user.conditions, |other| &other.conditions);
            let mut scores =
                UserScores { user: row.id.clone(), noise: self.noise(user, other, &empty)?, ..UserScores::default() };
            let generated = self.generate(user, other, &empty)?;
            self.compare(&mut scores, user, &generated)?;
            self.scores.push(scores);
            let output = flowmill_family::Output::Images(vec![image(&generated.own)]);
            scored.push(Ok(vec![flowmill_family::Made {
                name: row.id.clone(),
                title: row.id.clone(),
                output,
                real: None,
            }]));
            if self.sheet.len() < SHOWN {
                let (target, history) = user.images.split_at(user.images.len().min(1));
                let cells = vec![
                    history.to_vec(),
                    target.to_vec(),
                    vec![generated.own],
                    vec![generated.other],
                    vec![generated.none],
                ];
                self.sheet.push((row.id.clone(), cells));
            }
        }
        if let Some(made) = scored.iter_mut().find_map(|scored| scored.as_mut().ok())
            && first == 0
        {
            let columns = ["history", "target", "own history", "another's", "no prompt"].map(str::to_owned).to_vec();
            made.push(Sheet { columns, rows: std::mem::take(&mut self.sheet) }.made("grid")?);
        }
        Ok(scored)
    }

    fn finish(self: Box<Self>, split: &str) -> Report {
        let scores = Scores::of(split, self.scores);
        Report { lines: scores.lines(), facts: scores.facts(), rows: scores.users as u64, scores: json!(scores) }
    }
}
