//! Rows of heads to matrices of heads and back, for attention: one launch for queries, keys and values together.

use super::{Kernels, Launch, expect, uninitialized};
use crate::Result;
use candle_core::{DType, Tensor};

static KERNELS: Kernels = Kernels::new("attention", &[include_str!("elements.cuh"), include_str!("attention.cu")]);

/// Returns whether there are kernels for a tensor. In fp16 the composition is used: its bias gradients are closer to double precision.
pub(crate) fn serves(tensor: &Tensor) -> bool {
    tensor.dtype() != DType::F16 && KERNELS.serve(tensor)
}

/// The rows of a batch, cut into items.
pub(crate) struct Layout<'a> {
    pub(crate) items: usize,
    pub(crate) heads: usize,
    /// Positions per item.
    pub(crate) time: usize,
    /// Channels per head.
    pub(crate) channels: usize,
    /// Maps of queries and keys: the row of each position when rows are split, the position of each row when they are merged. `None` if
    /// both are in the same order.
    pub(crate) maps: [Option<&'a Tensor>; 2],
}

impl Layout<'_> {
    fn width(&self) -> usize {
        self.heads * self.channels
    }

    fn sizes(&self, launch: Launch) -> Result<Launch> {
        launch.count(self.items)?.count(self.heads)?.count(self.time)?.count(self.channels)
    }

    /// Checks that the maps have as many entries as there are positions or rows.
    fn check(&self, entries: [usize; 2]) -> Result<()> {
        let maps = self.maps.into_iter().zip(entries);
        maps.filter_map(|(map, entries)| Some((map?, entries)))
            .try_for_each(|(map, entries)| expect("attention", map, &[entries], DType::U32))
    }
}

/// Splits up to three inputs `[row, head x channel]`, first of queries and then of keys, which [`serves`] allows, into
/// `[item x head, time, channel]`. The first may get a bias `[head, channel]`; with another bias it is returned a second time, as
/// `[head, item x time, channel]`.
pub(crate) fn split(
    layout: &Layout,
    inputs: &[&Tensor],
    biases: Option<[&Tensor; 2]>,
) -> Result<(Vec<Tensor>, Option<Tensor>)> {
    let Layout { items, heads, time, channels, maps } = *layout;
    let (positions, like) = (items * time, inputs[0]);
    layout.check([positions; 2])?;
    let inputs = inputs.iter().map(|input| input.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
    for (index, input) in inputs.iter().enumerate() {
        let rows = if maps[index.min(1)].is_some() { input.dim(0)? } else { positions };
        expect("attention", input, &[rows, layout.width()], like.dtype())?;
    }
    for bias in biases.into_iter().flatten() {
        expect("attention", bias, &[heads, channels], like.dtype())?;
    }
    let launch = layout.sizes(Launch::typed(&KERNELS, "split", like)?.long(positions * layout.width()))?;
    let mut launch = launch.tensor(maps[0])?.tensor(maps[1])?;
    for input in 0..3 {
        launch = launch.tensor(inputs.get(input))?;
    }
    let [bias, second_bias] = biases.map_or([None; 2], |biases| biases.map(Some));
    launch = launch.tensor(bias)?.tensor(second_bias)?;
    // SAFETY: maps only name rows of their inputs; the kernel writes every position of every result.
    unsafe {
        let new = |_| uninitialized((items * heads, time, channels), like.dtype(), like);
        let outputs = inputs.iter().map(new).collect::<Result<Vec<_>>>()?;
        let second = biases.map(|_| uninitialized((heads, positions, channels), like.dtype(), like)).transpose()?;
        for output in 0..3 {
            launch = launch.tensor(outputs.get(output))?;
        }
        launch.tensor(second.as_ref())?.over(positions * layout.width(), inputs.len())?;
        Ok((outputs, second))
    }
}

/// The transpose of [`split`], to `rows` rows of queries and of keys: the first input may have a second part `[head, item x time, channel]`,
/// which is added.
pub(crate) fn merge(
    layout: &Layout,
    inputs: &[&Tensor],
    second: Option<&Tensor>,
    rows: [usize; 2],
) -> Result<Vec<Tensor>> {
    let Layout { items, heads, time, channels, maps } = *layout;
    let like = inputs[0];
    layout.check(rows)?;
    let inputs = inputs.iter().map(|input| input.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
    for (index, input) in inputs.iter().enumerate() {
        expect("attention", input, &[items * heads, time, channels], like.dtype())?;
        if maps[index.min(1)].is_none() && rows[index.min(1)] != items * time {
            return Err(crate::NnError::shape("attention", format!("{} rows", items * time), &rows));
        }
    }
    if let Some(second) = second {
        expect("attention", second, &[heads, items * time, channels], like.dtype())?;
    }
    let elements = rows.map(|rows| rows * layout.width());
    let launch = Launch::typed(&KERNELS, "merge", like)?.long(elements[0]).long(elements[1]);
    let mut launch = layout.sizes(launch)?.tensor(maps[0])?.tensor(maps[1])?;
    for input in 0..3 {
        launch = launch.tensor(inputs.get(input))?;
    }
    launch = launch.tensor(second)?;
    // SAFETY: maps only name positions; the kernel writes every row of every result.
    unsafe {
        let new = |index: usize| uninitialized((rows[index.min(1)], layout.width()), like.dtype(), like);
        let outputs = (0..inputs.len()).map(new).collect::<Result<Vec<_>>>()?;
        for output in 0..3 {
            launch = launch.tensor(outputs.get(output))?;
        }
        launch.over(elements[0].max(elements[1]), inputs.len())?;
        Ok(outputs)
    }
}

/// The gradients of the two biases of [`split`] in single precision, computed from the gradients of its first and second output.
pub(crate) fn of_biases(layout: &Layout, first: &Tensor, second: &Tensor) -> Result<[Tensor; 2]> {
    let Layout { items, heads, time, channels, .. } = *layout;
    expect("attention", first, &[items * heads, time, channels], first.dtype())?;
    expect("attention", second, &[heads, items * time, channels], first.dtype())?;
    let launch = layout.sizes(Launch::typed(&KERNELS, "sum_positions", first)?)?.tensor(first)?.tensor(second)?;
    // SAFETY: the kernel reads every position of both and writes both sums.
    unsafe {
        let sums = uninitialized((2, heads, channels), DType::F32, first)?;
        launch.tensor(&sums)?.over_columns(layout.width(), 2, items * time)?;
        Ok([sums.get(0)?, sums.get(1)?])
    }
}
