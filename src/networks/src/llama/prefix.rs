//! Keys and values that every item of a batch sees before its own rows, and the rows of attention with them.

use super::LlamaConfig;
use flowmill_nn::ops::concatenate;
use flowmill_nn::{AttentionMask, NnError, Ragged, Result, Value};

/// Keys and values of a prefix, `[row, key-value head x channel]` for each block. Keys are used as they are, without rotary positions.
#[derive(Debug, Clone)]
pub struct Prefix {
    rows: usize,
    blocks: Vec<[Value; 2]>,
}

impl Prefix {
    /// Creates a prefix from the keys and values of each block.
    ///
    /// # Errors
    /// When there is no block, or the shapes differ.
    pub fn new(blocks: Vec<[Value; 2]>) -> Result<Self> {
        let shape = blocks.first().map(|[keys, _]| keys.dims().to_vec()).unwrap_or_default();
        if shape.len() != 2 {
            return Err(NnError::shape("prefix", "keys [row, channel] of at least one block", &shape));
        }
        if let Some(other) = blocks.iter().flatten().find(|value| value.dims() != shape) {
            return Err(NnError::shape("prefix", format!("{shape:?} in every block"), other.dims()));
        }
        Ok(Self { rows: shape[0], blocks })
    }

    /// Splits a table `[row, block x 2 x channel]` whose rows hold the keys and values of one position in every block.
    ///
    /// # Errors
    /// When the table is not that of a transformer of these dimensions.
    pub fn from_table(table: &Value, config: &LlamaConfig) -> Result<Self> {
        let (parts, width) = (2 * config.layers, config.key_value_width());
        let &[rows, columns] = table.dims() else {
            return Err(NnError::shape("prefix", "[row, block x 2 x channel]", table.dims()));
        };
        if columns != parts * width || rows == 0 {
            return Err(NnError::shape("prefix", format!("[row, {}]", parts * width), table.dims()));
        }
        let by_part = table.reshape(&[rows, parts, width])?.swap_middle()?.reshape(&[parts * rows, width])?;
        let part = |part: usize| by_part.select_rows(&(part * rows..(part + 1) * rows).collect::<Vec<_>>());
        Self::new((0..config.layers).map(|block| Ok([part(2 * block)?, part(2 * block + 1)?])).collect::<Result<_>>()?)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Keys and values of each block.
    pub(super) fn blocks(&self) -> &[[Value; 2]] {
        &self.blocks
    }

    /// Checks that it belongs to a transformer.
    pub(super) fn check(&self, config: &LlamaConfig) -> Result<()> {
        let found = [self.blocks.len(), self.blocks[0][0].width()];
        if found != [config.layers, config.key_value_width()] {
            let expected = format!("{} blocks of {} channels", config.layers, config.key_value_width());
            return Err(NnError::shape("prefix", expected, &found));
        }
        Ok(())
    }
}

/// The rows of keys that the attention of a batch reads: those of the items, each after a copy of the prefix.
#[derive(Debug, Clone)]
pub(super) struct KeyRows {
    /// Number of rows of the prefix.
    prefix: usize,
    /// The row of the prefix or (after it) of the batch at each row of the keys.
    sources: Vec<u32>,
    /// Rows of the keys of each item.
    pub(super) items: Ragged,
}

impl KeyRows {
    /// Arranges the keys of a batch after a prefix of this many rows.
    pub(super) fn new(items: &Ragged, prefix: usize) -> Self {
        if prefix == 0 {
            return Self { prefix, sources: Vec::new(), items: items.clone() };
        }
        let of_item = |rows: &std::ops::Range<usize>| (0..prefix).chain(rows.start + prefix..rows.end + prefix);
        let sources = items.ranges().iter().flat_map(of_item).map(|row| row as u32).collect();
        let lengths: Vec<usize> = items.lengths().iter().map(|length| length + prefix).collect();
        Self { prefix, sources, items: Ragged::packed(&lengths) }
    }

    /// The keys that each query sees.
    pub(super) fn attention_mask(&self) -> AttentionMask {
        match self.prefix {
            0 => AttentionMask::CAUSAL,
            prefix => AttentionMask::After(prefix),
        }
    }

    /// Puts the rows of the prefix before the rows of each item.
    pub(super) fn join(&self, prefix: &Value, rows: &Value) -> Result<Value> {
        let width = rows.width();
        let flat = |value: &Value| value.reshape(&[1, value.rows() * width]);
        let all = concatenate(&[&flat(prefix)?, &flat(rows)?])?.reshape(&[prefix.rows() + rows.rows(), width])?;
        all.embed(&self.sources, &[self.sources.len()])
    }
}

/// Repeats each head of keys or values `[row, head x channel]` for the query heads that share it.
pub(super) fn repeat_heads(value: &Value, config: &LlamaConfig) -> Result<Value> {
    let (heads, width) = (config.key_value_heads, config.head_width());
    if heads == config.heads {
        return Ok(value.clone());
    }
    let by_head = value.reshape(&[value.rows(), heads, width])?;
    by_head.repeat_frames(config.heads / heads)?.reshape(&[value.rows(), config.heads * width])
}
