//! The fit of the centers, level by level.

use flowmill_nn::random::RngKey;

use super::{KIND, Measure, RvqKmeansConfig};
use crate::clustering::{Clustering, Reservoir, rounded};
use crate::extractors::kmeans::Usage;
use crate::{Accumulator, ConfigError, ExtractError, Fit, Fitted, Kind, Matrix, Media, Scope, State, StateError};

/// The array of the centers, `[level, code, band]`.
pub(super) const CENTERS: &str = "centers";

/// The array of the smallest and the largest value of the frames that the centers are fitted on.
pub(super) const RANGE: &str = "range";

/// Fits the centers of all levels.
pub struct RvqKmeansFit {
    config: RvqKmeansConfig,
    measure: Measure,
    rng_key: RngKey,
}

impl RvqKmeansFit {
    /// Prepares to fit with these settings; `seed` decides which frames are sampled and where the centers start.
    ///
    /// # Errors
    /// The setting that cannot be used.
    pub fn new(config: RvqKmeansConfig, seed: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let measure = Measure::new(&config).map_err(|error| ConfigError::new("n_mels", error.to_string()))?;
        Ok(Self { config, measure, rng_key: RngKey::new(seed).purpose(KIND) })
    }

    fn reservoir(&self, scope: Scope) -> Reservoir {
        let capacity = match scope {
            Scope::Part => self.config.max_frames_per_part,
            Scope::Whole => self.config.max_frames,
        };
        Reservoir::new(KIND, self.config.measuring(), self.config.n_mels, capacity, self.rng_key.purpose("sample"))
    }
}

impl Fit for RvqKmeansFit {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn measure(&self, media: &Media) -> Result<Matrix, ExtractError> {
        self.measure.measure(media)
    }

    fn accumulator(&self, scope: Scope) -> Box<dyn Accumulator> {
        Box::new(self.reservoir(scope))
    }

    fn finish(&self, state: &State) -> Result<Fitted, StateError> {
        let RvqKmeansConfig { levels, k, iterations, n_mels, .. } = self.config;
        let mut sample = self.reservoir(Scope::Whole);
        sample.absorb(state)?;
        let seen = sample.seen();
        let frames = sample.into_frames();
        if frames.rows() < k {
            let reason = format!(
                "the training split has {} frames, fewer than k = {k}; lower k or add recordings",
                frames.rows()
            );
            return Err(StateError::NotEnough { kind: KIND, reason });
        }
        let range = frames.as_slice().iter().fold([f32::MAX, f32::MIN], |[low, high], x| [low.min(*x), high.max(*x)]);
        let mut facts = vec![("frames".to_owned(), seen.into()), ("fitted on".to_owned(), frames.rows().into())];
        let variance = mean_square_around_mean(&frames);
        let mut centers = Vec::with_capacity(levels * k * n_mels);
        let mut rest = frames;
        for level in 0..levels {
            let rng_key = self.rng_key.purpose("seeding").sample(level as u64);
            let clustering = Clustering::fit(&rest, k, iterations, rng_key);
            if !clustering.centres.is_finite() {
                return Err(StateError::NotFinite { kind: KIND });
            }
            rest = residual(&rest, &clustering);
            let usage = Usage::of(clustering.assignment.iter().map(|&code| code as usize), k);
            let explained = if variance > 0.0 { 1.0 - clustering.distortion / variance } else { 1.0 };
            facts.push((format!("variance explained by {} levels", level + 1), rounded(explained).into()));
            facts.push((format!("perplexity of level {level}"), rounded(usage.perplexity()).into()));
            centers.extend_from_slice(clustering.centres.as_slice());
        }
        let mut state = State::new(KIND, serde_json::json!(self.config));
        state.set_f32(CENTERS, &[levels, k, n_mels], centers);
        state.set_f32(RANGE, &[2], range.to_vec());
        Ok(Fitted { state, facts })
    }
}

/// Returns the frames minus their centers.
fn residual(frames: &Matrix, clustering: &Clustering) -> Matrix {
    let rows = frames.iter().zip(&clustering.assignment);
    let difference = |(frame, code): (&[f32], &u32)| {
        let center = clustering.centres.row(*code as usize);
        frame.iter().zip(center).map(|(value, center)| value - center).collect::<Vec<f32>>()
    };
    Matrix::new(rows.flat_map(difference).collect(), frames.columns())
}

/// The mean squared distance of the frames to their mean.
fn mean_square_around_mean(frames: &Matrix) -> f64 {
    let count = frames.rows().max(1) as f64;
    let mut means = vec![0.0f64; frames.columns()];
    let mut squares = 0.0f64;
    for frame in frames.iter() {
        for (mean, value) in means.iter_mut().zip(frame) {
            *mean += f64::from(*value) / count;
        }
    }
    for frame in frames.iter() {
        squares += frame.iter().zip(&means).map(|(value, mean)| (f64::from(*value) - mean).powi(2)).sum::<f64>();
    }
    squares / count
}
