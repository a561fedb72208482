//! The model: parameters, conditions and velocity.

use super::transformer::{Rows, Transformer};
use super::{FloatConfig, Kept, Result};
use candle_core::Tensor;
use flowmill_nn::init::Builder;
use flowmill_nn::layers::{LayerNorm, Linear, position_encodings};
use flowmill_nn::ops::concatenate;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Activation, Context, Parameters, Value, host};

const EPSILON: f32 = 1e-5;

/// FLOAT's flow matching transformer without its weights, which are in the [`Parameters`] that were created with it.
#[derive(Debug, Clone)]
pub struct Float {
    config: FloatConfig,
    transformer: Transformer,
    /// The projection of speech features, if the settings have one.
    projection: Option<(Linear, LayerNorm)>,
}

/// The conditions of a batch of windows.
pub(super) struct Conditions<'a> {
    /// Projected speech `[row, channel]`.
    pub(super) speech: &'a Value,
    /// References `[item, channel]`.
    pub(super) reference: &'a [f32],
    /// Emotions `[item, emotion]`.
    pub(super) emotion: &'a [f32],
    /// The parts of the conditions that each window keeps.
    pub(super) kept: &'a [Kept],
    /// The number of previous frames that the clip of each window does not have: they are silent, as in sampling.
    pub(super) missing: &'a [usize],
}

impl Float {
    /// Creates a model with random weights, under the names of the public `state_dict` and `audio_projection.*`. Weights are Xavier
    /// uniform, biases zero; modulations and the output start at zero, the time embedding with the deviation 0.02, and the projection
    /// of speech features with PyTorch's default: the distributions of the public code. `pos_embed` is fixed.
    ///
    /// # Errors
    /// [`FloatError::Config`](super::FloatError::Config) if the settings are inconsistent.
    pub fn new(config: &FloatConfig, seed: u64) -> Result<(Self, Parameters)> {
        config.check()?;
        let mut parameters = Parameters::new();
        let encodings = position_encodings(config.window(), config.dim_h)?;
        let positions = parameters.add("pos_embed", encodings.tensor().unsqueeze(0)?)?;
        parameters.set_trainable(positions, false);
        let mut builder = Builder::new(&mut parameters, RngKey::new(seed).purpose("initial weights"));
        let transformer = Transformer::new(&mut builder, config, positions)?;
        let mut scope = builder.scope("audio_projection");
        let projection = match config.audio_features {
            0 => None,
            features => Some((
                Linear::new(scope.scope(0), features, config.dim_a)?,
                LayerNorm::new(scope.scope(1), config.dim_a, EPSILON)?,
            )),
        };
        Ok((Self { config: config.clone(), transformer, projection }, parameters))
    }

    /// Returns the settings of the model.
    pub fn config(&self) -> &FloatConfig {
        &self.config
    }

    /// Projects speech features `[row, feature]` to the transformer's conditions `[row, channel]`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn project_audio(&self, context: &Context, features: &Tensor) -> Result<Value> {
        let features = Value::plain(features.clone())?;
        match &self.projection {
            None => Ok(features),
            Some((linear, norm)) => {
                let projected = linear.forward(context, &features)?;
                Ok(norm.forward_activated(context, &projected, Activation::Silu)?)
            }
        }
    }

    /// Returns the velocity `[row, channel]` of all frames for motion `[row, channel]`, with one time per window. `lengths` are the
    /// current frames of each window.
    pub(super) fn velocity(
        &self,
        context: &Context,
        motion: &[f32],
        conditions: &Conditions,
        times: &[f32],
        lengths: &[usize],
    ) -> Result<Value> {
        let (previous, width) = (self.config.num_prev_frames, self.config.dim_w);
        let frames: Vec<usize> = lengths.iter().map(|length| previous + length).collect();
        let rows = Rows::new(&frames);
        let total = rows.windows.total();
        let mut motion = motion.to_vec();
        let (mut reference, mut emotion) = (vec![0.0; total * width], vec![0.0; total * self.config.dim_e]);
        let mut speech_factors = vec![1.0f32; total * self.config.dim_a];
        let items = rows.windows.ranges().iter().enumerate().zip(conditions.kept).zip(conditions.missing);
        for (((item, range), kept), missing) in items {
            let current = range.start + previous..range.end;
            let before = range.start..current.start;
            if !kept.previous_motion {
                motion[before.start * width..before.end * width].fill(0.0);
            }
            let silent = before.start..before.start + missing;
            for (given, rows) in [(false, silent), (kept.previous_audio, before), (kept.audio, current)] {
                if !given {
                    speech_factors[rows.start * self.config.dim_a..rows.end * self.config.dim_a].fill(0.0);
                }
            }
            for (given, all, values) in [
                (kept.reference, &mut reference, conditions.reference),
                (kept.emotion, &mut emotion, conditions.emotion),
            ] {
                let width = all.len() / total;
                let rows = all[range.start * width..range.end * width].chunks_exact_mut(width);
                if given {
                    rows.for_each(|row| row.copy_from_slice(&values[item * width..(item + 1) * width]));
                }
            }
        }
        let speech = match speech_factors.contains(&0.0) {
            true => conditions.speech.multiply(&Value::from_vec(speech_factors, &[total, self.config.dim_a])?)?,
            false => conditions.speech.clone(),
        };
        let device = context.parameters().device();
        let reference = Value::from_vec(reference, &[total, width])?.on(&device)?;
        let emotion = Value::from_vec(emotion, &[total, self.config.dim_e])?.on(&device)?;
        let conditions = concatenate(&[&reference, &speech.on(&device)?, &emotion])?;
        let motion = Value::from_vec(motion, &[total, width])?;
        self.transformer.forward(context, &motion, &conditions, times, &rows)
    }
}

/// Copies the elements of a tensor to the host.
pub(super) fn elements(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(host::read(tensor)?)
}
