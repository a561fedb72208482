//! The columns of a row: a user with a history and a target.

use flowmill_corpus::{Array, ColumnError, ColumnSpec, DType, Row};
use flowmill_extract::extractors::pixels::ImageTransform;
use flowmill_image::{Limits, Raster, decode};

use super::config::PmgModelConfig;

pub use flowmill_extract::extractors::prompt_tokens::{INPUT_IDS as TOKENS, TOKEN_LEN as LENGTH};
pub use flowmill_networks::extractors::vae_latents::{LATENT_DEVIATION, LATENT_MEAN};

/// The images in their own formats: the target, then the history.
pub const IMAGES: &str = "image_data";
/// The caption of the target.
pub const TEXT: &str = "text";

/// The reason why a row cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RowFault {
    /// A column is missing or of another type or shape.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// The prompt is empty.
    #[error("its prompt has no tokens")]
    Empty,
    /// A token that the language model does not have.
    #[error(
        "its prompt has the token {token}; the language model has {vocabulary} (train.tiny.vocab_size, or another train.llama)"
    )]
    Token {
        /// The token.
        token: i64,
        /// Number of the model's tokens.
        vocabulary: usize,
    },
    /// The prompt is longer than the model's limit.
    #[error(
        "its prompt has {tokens} tokens; with {prompts} image prompts it is {excess} longer than train.model.max_sequence_length, {limit}"
    )]
    TooLong {
        /// Number of its tokens.
        tokens: usize,
        /// Number of image prompts.
        prompts: usize,
        /// The largest number of both.
        limit: usize,
        /// The number that is too many.
        excess: usize,
    },
    /// The latents have another shape than the U-Net's.
    #[error(
        "its latents have the shape {found:?}; the diffusion model needs {wanted:?} for images of train.model.image_size"
    )]
    Latents {
        /// The shape of the column.
        found: Vec<usize>,
        /// The shape of the model's latents.
        wanted: [usize; 3],
    },
    /// A value is not finite.
    #[error("its {column} has a value that is not finite")]
    NotFinite {
        /// The column.
        column: &'static str,
    },
    /// An image cannot be decoded.
    #[error("its image {number}: {problem}")]
    Image {
        /// The position of the image, counted from 0.
        number: usize,
        /// The problem.
        problem: String,
    },
}

/// Returns the columns that training reads.
pub fn columns() -> Vec<ColumnSpec> {
    let latents = |name: &str| ColumnSpec::new(name, DType::F32).axis("row").axis("column").axis("channel");
    vec![
        ColumnSpec::new(TOKENS, DType::I32).axis("token"),
        ColumnSpec::new(LENGTH, DType::I32).optional(),
        latents(LATENT_MEAN),
        latents(LATENT_DEVIATION),
    ]
}

/// Returns the columns that scoring reads.
pub fn columns_of_scores() -> Vec<ColumnSpec> {
    let more =
        [ColumnSpec::new(IMAGES, DType::Bytes).axis("image").optional(), ColumnSpec::new(TEXT, DType::Text).optional()];
    columns().into_iter().chain(more).collect()
}

/// A user in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// The tokens of the prompt, without padding.
    pub tokens: Vec<u32>,
    /// The means of the target's latents, `[row, column, channel]`.
    pub mean: Vec<f32>,
    /// The deviations of the target's latents.
    pub deviation: Vec<f32>,
}

impl User {
    /// Returns the user of a row.
    ///
    /// # Errors
    /// The reason why the row cannot be used.
    pub fn of(row: &Row, config: &PmgModelConfig) -> Result<Self, RowFault> {
        let (vocabulary, channels) =
            config.frozen.as_deref().map_or((0, 0), |frozen| (frozen.llama.vocab_size, frozen.unet.in_channels));
        let padded = row.values::<i32>(TOKENS)?;
        let length = row.value::<i32>(LENGTH).ok().and_then(|length| usize::try_from(*length).ok());
        let tokens = &padded[..length.unwrap_or(padded.len()).min(padded.len())];
        if tokens.is_empty() {
            return Err(RowFault::Empty);
        }
        let (prompts, limit) = (config.num_image_prompt, config.max_sequence_length);
        if tokens.len() + prompts > limit {
            let excess = tokens.len() + prompts - limit;
            return Err(RowFault::TooLong { tokens: tokens.len(), prompts, limit, excess });
        }
        let known = |token: &i32| {
            let found = u32::try_from(*token).ok().filter(|token| (*token as usize) < vocabulary);
            found.ok_or(RowFault::Token { token: i64::from(*token), vocabulary })
        };
        let tokens = tokens.iter().map(known).collect::<Result<_, _>>()?;
        let size = config.latent_size();
        let wanted = [size, size, channels];
        let latents = |name: &'static str| {
            let array: &Array = row.column(name)?;
            if array.shape() != wanted {
                return Err(RowFault::Latents { found: array.shape().to_vec(), wanted });
            }
            let values = row.values::<f32>(name)?.to_vec();
            match values.iter().all(|value| value.is_finite()) {
                true => Ok(values),
                false => Err(RowFault::NotFinite { column: name }),
            }
        };
        Ok(Self { tokens, mean: latents(LATENT_MEAN)?, deviation: latents(LATENT_DEVIATION)? })
    }
}

/// Returns the images of a row at the model's size: the target, then the history. Empty if the data have none.
///
/// # Errors
/// The image that cannot be decoded.
pub fn images(row: &Row, config: &PmgModelConfig) -> Result<Vec<Raster>, RowFault> {
    let Ok(encoded) = row.values::<Vec<u8>>(IMAGES) else { return Ok(Vec::new()) };
    let transform = ImageTransform { size: config.image_size, ..ImageTransform::default() };
    let decoded = |(number, bytes): (usize, &Vec<u8>)| {
        let image = decode(bytes, &Limits::default());
        let image = image.map_err(|error| RowFault::Image { number, problem: error.to_string() })?;
        transform.apply(&image).map_err(|error| RowFault::Image { number, problem: error.to_string() })
    };
    encoded.iter().enumerate().map(decoded).collect()
}
