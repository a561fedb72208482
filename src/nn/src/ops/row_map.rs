//! Which row of a matrix each row of another one is: the composition of everything that moves rows.

use crate::{NnError, Result, Sequences};
use candle_core::Tensor;

/// What candle's selection of rows reads as zeros, on every device.
const NOTHING: u32 = u32::MAX;

/// For each row of the result the row of the source, or none for zeros.
#[derive(Debug, Clone)]
pub(crate) struct RowMap {
    rows: Vec<u32>,
    source: usize,
}

impl RowMap {
    /// From the source row of each row of the result, of `source` rows.
    ///
    /// # Errors
    /// When there are more rows than candle's indices count.
    pub(crate) fn new(rows: impl Iterator<Item = Option<usize>>, source: usize) -> Result<Self> {
        if u32::try_from(source).is_err() {
            return Err(NnError::invalid("rows", format!("{source} rows are more than an index can count")));
        }
        let rows = rows.map(|row| row.map_or(NOTHING, |row| row as u32)).collect();
        Ok(Self { rows, source })
    }

    /// From packed items to the rows they are at; zeros elsewhere.
    pub(crate) fn unpack(items: &Sequences) -> Result<Self> {
        let mut rows = vec![None; items.total()];
        for (place, row) in items.ranges().iter().flat_map(Clone::clone).enumerate() {
            rows[row] = Some(place);
        }
        Self::new(rows.into_iter(), items.valid())
    }

    /// From the rows of items to the items packed.
    pub(crate) fn pack(items: &Sequences) -> Result<Self> {
        Self::new(items.ranges().iter().flat_map(Clone::clone).map(Some), items.total())
    }

    /// From the rows of items to a padded batch of `time` rows each; zeros behind each item.
    pub(crate) fn pad(items: &Sequences, time: usize) -> Result<Self> {
        let padded = |rows: &std::ops::Range<usize>| {
            let rows = rows.clone();
            (0..time).map(move |t| (t < rows.len()).then_some(rows.start + t))
        };
        Self::new(items.ranges().iter().flat_map(padded), items.total())
    }

    /// From one row per item to all rows of the item; zeros elsewhere.
    pub(crate) fn expand(items: &Sequences) -> Result<Self> {
        let mut rows = vec![None; items.total()];
        for (item, range) in items.ranges().iter().enumerate() {
            rows[range.clone()].fill(Some(item));
        }
        Self::new(rows.into_iter(), items.len())
    }

    /// The map back, which is also the transpose: every row of the source is at most one of the result.
    pub(crate) fn inverse(&self) -> Self {
        let mut rows = vec![NOTHING; self.source];
        for (place, row) in self.rows.iter().enumerate().filter(|(_, row)| **row != NOTHING) {
            rows[*row as usize] = place as u32;
        }
        Self { rows, source: self.rows.len() }
    }

    /// The rows of `source` `[row, channel]`.
    pub(crate) fn gather(&self, source: &Tensor) -> Result<Tensor> {
        let &[rows, width] = source.dims() else {
            return Err(NnError::shape("gather rows", "[row, channel]", source.dims()));
        };
        if rows != self.source {
            return Err(NnError::shape("gather rows", format!("{} rows", self.source), source.dims()));
        }
        if self.rows.len() == rows && self.rows.iter().enumerate().all(|(place, row)| place == *row as usize) {
            return Ok(source.clone());
        }
        if rows == 0 || width == 0 || self.rows.is_empty() {
            return Ok(Tensor::zeros((self.rows.len(), width), source.dtype(), source.device())?);
        }
        let indices = Tensor::from_slice(&self.rows, self.rows.len(), source.device())?;
        Ok(source.index_select(&indices, 0)?)
    }
}

/// `[.., channel]` as `[row, channel]`.
pub(crate) fn matrix(tensor: &Tensor) -> Result<Tensor> {
    let width = tensor.dims().last().copied().unwrap_or(1);
    let rows = tensor.elem_count() / width.max(1);
    Ok(tensor.reshape((rows, width))?)
}

/// The sum of all rows of `[row, channel]`, in single precision at least.
///
/// As a product with ones: candle's own reduction over the outermost axis reads memory across its rows.
pub(crate) fn sum_rows(tensor: &Tensor) -> Result<Tensor> {
    let tensor = crate::device::wide(tensor)?;
    let (rows, width) = tensor.dims2()?;
    if rows == 0 || width == 0 {
        return Ok(Tensor::zeros(width, tensor.dtype(), tensor.device())?);
    }
    Ok(Tensor::ones((1, rows), tensor.dtype(), tensor.device())?.matmul(&tensor)?.squeeze(0)?)
}

/// The sum of the rows of each item, `[item, channel]`, in single precision at least.
pub(crate) fn sum_items(tensor: &Tensor, items: &Sequences) -> Result<Tensor> {
    let tensor = crate::device::wide(tensor)?;
    let width = tensor.dim(1)?;
    let time = items.ranges().iter().map(|rows| rows.len()).max().unwrap_or(0);
    let padded = RowMap::pad(items, time)?.gather(&tensor)?;
    if padded.elem_count() == 0 {
        return Ok(Tensor::zeros((items.len(), width), tensor.dtype(), tensor.device())?);
    }
    Ok(padded.reshape((items.len(), time, width))?.sum(1)?)
}
