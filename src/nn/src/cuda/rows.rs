//! Rows moved, scaled and summed: one launch each, with maps that are already on the device.

use super::{Kernels, Launch, expect, sums, uninitialized};
use crate::Result;
use candle_core::{DType, Tensor};

static KERNELS: Kernels = Kernels::new("rows", &[include_str!("elements.cuh"), include_str!("rows.cu")]);

/// Returns whether there are kernels for a tensor.
pub(crate) fn serves(tensor: &Tensor) -> bool {
    KERNELS.serve(tensor)
}

/// Gathers the rows of the source `[row, channel]`, which [`serves`] allows, that `map` names; other rows are zero.
pub(crate) fn gather(source: &Tensor, map: &Tensor) -> Result<Tensor> {
    let (source, width, rows) = (source.contiguous()?, source.dim(1)?, map.elem_count());
    let elements = rows * width;
    let launch = Launch::typed(&KERNELS, "gather", &source)?.long(elements).count(width)?;
    expect("gather rows", map, &[rows], DType::U32)?;
    // SAFETY: maps only name rows of their source (`RowMap`).
    unsafe {
        let out = uninitialized((rows, width), source.dtype(), &source)?;
        launch.tensor(map)?.tensor(&source)?.tensor(&out)?.over(elements, 1)?;
        Ok(out)
    }
}

/// Gathers the windows of a convolution, `[row', channel x tap]`, of `x` `[row, channel]`, which [`serves`] allows; `map` holds the row
/// of each window and tap.
pub(crate) fn unfold(x: &Tensor, map: &Tensor, taps: usize) -> Result<Tensor> {
    let (x, width) = (x.contiguous()?, x.dim(1)?);
    let shape = (map.elem_count() / taps, width * taps);
    let elements = shape.0 * shape.1;
    expect("convolution", map, &[shape.0 * taps], DType::U32)?;
    let launch = Launch::typed(&KERNELS, "unfold", &x)?.long(elements).count(width)?.count(taps)?;
    // SAFETY: maps only name rows of their source (`RowMap`), and have `taps` entries for each row of the result.
    unsafe {
        let seen = uninitialized(shape, x.dtype(), &x)?;
        launch.tensor(map)?.tensor(&x)?.tensor(&seen)?.over(elements, 1)?;
        Ok(seen)
    }
}

/// The transpose of [`unfold`], to `[row, channel]`; `map` holds for each row and tap the place among windows and taps that read it.
pub(crate) fn fold(seen: &Tensor, map: &Tensor, taps: usize) -> Result<Tensor> {
    let (seen, width) = (seen.contiguous()?, seen.dim(1)? / taps);
    let shape = (map.elem_count() / taps, width);
    let elements = shape.0 * shape.1;
    expect("convolution", map, &[shape.0 * taps], DType::U32)?;
    let launch = Launch::typed(&KERNELS, "fold", &seen)?.long(elements).count(width)?.count(taps)?;
    // SAFETY: as in `unfold`; the map's source rows are the rows of `seen` times the taps.
    unsafe {
        let x = uninitialized(shape, seen.dtype(), &seen)?;
        launch.tensor(map)?.tensor(&seen)?.tensor(&x)?.over(elements, 1)?;
        Ok(x)
    }
}

/// Reorders a contiguous tensor of `[outer, a, b, inner]` elements, which [`serves`] allows, to `[outer, b, a, inner]` of the given
/// shape.
pub(crate) fn swap(x: &Tensor, [a, b, inner]: [usize; 3], shape: &[usize]) -> Result<Tensor> {
    let (x, elements) = (x.contiguous()?, x.elem_count());
    let launch = Launch::typed(&KERNELS, "swap", &x)?.long(elements).count(a)?.count(b)?.count(inner)?;
    // SAFETY: the kernel reads and writes every element of both tensors.
    unsafe {
        let y = uninitialized(shape, x.dtype(), &x)?;
        expect("swap", &y.flatten_all()?, &[elements], x.dtype())?;
        launch.tensor(&x)?.tensor(&y)?.over(elements, 1)?;
        Ok(y)
    }
}

/// One of the vectors of every item: the matrix `[item, n x channel]` and the vector's index among the n.
pub(crate) type Vector<'a> = (&'a Tensor, usize);

/// `base + x * gain + shift`, rows `[row, channel]` that [`serves`] allows, with gain and shift of the row's item; `map` holds
/// the item of each row. Absent inputs are 0; without a gain, x is not scaled. Rows of no item get the base only.
pub(crate) fn modulate(
    base: Option<&Tensor>,
    x: Option<&Tensor>,
    gain: Option<Vector>,
    shift: Option<Vector>,
    map: &Tensor,
) -> Result<Tensor> {
    let like = base.or(x).ok_or_else(|| crate::NnError::invalid("modulation", "nothing to modulate"))?;
    let (rows, width) = (map.elem_count(), like.elem_count() / map.elem_count().max(1));
    let read = |tensor: Option<&Tensor>| tensor.map(|tensor| tensor.contiguous()?.reshape((rows, width))).transpose();
    let (base, x) = (read(base)?, read(x)?);
    let vectors = [gain, shift].map(|vector| {
        let vector = vector.map(|(vectors, place)| vectors.narrow(1, place * width, width));
        vector.transpose()
    });
    let [gain_at, shift_at] = vectors;
    let stride = gain.or(shift).map_or(Ok(0), |(vectors, _)| vectors.dim(1))?;
    let launch = Launch::typed(&KERNELS, "modulate", like)?.long(rows * width).count(width)?.count(stride)?;
    let launch = launch.tensor(map)?.tensor(base.as_ref())?.tensor(x.as_ref())?;
    let launch = launch.strided(gain_at?.as_ref())?.strided(shift_at?.as_ref())?;
    // SAFETY: maps only name items, which all have rows of `stride` elements, `width` of them starting at the vector's first.
    unsafe {
        let y = uninitialized((rows, width), like.dtype(), like)?;
        launch.tensor(&y)?.over(rows * width, 1)?;
        Ok(y)
    }
}

/// The sums over the rows of each item of `x`, or of `x * y`: one of the vectors `[item, n x channel]` in single precision, the others 0.
/// `ranges` has the first and last row of each item, `[item, 2]`; without it all rows are one item. `x` and `y` are `[row, channel]`,
/// which [`serves`] allows.
pub(crate) fn sum_items(
    x: &Tensor,
    y: Option<&Tensor>,
    ranges: Option<&Tensor>,
    (place, vectors): (usize, usize),
) -> Result<Tensor> {
    let ((rows, width), x) = (x.dims2()?, x.contiguous()?);
    let y = y.map(Tensor::contiguous).transpose()?;
    if let Some(y) = &y {
        expect("sum of rows", y, x.dims(), x.dtype())?;
    }
    let items = ranges.map_or(Ok(1), |ranges| ranges.dim(0))?;
    let launch = Launch::typed(&KERNELS, "sum_items", &x)?.count(rows)?.count(width)?.count(vectors * width)?;
    let launch = launch.tensor(ranges)?.tensor(&x)?.tensor(y.as_ref())?;
    // SAFETY: ranges are of rows of x; the kernel writes `width` columns of each item starting at the vector's first.
    unsafe {
        let out = sums([items, vectors, width], 1, &x)?;
        launch.strided(&out.narrow(1, place * width, width)?)?.over_columns(width, items, rows)?;
        Ok(out)
    }
}

/// The gradient of a table of `entries` rows in single precision, from the gradient of the rows that were read, `[row, channel]`, which
/// [`serves`] allows. `index` has the `read` distinct entries in rising order, `read` + 1 offsets where the rows of each begin, and the
/// rows in order of their entries.
pub(crate) fn sum_places(dy: &Tensor, entries: usize, index: &Tensor, read: usize) -> Result<Tensor> {
    let (dy, width) = (dy.contiguous()?, dy.dim(1)?);
    let table = Tensor::zeros((entries, width), DType::F32, dy.device())?;
    expect("embedding", index, &[2 * read + 1 + dy.dim(0)?], DType::U32)?;
    let [starts, places] = [(read, read + 1), (2 * read + 1, dy.dim(0)?)].map(|(at, len)| index.narrow(0, at, len));
    let launch = Launch::typed(&KERNELS, "sum_places", &dy)?.long(read * width).count(width)?.tensor(index)?;
    // SAFETY: the caller's index only names entries of the table and rows of `dy`.
    unsafe { launch.tensor(&starts?)?.tensor(&places?)?.tensor(&dy)?.tensor(&table)?.over(read * width, 1)? };
    Ok(table)
}
