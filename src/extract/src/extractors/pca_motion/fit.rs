//! The fit of the components.

use flowmill_nn::random::RngKey;
use serde_json::json;

use super::components::{Components, signed};
use super::{COMPONENTS, DEVIATIONS, KIND, MEAN, MOUTH, PcaMotionConfig, REFERENCE_SCALE, mean_of, numbers};
use crate::clustering::{Reservoir, rounded};
use crate::linear_algebra::symmetric_eigen;
use crate::{Accumulator, ExtractError, Fit, Fitted, Matrix, Media, Scope, State, StateError};

/// Most portraits that the reference is fitted on.
const MOST_PORTRAITS: usize = 500;
/// Most frames of one clip that are measured; of a longer one every n-th is.
const MOST_OF_CLIP: usize = 500;

/// Fits the components of motion.
pub struct PcaMotionFit {
    config: PcaMotionConfig,
    rng_key: RngKey,
    /// The share to which each value of a frame moves.
    weights: Vec<f32>,
}

impl PcaMotionFit {
    /// Prepares to fit with these settings, which must be valid; `seed` decides which frames are sampled.
    pub fn new(config: PcaMotionConfig, seed: u64) -> Self {
        Self { rng_key: RngKey::new(seed).purpose(KIND), weights: config.weights(), config }
    }

    fn samples(&self, scope: Scope) -> Samples {
        let capacity = match scope {
            Scope::Part => self.config.max_frames_per_part,
            Scope::Whole => self.config.max_frames,
        };
        let reservoir = |capacity, purpose| {
            let (settings, pixels) = (self.config.measuring(), self.config.pixels());
            Reservoir::new(KIND, settings, pixels, capacity, self.rng_key.purpose(purpose))
        };
        let settings = self.config.measuring();
        Samples { settings, motion: reservoir(capacity, "motion"), portraits: reservoir(MOST_PORTRAITS, "portrait") }
    }
}

impl Fit for PcaMotionFit {
    fn kind(&self) -> &'static str {
        KIND
    }

    /// Returns the mean of a clip's frames, followed by the differences of its frames to the mean, as far as they move.
    fn measure(&self, media: &Media) -> Result<Matrix, ExtractError> {
        let clip = media.video(KIND, &self.config.frames)?;
        let frames = &clip.frames;
        let every = frames.len().div_ceil(MOST_OF_CLIP).max(1);
        let mean = mean_of(frames);
        let mut measured = mean.clone();
        for frame in frames.iter().step_by(every) {
            let differences = numbers(frame).zip(&mean).map(|(value, mean)| value - mean);
            measured.extend(differences.zip(&self.weights).map(|(difference, weight)| difference * weight));
        }
        Ok(Matrix::new(measured, self.config.pixels()))
    }

    fn accumulator(&self, scope: Scope) -> Box<dyn Accumulator> {
        Box::new(self.samples(scope))
    }

    fn finish(&self, state: &State) -> Result<Fitted, StateError> {
        let mut samples = self.samples(Scope::Whole);
        samples.absorb(state)?;
        let (seen, wanted, pixels) = (samples.motion.seen(), self.config.components, self.config.pixels());
        let (motion, portraits) = (samples.motion.into_frames(), samples.portraits.into_frames());
        let not_enough = |reason: String| StateError::NotEnough { kind: KIND, reason };
        if motion.rows() <= wanted {
            let reason =
                format!("the training split has {} frames, not more than components = {wanted}", motion.rows());
            return Err(not_enough(reason));
        }
        let found = Components::of(&motion, wanted, self.rng_key.purpose("components"));
        let found = found.ok_or(StateError::NotFinite { kind: KIND })?;
        if found.directions.len() < wanted {
            let reason =
                format!("the frames vary in {} directions only; set components to that", found.directions.len());
            return Err(not_enough(reason));
        }
        let deviations: Vec<f64> = found.variances.iter().map(|variance| variance.sqrt()).collect();
        let mean = mean_of_rows(&portraits);
        let reference_scale = reference_scale(&portraits, &mean, &self.weights, &found, &deviations);
        let mouth = self.mouth(&found, &deviations).ok_or(StateError::NotFinite { kind: KIND })?;
        let explained = found.variances.iter().sum::<f64>() / found.total.max(f64::MIN_POSITIVE);
        let facts = vec![
            ("frames".to_owned(), seen.into()),
            ("fitted on".to_owned(), motion.rows().into()),
            ("clips".to_owned(), portraits.rows().into()),
            (format!("variance explained by {wanted} components"), rounded(explained).into()),
        ];
        let narrow = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect::<Vec<f32>>();
        let mut state = State::new(KIND, json!(self.config));
        state.set_f32(COMPONENTS, &[wanted, pixels], narrow(found.directions.concat()));
        state.set_f32(DEVIATIONS, &[wanted], narrow(deviations));
        state.set_f32(MEAN, &[pixels], narrow(mean));
        state.set_f32(REFERENCE_SCALE, &[1], vec![reference_scale as f32]);
        state.set_f32(MOUTH, &[wanted], narrow(mouth));
        Ok(Fitted { state, facts })
    }
}

impl PcaMotionFit {
    /// Returns the direction in the space of motion along which the part of the mouth changes most: the first principal component of the
    /// pixels of that part, which are linear in motion of unit variance.
    fn mouth(&self, found: &Components, deviations: &[f64]) -> Option<Vec<f64>> {
        let places: Vec<usize> = (0..self.config.pixels()).filter(|value| self.config.is_mouth(*value)).collect();
        let channels: Vec<Vec<f64>> = found
            .directions
            .iter()
            .zip(deviations)
            .map(|(direction, deviation)| places.iter().map(|place| direction[*place] * deviation).collect())
            .collect();
        let product = |one: &Vec<f64>, other: &Vec<f64>| one.iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
        let products: Vec<f64> = channels
            .iter()
            .flat_map(|one| channels.iter().map(|other| product(one, other)).collect::<Vec<_>>())
            .collect();
        let first = symmetric_eigen(&products, channels.len())?.into_iter().next()?;
        Some(signed(first.1))
    }
}

/// Returns the factor that gives references on the training clips a mean square of 1.
fn reference_scale(portraits: &Matrix, mean: &[f64], weights: &[f32], found: &Components, deviations: &[f64]) -> f64 {
    let mut squares = 0.0;
    for portrait in portraits.iter() {
        let differences = portrait.iter().zip(mean).map(|(value, mean)| f64::from(*value) - mean);
        let differences: Vec<f64> =
            differences.zip(weights).map(|(value, weight)| value * f64::from(*weight)).collect();
        for (direction, deviation) in found.directions.iter().zip(deviations) {
            squares += (differences.iter().zip(direction).map(|(a, b)| a * b).sum::<f64>() / deviation).powi(2);
        }
    }
    let mean_square = squares / (portraits.rows() * deviations.len()).max(1) as f64;
    if mean_square > 1e-12 { 1.0 / mean_square.sqrt() } else { 1.0 }
}

fn mean_of_rows(rows: &Matrix) -> Vec<f64> {
    let mut mean = vec![0.0; rows.columns()];
    for row in rows.iter() {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value) / rows.rows().max(1) as f64);
    }
    mean
}

/// Samples of the motion and of the portraits of clips.
struct Samples {
    settings: serde_json::Value,
    motion: Reservoir,
    portraits: Reservoir,
}

impl Accumulator for Samples {
    fn add(&mut self, id: &str, measured: &Matrix) -> Result<(), StateError> {
        let columns = measured.columns();
        let (portrait, motion) = measured.as_slice().split_at(columns.min(measured.as_slice().len()));
        self.portraits.add(id, &Matrix::new(portrait.to_vec(), columns))?;
        self.motion.add(id, &Matrix::new(motion.to_vec(), columns))
    }

    fn absorb(&mut self, state: &State) -> Result<(), StateError> {
        state.expect_kind(KIND)?;
        let part = |name: &str| state.part(name, KIND, self.settings.clone());
        self.motion.absorb(&part("motion"))?;
        self.portraits.absorb(&part("portraits"))
    }

    fn into_state(self: Box<Self>) -> State {
        let mut state = State::new(KIND, self.settings);
        state.set_part("motion", Box::new(self.motion).into_state());
        state.set_part("portraits", Box::new(self.portraits).into_state());
        state
    }
}
