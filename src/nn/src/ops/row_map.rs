//! Maps from the rows of one matrix to those of another one: the composition of every operation that moves rows.

use crate::kernels::attention::AttentionMask;
use crate::kernels::convolution::Geometry;
use crate::{NnError, Ragged, Result};
use candle_core::{DType, Device, Tensor};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The index that candle's selection of rows reads as zeros, on every device.
const NOTHING: u32 = u32::MAX;

/// The source row of each row of a result, or none for zeros.
#[derive(Debug)]
pub(crate) struct RowMap {
    rows: Vec<u32>,
    source: usize,
    /// True if nothing moves.
    identity: bool,
    /// The rows as a tensor on the device that used it last, because uploading waits for the device.
    indices: Mutex<Option<Tensor>>,
    inverse: OnceLock<Arc<RowMap>>,
}

impl RowMap {
    /// Creates a map from the source row of each row of the result; the source has `source` rows.
    ///
    /// # Errors
    /// When there are more rows than candle's indices can count.
    pub(crate) fn new(rows: impl Iterator<Item = Option<usize>>, source: usize) -> Result<Self> {
        if u32::try_from(source).is_err() {
            return Err(NnError::invalid("rows", format!("{source} rows are more than a 32-bit index can count")));
        }
        Ok(Self::of(rows.map(|row| row.map_or(NOTHING, |row| row as u32)).collect(), source))
    }

    fn of(rows: Vec<u32>, source: usize) -> Self {
        let identity = rows.len() == source && rows.iter().enumerate().all(|(place, row)| place == *row as usize);
        Self { rows, source, identity, indices: Mutex::default(), inverse: OnceLock::new() }
    }

    /// Moves packed items to their rows; zeros elsewhere.
    fn unpack(items: &Ragged) -> Result<Self> {
        let mut rows = vec![None; items.total()];
        for (place, row) in items.ranges().iter().flat_map(Clone::clone).enumerate() {
            rows[row] = Some(place);
        }
        Self::new(rows.into_iter(), items.valid())
    }

    /// Moves the rows of items to packed items.
    fn pack(items: &Ragged) -> Result<Self> {
        Self::new(items.ranges().iter().flat_map(Clone::clone).map(Some), items.total())
    }

    /// Keeps the rows of items in place; zeros elsewhere.
    fn keep(items: &Ragged) -> Result<Self> {
        let mut rows = vec![None; items.total()];
        items.ranges().iter().flat_map(Clone::clone).for_each(|row| rows[row] = Some(row));
        Self::new(rows.into_iter(), items.total())
    }

    /// Moves the rows of items to a padded batch of `time` rows each; zeros after each item.
    fn pad(items: &Ragged, time: usize) -> Result<Self> {
        let padded = |rows: &std::ops::Range<usize>| {
            let rows = rows.clone();
            (0..time).map(move |t| (t < rows.len()).then_some(rows.start + t))
        };
        Self::new(items.ranges().iter().flat_map(padded), items.total())
    }

    /// Copies one row per item to all rows of the item; zeros elsewhere.
    fn expand(items: &Ragged) -> Result<Self> {
        let mut rows = vec![None; items.total()];
        for (item, range) in items.ranges().iter().enumerate() {
            rows[range.clone()].fill(Some(item));
        }
        Self::new(rows.into_iter(), items.len())
    }

    /// The inverse map, which is also the transpose: every row of the source occurs at most once in the result.
    pub(crate) fn inverse(&self) -> Arc<Self> {
        self.inverse.get_or_init(|| Arc::new(self.readers(1))).clone()
    }

    /// The places in the result that read each source row: at most one per tap. The places of the result cycle through `taps` taps.
    pub(crate) fn readers(&self, taps: usize) -> Self {
        let mut rows = vec![NOTHING; self.source * taps];
        for (place, row) in self.rows.iter().enumerate().filter(|(_, row)| **row != NOTHING) {
            rows[*row as usize * taps + place % taps] = place as u32;
        }
        Self::of(rows, self.rows.len())
    }

    /// The source row of each row, as a tensor on a device.
    pub(crate) fn indices(&self, device: &Device) -> Result<Tensor> {
        // A tensor is valid even if the thread that held the lock panicked.
        let mut kept = self.indices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(indices) = kept.as_ref().filter(|indices| indices.device().same_device(device)) {
            return Ok(indices.clone());
        }
        let indices = Tensor::from_slice(&self.rows, self.rows.len(), device)?;
        Ok(kept.insert(indices).clone())
    }

    /// Like [`indices`](Self::indices); `None` if nothing moves.
    #[cfg(feature = "cuda")]
    pub(crate) fn moves(&self, device: &Device) -> Result<Option<Tensor>> {
        (!self.identity).then(|| self.indices(device)).transpose()
    }

    /// The sums of `taps` rows each of `source` `[row, channel]`, in its element type or in single precision.
    pub(crate) fn gather_sums(&self, source: &Tensor, taps: usize) -> Result<Tensor> {
        if taps == 1 {
            return self.gather(source);
        }
        let width = source.dim(1)?;
        Ok(crate::device::wide(&self.gather(source)?)?.reshape((self.rows.len() / taps, taps, width))?.sum(1)?)
    }

    fn check(&self, source: &Tensor) -> Result<[usize; 2]> {
        match source.dims() {
            &[rows, width] if rows == self.source => Ok([rows, width]),
            dims => Err(NnError::shape("gather rows", format!("[{}, channel]", self.source), dims)),
        }
    }

    /// The rows of `source` `[row, channel]`.
    pub(crate) fn gather(&self, source: &Tensor) -> Result<Tensor> {
        let [rows, width] = self.check(source)?;
        if self.identity {
            return Ok(source.clone());
        }
        if rows == 0 || width == 0 || self.rows.is_empty() {
            return Ok(Tensor::zeros((self.rows.len(), width), source.dtype(), source.device())?);
        }
        let indices = self.indices(source.device())?;
        #[cfg(feature = "cuda")]
        if crate::cuda::rows::serves(source) {
            return crate::cuda::rows::gather(source, &indices);
        }
        Ok(source.index_select(&indices, 0)?)
    }
}

/// Key of a cached map or mask of a batch's items, which is created once instead of once per layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Key {
    /// Rows of items to packed items.
    Pack,
    /// Packed items to their rows.
    Unpack,
    /// Rows of items in place, zeros between them.
    Keep,
    /// Rows of items to a padded batch with this number of rows per item.
    Pad(usize),
    /// One row per item to all rows of the item.
    Expand,
    /// The windows of a convolution with this number of output rows.
    Windows(Geometry, usize),
    /// The readers of each row in such a convolution.
    Readers(Geometry, usize),
    /// The attention mask of the items, each padded to this number of rows.
    Mask(AttentionMask, usize),
}

type Cached<T> = Arc<Mutex<Vec<(Key, T)>>>;

/// Row maps and masks of a batch, by key. Clones share them; they do not count in comparisons of batches.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cache {
    maps: Cached<Arc<RowMap>>,
    masks: Cached<Tensor>,
    #[cfg(feature = "cuda")]
    ranges: Arc<Mutex<Option<Tensor>>>,
}

impl PartialEq for Cache {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Cache {}

impl Cache {
    /// Returns the map of a key, created by `make` at the first call.
    pub(crate) fn map(&self, key: Key, make: impl FnOnce() -> Result<RowMap>) -> Result<Arc<RowMap>> {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, map)) = maps.iter().find(|(kept, _)| *kept == key) {
            return Ok(map.clone());
        }
        let map = Arc::new(make()?);
        maps.push((key, map.clone()));
        Ok(map)
    }

    /// Returns the mask of a key on a device and in an element type, created by `make` at the first call.
    pub(crate) fn mask(
        &self,
        key: Key,
        device: &Device,
        dtype: DType,
        make: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut masks = self.masks.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |mask: &Tensor| mask.device().same_device(device) && mask.dtype() == dtype;
        if let Some((_, mask)) = masks.iter().find(|(kept, mask)| *kept == key && fits(mask)) {
            return Ok(mask.clone());
        }
        let mask = make()?.to_device(device)?.to_dtype(dtype)?;
        masks.push((key, mask.clone()));
        Ok(mask)
    }
}

impl Ragged {
    /// The first and last row of each item, `[item, 2]`, on a device.
    #[cfg(feature = "cuda")]
    pub(crate) fn ranges_on(&self, device: &Device) -> Result<Tensor> {
        let mut kept = self.cache().ranges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ranges) = kept.as_ref().filter(|ranges| ranges.device().same_device(device)) {
            return Ok(ranges.clone());
        }
        // `RowMap::new` rejects more rows than fit.
        let ends: Vec<u32> = self.ranges().iter().flat_map(|rows| [rows.start as u32, rows.end as u32]).collect();
        Ok(kept.insert(Tensor::from_vec(ends, (self.len(), 2), device)?).clone())
    }

    /// Returns one of the maps that depend on the items only.
    pub(crate) fn map(&self, key: Key) -> Result<Arc<RowMap>> {
        self.cache().map(key.clone(), || match key {
            Key::Pack => RowMap::pack(self),
            Key::Unpack => RowMap::unpack(self),
            Key::Keep => RowMap::keep(self),
            Key::Pad(time) => RowMap::pad(self, time),
            Key::Expand => RowMap::expand(self),
            Key::Windows(..) | Key::Readers(..) | Key::Mask(..) => {
                Err(NnError::invalid("rows", format!("{key:?} is not a map of items alone")))
            }
        })
    }
}

/// Reshapes `[.., channel]` to `[row, channel]`.
pub(crate) fn matrix(tensor: &Tensor) -> Result<Tensor> {
    let width = tensor.dims().last().copied().unwrap_or(1);
    let rows = tensor.elem_count() / width.max(1);
    Ok(tensor.reshape((rows, width))?)
}

/// The sum of all rows of `[row, channel]`, in single precision or wider.
///
/// Computed as a product with ones, because candle's own reduction over the outermost axis reads memory across its rows.
pub(crate) fn sum_rows(tensor: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if crate::cuda::rows::serves(tensor) {
        return Ok(crate::cuda::rows::sum_items(tensor, None, None, (0, 1))?.squeeze(0)?);
    }
    let tensor = crate::device::wide(tensor)?;
    let (rows, width) = tensor.dims2()?;
    if rows == 0 || width == 0 {
        return Ok(Tensor::zeros(width, tensor.dtype(), tensor.device())?);
    }
    Ok(Tensor::ones((1, rows), tensor.dtype(), tensor.device())?.matmul(&tensor)?.squeeze(0)?)
}

/// The sum of all rows of the product of two `[row, channel]`, in single precision or wider.
pub(crate) fn sum_products(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if crate::cuda::rows::serves(a) && a.dtype() == b.dtype() {
        return Ok(crate::cuda::rows::sum_items(a, Some(b), None, (0, 1))?.squeeze(0)?);
    }
    sum_rows(&(a * b)?)
}

/// The sum of the rows of each item, `[item, channel]`, in single precision or wider.
pub(crate) fn sum_items(tensor: &Tensor, items: &Ragged) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if crate::cuda::rows::serves(tensor) && !items.is_empty() {
        return crate::cuda::rows::sum_items(tensor, None, Some(&items.ranges_on(tensor.device())?), (0, 1));
    }
    let tensor = crate::device::wide(tensor)?;
    let width = tensor.dim(1)?;
    let time = items.ranges().iter().map(|rows| rows.len()).max().unwrap_or(0);
    let padded = items.map(Key::Pad(time))?.gather(&tensor)?;
    if padded.elem_count() == 0 {
        return Ok(Tensor::zeros((items.len(), width), tensor.dtype(), tensor.device())?);
    }
    Ok(padded.reshape((items.len(), time, width))?.sum(1)?)
}

/// Selects one of the vectors of every item, `[item, channel]`.
pub(crate) fn vector(vectors: &Tensor, place: usize, width: usize) -> Result<Tensor> {
    crate::device::contiguous(&vectors.narrow(1, place * width, width)?)
}

/// `base + gate * x`, rows `[.., channel]`, with the gate of the row's item: one of the vectors `[item, n x channel]`, by its place.
/// Without a base the base is 0.
pub(crate) fn gated(
    base: Option<&Tensor>,
    x: &Tensor,
    (vectors, place): (&Tensor, usize),
    rows: &Ragged,
) -> Result<Tensor> {
    let map = rows.map(Key::Expand)?;
    #[cfg(feature = "cuda")]
    if crate::cuda::rows::serves(x) {
        let map = map.indices(x.device())?;
        let sum = crate::cuda::rows::modulate(base, Some(x), Some((vectors, place)), None, &map)?;
        return Ok(sum.reshape(x.dims())?);
    }
    let width = x.dims().last().copied().unwrap_or(1);
    let change = (x * map.gather(&vector(vectors, place, width)?)?.reshape(x.dims())?)?;
    match base {
        Some(base) => Ok((base + change)?),
        None => Ok(change),
    }
}

/// Reorders a tensor of `[outer, a, b, inner]` elements to `[outer, b, a, inner]` of the given shape, in row-major order.
pub(crate) fn swap(tensor: &Tensor, [a, b, inner]: [usize; 3], shape: &[usize]) -> Result<Tensor> {
    if a <= 1 || b <= 1 {
        return Ok(tensor.reshape(shape)?);
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::rows::serves(tensor) {
        return crate::cuda::rows::swap(tensor, [a, b, inner], shape);
    }
    let outer = tensor.elem_count() / (a * b * inner).max(1);
    let swapped = tensor.reshape((outer, a, b, inner))?.transpose(1, 2)?;
    Ok(crate::device::contiguous(&swapped)?.reshape(shape)?)
}
