//! Adaptive layer normalization (DiT, arXiv 2212.09748): norms and residual sums controlled by one set of vectors per item.

mod composition;

use crate::gradients::{Flow, Gradient};
use crate::kernels::elementwise::add_assign_serial;
use crate::kernels::gate;
use crate::kernels::item_tasks::ItemTasks;
use crate::kernels::norm::{self, Moments};
use crate::ops::operation::{apply, composed};
use crate::tape::record;
use crate::{NnError, Ragged, Result, Value, host};
use candle_core::Tensor;
use std::rc::Rc;

/// The vectors that modulate the rows of each item.
#[derive(Debug, Clone, Copy)]
pub struct Modulation<'a> {
    /// One row per item, with several vectors one after the other: `[item, n x channel]`.
    pub vectors: &'a Value,
    /// The rows of each item.
    pub rows: &'a Ragged,
}

impl Modulation<'_> {
    /// Checks that the modulation fits a value of `width` channels and has the vectors.
    fn check(&self, value: &Value, vectors: &[usize]) -> Result<usize> {
        let width = value.width();
        let wanted = vectors.iter().max().map_or(0, |last| (last + 1) * width);
        let [items, total] = self.vectors.dims() else {
            return Err(NnError::shape("modulation", "[item, n x channel]", self.vectors.dims()));
        };
        if *items != self.rows.len() || *total < wanted || !total.is_multiple_of(width) {
            let expected = format!("[{}, n x {width}] with n x {width} >= {wanted}", self.rows.len());
            return Err(NnError::shape("modulation", expected, self.vectors.dims()));
        }
        if value.dims().len() != 2 || value.rows() != self.rows.total() {
            return Err(NnError::shape("modulation", format!("[{}, channel]", self.rows.total()), value.dims()));
        }
        Ok(width)
    }

    /// One of the vectors of every item, `[item, channel]`, with a number added.
    fn vector(&self, index: usize, width: usize, offset: f32) -> Result<Vec<f32>> {
        let vectors = host::slice("modulation", self.vectors.tensor())?;
        let columns = columns(index, width);
        let rows = vectors.chunks_exact(self.vectors.width().max(1));
        Ok(rows.flat_map(|row| &row[columns.clone()]).map(|value| value + offset).collect())
    }
}

/// The columns of one of the vectors.
fn columns(vector: usize, width: usize) -> std::ops::Range<usize> {
    vector * width..(vector + 1) * width
}

/// Adds gradients `[item, channel]` of some vectors to the gradient of all vectors, input `input` of the operation.
fn give_vectors(flow: &mut Flow<'_>, input: usize, shape: &[usize], parts: &[(usize, &[f32])]) -> Result<()> {
    let total = shape[1];
    flow.add_to(input, shape, |gradient| {
        for (index, part) in parts {
            let width = part.len() / shape[0].max(1);
            for (row, part) in gradient.chunks_exact_mut(total).zip(part.chunks_exact(width.max(1))) {
                add_assign_serial(&mut row[index * width..(index + 1) * width], part);
            }
        }
    })
}

/// A modulated norm with its inputs; gains and shifts are `[item, channel]`.
struct ModulatedNorm {
    input: Tensor,
    tasks: ItemTasks,
    gains: Vec<f32>,
    shifts: Vec<f32>,
    epsilon: f32,
}

impl ModulatedNorm {
    fn forward(&self) -> Result<(Tensor, Moments)> {
        let Self { input, tasks, gains, shifts, epsilon } = self;
        let (width, x) = (input.dims()[1], host::slice("modulated norm", input)?);
        let (out, moments) = norm::forward_items(&x, width, tasks, gains, shifts, *epsilon);
        Ok((host::tensor(out, input.dims())?, moments))
    }
}

impl Value {
    /// Normalizes every row `[row, channel]` to mean 0 and variance 1, then computes `x * (1 + scale) + shift` with the scale and shift
    /// of its item: the vectors `[shift, scale]` of the modulation. Rows of no item become zero.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn modulated_norm(&self, modulation: &Modulation, vectors: [usize; 2], epsilon: f32) -> Result<Value> {
        let width = modulation.check(self, &vectors)?;
        let [shift, scale] = vectors;
        if composed(&[self, modulation.vectors]) {
            let places = [shift, scale];
            let norm = composition::ModulatedNorm {
                rows: modulation.rows.clone(),
                places,
                epsilon,
                #[cfg(feature = "cuda")]
                arrived: None,
            };
            return apply(norm, &[self, modulation.vectors]);
        }
        let gains = modulation.vector(scale, width, 1.0)?;
        let shifts = modulation.vector(shift, width, 0.0)?;
        let tasks = ItemTasks::new(modulation.rows, width);
        let norm = Rc::new(ModulatedNorm { input: self.tensor().clone(), tasks, gains, shifts, epsilon });
        let (output, moments) = norm.forward()?;
        let recorded = record(output, &[self, modulation.vectors], || {
            let (norm, shape) = (norm.clone(), modulation.vectors.dims().to_vec());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let ModulatedNorm { input, tasks, gains, shifts, .. } = &*norm;
                let x = host::slice("modulated norm", input)?;
                let mut sums = None;
                let gradient = gradient.map(|gradient| {
                    sums = Some(norm::backward_items(gradient, &x, width, tasks, gains, shifts, &moments));
                })?;
                flow.give(0, gradient)?;
                let (gain_sums, shift_sums) = sums.unwrap_or_default();
                give_vectors(flow, 1, &shape, &[(scale, &gain_sums), (shift, &shift_sums)])
            }
        });
        Ok(recorded.recomputed_by(move || Ok(norm.forward()?.0)))
    }

    /// `self + gate * update`, rows `[row, channel]`, with the gate of the row's item: the vector `gate` of the modulation. Rows
    /// of no item are unchanged.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn add_gated(&self, update: &Value, modulation: &Modulation, gate: usize) -> Result<Value> {
        let width = modulation.check(self, &[gate])?;
        if update.dims() != self.dims() {
            return Err(NnError::shape("gated sum", format!("{:?}", self.dims()), update.dims()));
        }
        if composed(&[self, update, modulation.vectors]) {
            let sum = composition::AddGated { rows: modulation.rows.clone(), gate };
            return apply(sum, &[self, update, modulation.vectors]);
        }
        let gates = modulation.vector(gate, width, 0.0)?;
        let tasks = ItemTasks::new(modulation.rows, width);
        let (x, u) = (host::slice("gated sum", self.tensor())?, host::slice("gated sum", update.tensor())?);
        let output = host::tensor(gate::forward(&x, &u, &gates, width, &tasks), self.dims())?;
        drop((x, u));
        Ok(record(output, &[self, update, modulation.vectors], || {
            let (update, shape) = (update.tensor().clone(), modulation.vectors.dims().to_vec());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                if flow.wants(1) || flow.wants(2) {
                    let dy = host::slice("gated sum", gradient.tensor())?;
                    let u = host::slice("gated sum", &update)?;
                    let (du, gate_sums) = gate::backward(&dy, &u, &gates, width, &tasks);
                    flow.give_vec(1, du, update.dims())?;
                    give_vectors(flow, 2, &shape, &[(gate, &gate_sums)])?;
                }
                flow.give(0, gradient)
            }
        }))
    }
}
