//! The `packed` kind: columns that packed shards have already.
//!
//! Nothing is fitted and nothing listened to: stage 3 reads the columns from the shards. The state that stands for the extractor says only
//! what the columns are, and an exported model that is asked about a new recording says that it cannot tell.

use candle_core::Device;
use flowmill_corpus::ColumnSpec;
use flowmill_corpus::packed::SampledColumn;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dual_codebook::MIXED_RATE;
use crate::{Column, ConfigError, ExtractError, Extracted, Extractor, Kind, Media, State, StateError, ValueType};

/// The extractor's kind.
pub const KIND: &str = "packed";

/// Rates of published units, in units per second.
const RATES: [f64; 6] = [12.5, 25.0, MIXED_RATE, 50.0, 75.0, 86.1328125];
/// The largest relative difference between a measured rate and the rate that it is: a few units more or fewer at the ends of utterances.
const TOLERANCE: f64 = 0.08;

/// Settings of the `packed` extractor, as the shards show them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PackedConfig {
    /// The columns.
    pub columns: Vec<PackedColumn>,
}

/// A column of packed shards.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PackedColumn {
    /// The name.
    pub name: String,
    /// The type and the axes.
    pub values: String,
    /// The smallest vocabulary that contains the units that were sampled; 0 of other values.
    pub vocabulary: usize,
    /// The units per second; 0 of other values.
    pub rate: f64,
}

impl PackedColumn {
    /// Returns a column of an extractor as shards have it.
    ///
    /// # Errors
    /// The reason why the column of the shards is not of the extractor's kind, as words that follow its name.
    pub fn of(column: &Column, found: &SampledColumn) -> Result<Self, String> {
        let mut spec = column.spec.clone();
        if !spec.accepts(found.dtype) || found.sizes.len() != spec.axes.len() {
            let (dtype, axes) = (found.dtype, found.sizes.len());
            return Err(format!(
                "has values of type {dtype} with {axes} axes, expected {} {}",
                spec.dtype,
                spec.shape_text()
            ));
        }
        for (axis, size) in spec.axes.iter_mut().zip(&found.sizes).filter(|(axis, _)| axis.size.is_some()) {
            axis.size = Some(size.ok_or_else(|| format!("has rows of different sizes along `{}`", axis.name))?);
        }
        let vocabulary = found.most.map_or(0, |most| usize::try_from(most).map_or(0, |most| most + 1));
        let text = spec.to_string();
        let values = text.split_once(": ").map_or(text.as_str(), |(_, values)| values).to_owned();
        let (vocabulary, rate) = match column.values {
            ValueType::Tokens { rate, .. } | ValueType::Codes { rate, .. } => {
                let measured = found.rate().ok_or("is of recordings whose durations cannot be read")?;
                (vocabulary.max(1), nearest(measured, rate))
            }
            _ => (0, 0.0),
        };
        Ok(Self { name: spec.name, values, vocabulary, rate })
    }

    /// Returns the column; `None` of one whose type cannot be parsed.
    fn column(&self) -> Option<Column> {
        let spec = ColumnSpec::parse(&self.name, &self.values).ok()?;
        let (vocabulary, rate) = (self.vocabulary, self.rate);
        let sizes: Vec<Option<usize>> = spec.axes.iter().map(|axis| axis.size).collect();
        let values = match (sizes.as_slice(), rate > 0.0) {
            ([Some(levels), None], true) => ValueType::Codes { levels: *levels, vocabulary, rate },
            ([None], true) => ValueType::Tokens { vocabulary, rate },
            ([Some(dimensions)], false) if self.name.ends_with("_embedding") => {
                ValueType::Embedding { dimensions: *dimensions }
            }
            _ => ValueType::Other,
        };
        Some(Column { spec, values })
    }
}

/// Returns the rate that a measured one is: that of the extractor in the recipe, or a published one, or itself.
fn nearest(measured: f64, stated: f64) -> f64 {
    let is_near = |rate: &f64| (measured / rate - 1.0).abs() <= TOLERANCE;
    let distance = |rate: &f64| (measured - rate).abs();
    let published = RATES.into_iter().filter(is_near).min_by(|a, b| distance(a).total_cmp(&distance(b)));
    Some(stated).filter(is_near).or(published).unwrap_or(measured)
}

impl Kind for PackedConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Columns that packed shards have (`prep.data` of `format: shards`), taken as they are. It is chosen by itself, and a \
                                 recipe cannot name it: where all shards have the columns of the extractor in the recipe, that extractor is not run, \
                                 and its weights need not be there. The width of embeddings and the rate of tokens are those of the shards.";

    fn columns(&self) -> Vec<Column> {
        self.columns.iter().filter_map(PackedColumn::column).collect()
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(Packed { config: state.settings_as(KIND)? }))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.columns.is_empty() {
            let reason = "`packed` is chosen by itself if all of prep.data are shards (`format: shards`) with the columns; name the extractor that made \
                          them, or none";
            return Err(ConfigError::new("kind", reason));
        }
        Ok(())
    }
}

/// Stands for the extractor that made the columns, which is not here.
struct Packed {
    config: PackedConfig,
}

impl Extractor for Packed {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, _: &Media) -> Result<Extracted, ExtractError> {
        let names: Vec<&str> = self.config.columns.iter().map(|column| column.name.as_str()).collect();
        Err(ExtractError::Media(format!(
            "its {} would have to be extracted, but this model's were taken from packed shards; only their extractor's weights can",
            names.join(" and ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measured_rate_is_the_stated_or_a_published_one() {
        assert_eq!(nearest(25.6, 25.0), 25.0);
        assert_eq!(nearest(40.9, 25.0), MIXED_RATE);
        assert_eq!(nearest(49.7, 0.0), 50.0);
        assert_eq!(nearest(20.5, 21.0), 21.0);
        assert_eq!(nearest(33.0, 25.0), 33.0);
    }

    #[test]
    fn columns_survive_their_description() {
        let column = |name: &str, values: &str, vocabulary, rate| {
            PackedColumn { name: name.into(), values: values.into(), vocabulary, rate }.column().unwrap()
        };
        let embedding = Column::embedding("utt_embedding", 192);
        assert_eq!(column("utt_embedding", "f32 [value 192]", 0, 0.0), embedding);
        assert_eq!(column("speech_token", "i64 [token]", 6561, 25.0), Column::tokens("speech_token", 6561, 25.0));
        assert_eq!(column("codes", "i32 [level 8, frame]", 1024, 75.0), Column::codes(8, 1024, 75.0));
        assert_eq!(PackedConfig::default().check().unwrap_err().field, "kind");
    }
}
