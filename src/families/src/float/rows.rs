//! The columns of a row that FLOAT reads.

use flowmill_corpus::{ColumnError, ColumnSpec, DType, Row};
use flowmill_extract::{PORTRAIT, portrait_of};
use flowmill_networks::float::FloatConfig;
use flowmill_video::Frame;

use super::emotions::{self, EMOTION, EMOTION_LABEL};

pub use flowmill_extract::extractors::mel_windows::SPEECH_FEATURES;
pub use flowmill_extract::{MOTION, REFERENCE};

/// The axis of motion and speech features along time.
pub const FRAME: &str = "frame";
/// Frames by which motion and speech features may differ in length; the longer one is cut.
const SLACK: usize = 2;

/// The reason why a row cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RowFault {
    /// A column is missing or of another type or shape.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// The motion has another number of channels than the model.
    #[error("its {column} has {found} channels, the model has {wanted} ({key})")]
    Channels {
        /// The column.
        column: &'static str,
        /// Channels of the column.
        found: usize,
        /// Channels of the model.
        wanted: usize,
        /// The key of the model's number.
        key: &'static str,
    },
    /// There is no frame.
    #[error("it has no frame of motion and speech")]
    Empty,
    /// Motion and speech features have different lengths.
    #[error(
        "it has {motion} frames of motion and {speech} of speech features; are they of the same clip at the same rate?"
    )]
    Lengths {
        /// Frames of the motion.
        motion: usize,
        /// Frames of the speech features.
        speech: usize,
    },
    /// A value is not finite.
    #[error("its {column} has a value that is not finite")]
    NotFinite {
        /// The column.
        column: &'static str,
    },
    /// The label is none of the emotions.
    #[error("its {EMOTION_LABEL} `{label}` is none of {}", emotions::EMOTIONS.join(", "))]
    Emotion {
        /// The label.
        label: String,
    },
    /// The probabilities are not those of the emotions.
    #[error("its {EMOTION} has {found} values, or one that is not finite; expected {}", emotions::EMOTIONS.len())]
    Emotions {
        /// The number of values.
        found: usize,
    },
}

/// Returns the columns of an example.
pub fn columns(config: &FloatConfig) -> Vec<ColumnSpec> {
    vec![
        ColumnSpec::new(MOTION, DType::F32).axis(FRAME).fixed_axis("channel", config.dim_w),
        ColumnSpec::new(REFERENCE, DType::F32).fixed_axis("channel", config.dim_w),
        ColumnSpec::new(SPEECH_FEATURES, DType::F32).axis(FRAME).fixed_axis("feature", config.audio_width()),
        ColumnSpec::new(PORTRAIT, DType::U8).axis("row").axis("column").fixed_axis("color", 3).optional(),
        ColumnSpec::new(EMOTION, DType::F32).axis("class").optional(),
        ColumnSpec::new(EMOTION_LABEL, DType::Text).optional(),
    ]
}

/// A clip in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// Motion `[frame, channel]`.
    pub motion: Vec<f32>,
    /// Speech features `[frame, feature]` of the same frames.
    pub speech: Vec<f32>,
    /// The reference `[channel]`.
    pub reference: Vec<f32>,
    /// The condition of the emotion `[class]`.
    pub emotion: Vec<f32>,
    /// The portrait, if the data have one.
    pub portrait: Option<Frame>,
    /// The number of frames.
    pub frames: usize,
}

impl Clip {
    /// Returns the clip of a row.
    ///
    /// # Errors
    /// The reason why the row cannot be used.
    pub fn of(row: &Row, config: &FloatConfig) -> Result<Self, RowFault> {
        let (motion, [motion_frames, channels]) = row.matrix::<f32>(MOTION)?;
        let (speech, [speech_frames, features]) = row.matrix::<f32>(SPEECH_FEATURES)?;
        let reference = row.values::<f32>(REFERENCE)?;
        let width = config.audio_width();
        for (column, found, wanted, key) in [
            (MOTION, channels, config.dim_w, "train.model.dim_w"),
            (REFERENCE, reference.len(), config.dim_w, "train.model.dim_w"),
            (SPEECH_FEATURES, features, width, "train.model.audio_features"),
        ] {
            if found != wanted {
                return Err(RowFault::Channels { column, found, wanted, key });
            }
        }
        if motion_frames.abs_diff(speech_frames) > SLACK {
            return Err(RowFault::Lengths { motion: motion_frames, speech: speech_frames });
        }
        let frames = motion_frames.min(speech_frames);
        if frames == 0 {
            return Err(RowFault::Empty);
        }
        let (motion, speech) = (&motion[..frames * channels], &speech[..frames * features]);
        for (column, values) in [(MOTION, motion), (SPEECH_FEATURES, speech), (REFERENCE, reference)] {
            if values.iter().any(|value| !value.is_finite()) {
                return Err(RowFault::NotFinite { column });
            }
        }
        Ok(Self {
            motion: motion.to_vec(),
            speech: speech.to_vec(),
            reference: reference.to_vec(),
            emotion: emotions::of(row)?,
            // A portrait that cannot be shown is none: training does not read it.
            portrait: row.columns.get(PORTRAIT).and_then(|array| portrait_of(array).ok()),
            frames,
        })
    }
}
