//! Operations on rows and channels: broadcasting over time, masks, repetition, gathering, scaling of channels.

use crate::device::wide;
use crate::gradients::{Flow, Gradient};
use crate::kernels::elementwise::{add_assign_serial, add_to_rows, zip_rows, zip_rows_serial};
use crate::kernels::reduce;
use crate::ops::operation::{Operation, apply, composed};
use crate::ops::row_map::{self, Key, RowMap, gated, matrix, sum_products, sum_rows};
use crate::tape::record;
use crate::{NnError, Ragged, Result, Value, host};
use candle_core::Tensor;
use rayon::prelude::*;
use std::sync::Arc;

fn check_channels(operation: &'static str, value: &Value, channels: &Value) -> Result<()> {
    if channels.dims() == [value.width()] {
        return Ok(());
    }
    Err(NnError::shape(operation, format!("[{}]", value.width()), channels.dims()))
}

fn check_items(operation: &'static str, value: &Value, items: &Value, rows: &Ragged) -> Result<()> {
    if items.dims() == [rows.len(), value.width()] && value.rows() == rows.total() {
        return Ok(());
    }
    let expected = format!("[{}, {}] for {} rows", rows.len(), value.width(), rows.total());
    Err(NnError::shape(operation, expected, items.dims()))
}

/// Runs `work(item, its rows of out)` for each item in parallel.
fn for_items(out: &mut [f32], width: usize, rows: &Ragged, work: impl Fn(usize, &mut [f32]) + Sync) {
    let buffer = crate::kernels::shared::Shared::new(out);
    rows.ranges().par_iter().enumerate().for_each(|(item, rows)| {
        // SAFETY: the rows of items do not overlap.
        work(item, unsafe { buffer.slice(rows.start * width, rows.len() * width) });
    });
}

/// Sums the rows of each item: `[item, channel]`.
fn sum_items(elements: &[f32], width: usize, rows: &Ragged) -> Vec<f32> {
    let sum =
        |rows: &std::ops::Range<usize>| reduce::sum_rows_serial(&elements[rows.start * width..rows.end * width], width);
    rows.ranges().par_iter().map(sum).collect::<Vec<_>>().concat()
}

impl Value {
    /// Multiplies each channel by its factor, `[channel]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn scale_channels(&self, factors: &Value) -> Result<Value> {
        check_channels("scale channels", self, factors)?;
        if composed(&[self, factors]) {
            return apply(ScaleChannels, &[self, factors]);
        }
        let (x, f) = (host::slice("scale", self.tensor())?, host::slice("scale", factors.tensor())?);
        let output = host::tensor(zip_rows(&x, &f, |x, f| x * f), self.dims())?;
        Ok(record(output, &[self, factors], || {
            let (input, factors) = (self.tensor().clone(), factors.tensor().clone());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("scale", gradient.tensor())?;
                if flow.wants(1) {
                    let x = host::slice("scale", &input)?;
                    let products = crate::kernels::elementwise::zip(&dy, &x, |dy, x| dy * x);
                    flow.give_vec(1, reduce::sum_rows(&products, factors.elem_count()), factors.dims())?;
                }
                if flow.wants(0) {
                    let f = host::slice("scale", &factors)?;
                    flow.give_vec(0, zip_rows(&dy, &f, |dy, f| dy * f), input.dims())?;
                }
                Ok(())
            }
        }))
    }

    /// Adds a number to each channel, `[channel]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn add_channels(&self, offsets: &Value) -> Result<Value> {
        check_channels("add channels", self, offsets)?;
        if composed(&[self, offsets]) {
            return apply(AddChannels, &[self, offsets]);
        }
        let (x, o) = (host::slice("add", self.tensor())?, host::slice("add", offsets.tensor())?);
        let output = host::tensor(zip_rows(&x, &o, |x, o| x + o), self.dims())?;
        let width = self.width();
        Ok(record(output, &[self, offsets], || {
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                if flow.wants(1) {
                    let sum = reduce::sum_rows(&host::slice("add", gradient.tensor())?, width);
                    flow.give_vec(1, sum, &[width])?;
                }
                flow.give(0, gradient)
            }
        }))
    }

    /// Adds the vector of each item (`items`: `[item, channel]`) to all rows of the item. Other rows are unchanged.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn add_items(&self, items: &Value, rows: &Ragged) -> Result<Value> {
        check_items("add items", self, items, rows)?;
        if composed(&[self, items]) {
            return apply(AddItems { rows: rows.clone() }, &[self, items]);
        }
        let width = self.width();
        let mut out = host::slice("add items", self.tensor())?.to_vec();
        let vectors = host::slice("add items", items.tensor())?;
        for_items(&mut out, width, rows, |item, out| {
            let vector = &vectors[item * width..(item + 1) * width];
            add_to_rows(out, vector);
        });
        let output = host::tensor(out, self.dims())?;
        Ok(record(output, &[self, items], || {
            let rows = rows.clone();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                if flow.wants(1) {
                    let sums = sum_items(&host::slice("add items", gradient.tensor())?, width, &rows);
                    flow.give_vec(1, sums, &[rows.len(), width])?;
                }
                flow.give(0, gradient)
            }
        }))
    }

    /// Applies the modulation of adaptive layer normalization (DiT, arXiv 2212.09748): `self * (1 + scale) + shift` with one scale and
    /// shift per item, `[item, channel]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn modulate(&self, scale: &Value, shift: &Value, rows: &Ragged) -> Result<Value> {
        self.scale_items(&scale.affine(1.0, 1.0)?, rows)?.add_items(shift, rows)
    }

    /// Multiplies all rows of each item by the vector of the item (`items`: `[item, channel]`), the gate of adaptive layer
    /// normalization. Rows of no item become zero.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn scale_items(&self, items: &Value, rows: &Ragged) -> Result<Value> {
        check_items("scale items", self, items, rows)?;
        if composed(&[self, items]) {
            return apply(ScaleItems { rows: rows.clone() }, &[self, items]);
        }
        let width = self.width();
        let output = {
            let (x, v) = (host::slice("scale items", self.tensor())?, host::slice("scale items", items.tensor())?);
            host::tensor(scale_rows(&x, &v, width, rows), self.dims())?
        };
        Ok(record(output, &[self, items], || {
            let (input, items, rows) = (self.tensor().clone(), items.tensor().clone(), rows.clone());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("scale items", gradient.tensor())?;
                if flow.wants(1) {
                    let x = host::slice("scale items", &input)?;
                    let products = crate::kernels::elementwise::zip(&dy, &x, |dy, x| dy * x);
                    flow.give_vec(1, sum_items(&products, width, &rows), items.dims())?;
                }
                if flow.wants(0) {
                    let v = host::slice("scale items", &items)?;
                    flow.give_vec(0, scale_rows(&dy, &v, width, &rows), input.dims())?;
                }
                Ok(())
            }
        }))
    }

    /// Copies the vector of each item (`self`: `[item, channel]`) to all rows of the item, `[row, channel]`; zero on rows of no item.
    ///
    /// # Errors
    /// When the number of items differs.
    pub fn expand_items(&self, rows: &Ragged) -> Result<Value> {
        let width = self.width();
        if self.dims() != [rows.len(), width] {
            return Err(NnError::shape("expand items", format!("[{}, channel]", rows.len()), self.dims()));
        }
        if composed(&[self]) {
            return apply(ExpandItems { rows: rows.clone() }, &[self]);
        }
        let vectors = host::slice("expand items", self.tensor())?;
        let mut out = vec![0.0; rows.total() * width];
        for_items(&mut out, width, rows, |item, out| {
            let vector = &vectors[item * width..(item + 1) * width];
            out.chunks_exact_mut(width.max(1)).for_each(|out| out.copy_from_slice(vector));
        });
        let output = host::tensor(out, &[rows.total(), width])?;
        Ok(record(output, &[self], || {
            let rows = rows.clone();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let sums = sum_items(&host::slice("expand items", gradient.tensor())?, width, &rows);
                flow.give_vec(0, sums, &[rows.len(), width])
            }
        }))
    }

    /// The mean over the rows of each item, `[item, channel]`; zero for an item without rows.
    ///
    /// # Errors
    /// When the number of rows differs.
    pub fn mean_items(&self, rows: &Ragged) -> Result<Value> {
        if self.rows() != rows.total() {
            return Err(NnError::shape("mean of items", format!("{} rows", rows.total()), self.dims()));
        }
        if composed(&[self]) {
            return apply(MeanItems { rows: rows.clone() }, &[self]);
        }
        let width = self.width();
        let shares: Vec<f32> = rows.ranges().iter().map(|rows| 1.0 / rows.len().max(1) as f32).collect();
        let mut means = sum_items(&host::slice("mean of items", self.tensor())?, width, rows);
        scale_each(&mut means, width, &shares);
        Ok(record(host::tensor(means, &[rows.len(), width])?, &[self], || {
            let (rows, shape) = (rows.clone(), self.dims().to_vec());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let mut vectors = host::slice("mean of items", gradient.tensor())?.to_vec();
                scale_each(&mut vectors, width, &shares);
                let mut dx = vec![0.0; rows.total() * width];
                for_items(&mut dx, width, &rows, |item, dx| {
                    let vector = &vectors[item * width..(item + 1) * width];
                    dx.chunks_exact_mut(width.max(1)).for_each(|dx| dx.copy_from_slice(vector));
                });
                flow.give_vec(0, dx, &shape)
            }
        }))
    }

    /// Zeroes the rows that belong to no item.
    ///
    /// # Errors
    /// When the number of rows differs.
    pub fn mask_rows(&self, rows: &Ragged) -> Result<Value> {
        if self.rows() != rows.total() {
            return Err(NnError::shape("mask rows", format!("{} rows", rows.total()), self.dims()));
        }
        if rows.is_packed() {
            return Ok(self.clone());
        }
        if composed(&[self]) {
            return apply(MoveRows { map: rows.map(Key::Keep)? }, &[self])?.reshape(self.dims());
        }
        let width = self.width();
        let output = host::tensor(keep_rows(&host::slice("mask rows", self.tensor())?, width, rows), self.dims())?;
        Ok(record(output, &[self], || {
            let (rows, shape) = (rows.clone(), self.dims().to_vec());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let kept = keep_rows(&host::slice("mask rows", gradient.tensor())?, width, &rows);
                flow.give_vec(0, kept, &shape)
            }
        }))
    }

    /// Packs a padded batch: returns the rows of the items without those between them, `[row, channel]`.
    ///
    /// # Errors
    /// When the number of rows differs.
    pub fn pack_rows(&self, rows: &Ragged) -> Result<Value> {
        if self.rows() != rows.total() {
            return Err(NnError::shape("pack rows", format!("{} rows", rows.total()), self.dims()));
        }
        let width = self.width();
        if rows.is_packed() {
            return self.reshape(&[rows.total(), width]);
        }
        if composed(&[self]) {
            return apply(MoveRows { map: rows.map(Key::Pack)? }, &[self]);
        }
        let output = {
            let x = host::slice("pack rows", self.tensor())?;
            let packed: Vec<&[f32]> =
                rows.ranges().iter().map(|rows| &x[rows.start * width..rows.end * width]).collect();
            host::tensor(packed.concat(), &[rows.valid(), width])?
        };
        Ok(record(output, &[self], || {
            let (rows, shape) = (rows.clone(), self.dims().to_vec());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let unpacked = unpack(&host::slice("pack rows", gradient.tensor())?, width, &rows);
                flow.give_vec(0, unpacked, &shape)
            }
        }))
    }

    /// The inverse of [`pack_rows`](Self::pack_rows): `[row, channel]` of `rows.total()` rows, zero on rows of no item.
    ///
    /// # Errors
    /// When the number of rows differs.
    pub fn unpack_rows(&self, rows: &Ragged) -> Result<Value> {
        if self.rows() != rows.valid() {
            return Err(NnError::shape("unpack rows", format!("{} rows", rows.valid()), self.dims()));
        }
        if composed(&[self]) {
            return apply(MoveRows { map: rows.map(Key::Unpack)? }, &[self]);
        }
        let width = self.width();
        let unpacked = unpack(&host::slice("unpack rows", self.tensor())?, width, rows);
        let output = host::tensor(unpacked, &[rows.total(), width])?;
        Ok(record(output, &[self], || {
            let (rows, shape) = (rows.clone(), self.dims().to_vec());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("unpack rows", gradient.tensor())?;
                let packed: Vec<&[f32]> =
                    rows.ranges().iter().map(|rows| &dy[rows.start * width..rows.end * width]).collect();
                flow.give_vec(0, packed.concat(), &shape)
            }
        }))
    }

    /// Repeats every frame `factor` times (nearest-neighbor upsampling): `[item, time, channel]` to `[item, factor x time, channel]`.
    ///
    /// # Errors
    /// When the value has no time axis or the factor is 0.
    pub fn repeat_frames(&self, factor: usize) -> Result<Value> {
        let &[items, time, width] = self.dims() else {
            return Err(NnError::shape("repeat frames", "[item, time, channel]", self.dims()));
        };
        if factor == 0 {
            return Err(NnError::invalid("repeat frames", "the factor must be at least 1"));
        }
        if composed(&[self]) {
            return apply(RepeatFrames { shape: [items, time, width], factor }, &[self]);
        }
        let x = host::slice("repeat frames", self.tensor())?;
        let mut out = vec![0.0; x.len() * factor];
        for (out, row) in out.chunks_exact_mut((factor * width).max(1)).zip(x.chunks_exact(width.max(1))) {
            out.chunks_exact_mut(width).for_each(|out| out.copy_from_slice(row));
        }
        let output = host::tensor(out, &[items, time * factor, width])?;
        Ok(record(output, &[self], || {
            let shape = self.dims().to_vec();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("repeat frames", gradient.tensor())?;
                let mut dx = vec![0.0; dy.len() / factor];
                for (dx, dy) in dx.chunks_exact_mut(width.max(1)).zip(dy.chunks_exact((factor * width).max(1))) {
                    dx.copy_from_slice(&dy[..width]);
                    dy[width..].chunks_exact(width).for_each(|dy| add_assign_serial(dx, dy));
                }
                flow.give_vec(0, dx, &shape)
            }
        }))
    }
}

/// The composition of [`Value::scale_channels`].
struct ScaleChannels;

impl Operation for ScaleChannels {
    type Saved = [Tensor; 2];

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, [Tensor; 2])> {
        Ok((inputs[0].broadcast_mul(&inputs[1])?, [inputs[0].clone(), inputs[1].clone()]))
    }

    fn backward(self, [input, factors]: [Tensor; 2], gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let of_input = needs[0].then(|| gradient.broadcast_mul(&factors)).transpose()?;
        let of_factors = needs[1].then(|| sum_products(&matrix(gradient)?, &matrix(&input)?)).transpose()?;
        Ok(vec![of_input, of_factors])
    }
}

/// The composition of [`Value::add_channels`].
struct AddChannels;

impl Operation for AddChannels {
    type Saved = ();

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, ())> {
        Ok((inputs[0].broadcast_add(&inputs[1])?, ()))
    }

    fn backward(self, (): (), gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let of_offsets = needs[1].then(|| sum_rows(&matrix(gradient)?)).transpose()?;
        Ok(vec![Some(gradient.clone()), of_offsets])
    }
}

/// The composition of [`Value::add_items`].
struct AddItems {
    rows: Ragged,
}

impl Operation for AddItems {
    type Saved = ();

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, ())> {
        let (x, items, map) = (&inputs[0], &inputs[1], self.rows.map(Key::Expand)?);
        #[cfg(feature = "cuda")]
        if crate::cuda::rows::serves(x) {
            let map = map.indices(x.device())?;
            let sum = crate::cuda::rows::modulate(Some(x), None, None, Some((items, 0)), &map)?;
            return Ok((sum.reshape(x.dims())?, ()));
        }
        Ok(((x + map.gather(items)?.reshape(x.dims())?)?, ()))
    }

    fn backward(self, (): (), gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let of_items = || row_map::sum_items(&matrix(gradient)?, &self.rows);
        Ok(vec![Some(gradient.clone()), needs[1].then(of_items).transpose()?])
    }
}

/// The composition of [`Value::scale_items`].
struct ScaleItems {
    rows: Ragged,
}

impl Operation for ScaleItems {
    type Saved = [Tensor; 2];

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, [Tensor; 2])> {
        let [input, items] = [&inputs[0], &inputs[1]];
        Ok((gated(None, input, (items, 0), &self.rows)?, [input.clone(), items.clone()]))
    }

    fn backward(self, [input, items]: [Tensor; 2], gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let of_input = needs[0].then(|| gated(None, gradient, (&items, 0), &self.rows)).transpose()?;
        let of_items = || row_map::sum_items(&matrix(&(gradient * &input)?)?, &self.rows);
        Ok(vec![of_input, needs[1].then(of_items).transpose()?])
    }
}

/// The composition of [`Value::expand_items`].
struct ExpandItems {
    rows: Ragged,
}

impl Operation for ExpandItems {
    type Saved = ();

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, ())> {
        Ok((self.rows.map(Key::Expand)?.gather(&inputs[0])?, ()))
    }

    fn backward(self, (): (), gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(row_map::sum_items(gradient, &self.rows)?)])
    }
}

/// The composition of [`Value::mean_items`].
struct MeanItems {
    rows: Ragged,
}

impl MeanItems {
    /// The weight of one row in each item's mean, `[item, 1]`.
    fn shares(&self, like: &Tensor) -> Result<Tensor> {
        let shares: Vec<f32> = self.rows.ranges().iter().map(|rows| 1.0 / rows.len().max(1) as f32).collect();
        Ok(Tensor::from_vec(shares, (self.rows.len(), 1), like.device())?.to_dtype(like.dtype())?)
    }
}

impl Operation for MeanItems {
    type Saved = Vec<usize>;

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Vec<usize>)> {
        let sums = row_map::sum_items(&matrix(&inputs[0])?, &self.rows)?;
        let means = sums.broadcast_mul(&self.shares(&sums)?)?;
        Ok((means.to_dtype(inputs[0].dtype())?, inputs[0].dims().to_vec()))
    }

    fn backward(self, shape: Vec<usize>, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let shares = gradient.broadcast_mul(&self.shares(gradient)?)?;
        Ok(vec![Some(self.rows.map(Key::Expand)?.gather(&shares)?.reshape(shape)?)])
    }
}

/// Moves rows to other places, `[row, channel]`.
struct MoveRows {
    map: Arc<RowMap>,
}

impl Operation for MoveRows {
    type Saved = Vec<usize>;

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Vec<usize>)> {
        Ok((self.map.gather(&matrix(&inputs[0])?)?, inputs[0].dims().to_vec()))
    }

    fn backward(self, shape: Vec<usize>, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.map.inverse().gather(gradient)?.reshape(shape)?)])
    }
}

/// The composition of [`Value::repeat_frames`].
struct RepeatFrames {
    shape: [usize; 3],
    factor: usize,
}

impl Operation for RepeatFrames {
    type Saved = ();

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, ())> {
        let ([items, time, width], factor) = (self.shape, self.factor);
        let repeated = inputs[0].unsqueeze(2)?.broadcast_as((items, time, factor, width))?;
        Ok((repeated.contiguous()?.reshape((items, time * factor, width))?, ()))
    }

    fn backward(self, (): (), gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let ([items, time, width], factor) = (self.shape, self.factor);
        Ok(vec![Some(wide(gradient)?.reshape((items, time, factor, width))?.sum(2)?)])
    }
}

/// Multiplies the vector of each item by its factor.
fn scale_each(vectors: &mut [f32], width: usize, factors: &[f32]) {
    for (vector, factor) in vectors.chunks_exact_mut(width.max(1)).zip(factors) {
        vector.iter_mut().for_each(|x| *x *= factor);
    }
}

fn scale_rows(x: &[f32], vectors: &[f32], width: usize, rows: &Ragged) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for_items(&mut out, width, rows, |item, out| {
        let vector = &vectors[item * width..(item + 1) * width];
        let first = rows.ranges()[item].start * width;
        let x = &x[first..first + out.len()];
        zip_rows_serial(out, x, vector, &|x, v| x * v);
    });
    out
}

fn keep_rows(x: &[f32], width: usize, rows: &Ragged) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for_items(&mut out, width, rows, |item, out| {
        let first = rows.ranges()[item].start * width;
        out.copy_from_slice(&x[first..first + out.len()]);
    });
    out
}

fn unpack(packed: &[f32], width: usize, rows: &Ragged) -> Vec<f32> {
    let mut out = vec![0.0; rows.total() * width];
    let mut first = 0;
    for rows in rows.ranges() {
        let elements = rows.len() * width;
        out[rows.start * width..rows.end * width].copy_from_slice(&packed[first..first + elements]);
        first += elements;
    }
    out
}
