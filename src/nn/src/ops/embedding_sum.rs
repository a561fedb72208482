//! Sums of rows of several tables: the embeddings of sequences whose positions come from different vocabularies.

use crate::device::wide;
use crate::gradients::{Flow, Gradient};
use crate::kernels::elementwise::{add_assign_serial, rows_per_chunk};
use crate::ops::operation::{Operation, apply};
use crate::tape::record;
use crate::{NnError, Result, Value, host};
use candle_core::Tensor;
use rayon::prelude::*;
use std::ops::Range;

/// One entry of one of several tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableEntry {
    /// Position of the table in the list of tables.
    pub table: u32,
    /// Row of the table.
    pub entry: u32,
}

/// Rows that are sums of table entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntrySums {
    terms: Vec<TableEntry>,
    /// The end of each row's terms.
    ends: Vec<usize>,
}

impl EntrySums {
    /// Adds a row: the sum of the given entries, zero if there are none.
    pub fn push(&mut self, terms: impl IntoIterator<Item = TableEntry>) {
        self.terms.extend(terms);
        self.ends.push(self.terms.len());
    }

    /// Adds some rows of another list.
    pub fn extend(&mut self, other: &Self, rows: Range<usize>) {
        rows.for_each(|row| self.push(other.row(row).iter().copied()));
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The terms of all rows.
    pub fn terms(&self) -> &[TableEntry] {
        &self.terms
    }

    /// The terms of a row.
    fn row(&self, row: usize) -> &[TableEntry] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.terms[start..self.ends[row]]
    }

    /// Replaces the number of each term's table.
    pub fn map_tables(&mut self, map: impl Fn(u32) -> u32) {
        self.terms.iter_mut().for_each(|term| term.table = map(term.table));
    }

    /// The places of each table's entries: row of the result, and entry.
    fn by_table(&self, tables: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
        let mut places = vec![(Vec::new(), Vec::new()); tables];
        for row in 0..self.len() {
            for term in self.row(row) {
                let (rows, entries) = &mut places[term.table as usize];
                rows.push(row as u32);
                entries.push(term.entry);
            }
        }
        places
    }
}

/// Sums entries of tables `[entry, channel]`, or of single vectors `[channel]`, to `[row, channel]`.
///
/// # Errors
/// When there is no table, the widths differ, or an entry does not exist.
pub fn sum_embeddings(tables: &[&Value], sums: EntrySums) -> Result<Value> {
    let first = tables.first().ok_or_else(|| NnError::invalid("sum of embeddings", "no table"))?;
    let width = first.width();
    let mut entries = Vec::with_capacity(tables.len());
    for table in tables {
        entries.push(match *table.dims() {
            [channels] if channels == width => 1,
            [entries, channels] if channels == width => entries,
            _ => return Err(NnError::shape("sum of embeddings", format!("[entry, {width}]"), table.dims())),
        });
    }
    for term in &sums.terms {
        let size = entries.get(term.table as usize).copied().unwrap_or(0);
        if term.entry as usize >= size {
            return Err(NnError::Index { operation: "sum of embeddings", index: i64::from(term.entry), size });
        }
    }
    if u32::try_from(sums.len()).is_err() {
        return Err(NnError::invalid("sum of embeddings", "more rows than a 32-bit index can count"));
    }
    apply(EmbeddingSum { sums, width }, tables)
}

/// The sum; inputs are the tables.
struct EmbeddingSum {
    sums: EntrySums,
    width: usize,
}

/// Indices of one table on the device: rows of the result and entries, and the table's shape. `None` if it is not read.
type Places = Vec<(Option<[Tensor; 2]>, Vec<usize>)>;

impl Operation for EmbeddingSum {
    const IN_SINGLE_PRECISION: bool = true;

    type Saved = Places;

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Places)> {
        let (device, dtype) = (inputs[0].device(), wide(&inputs[0])?.dtype());
        let mut output = Tensor::zeros((self.sums.len(), self.width), dtype, device)?;
        let mut saved = Vec::with_capacity(inputs.len());
        for (table, (rows, entries)) in inputs.iter().zip(self.sums.by_table(inputs.len())) {
            if rows.is_empty() {
                saved.push((None, table.dims().to_vec()));
                continue;
            }
            let count = rows.len();
            let (rows, entries) = (Tensor::from_vec(rows, count, device)?, Tensor::from_vec(entries, count, device)?);
            let vectors = wide(&table.reshape(((), self.width))?.index_select(&entries, 0)?)?;
            output = output.index_add(&rows, &vectors, 0)?;
            saved.push((Some([rows, entries]), table.dims().to_vec()));
        }
        Ok((output, saved))
    }

    fn backward(self, saved: Places, gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let gradient = wide(gradient)?;
        let of = |((places, shape), needed): ((Option<[Tensor; 2]>, Vec<usize>), &bool)| -> Result<Option<Tensor>> {
            let Some([rows, entries]) = places.filter(|_| *needed) else {
                return Ok(needed.then(|| Tensor::zeros(shape, gradient.dtype(), gradient.device())).transpose()?);
            };
            let count = shape.iter().product::<usize>() / self.width.max(1);
            let table = Tensor::zeros((count, self.width), gradient.dtype(), gradient.device())?;
            let table = table.index_add(&entries, &gradient.index_select(&rows, 0)?, 0)?;
            Ok(Some(table.reshape(shape)?))
        };
        saved.into_iter().zip(needs).map(of).collect()
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let Self { sums, width } = self;
        let output = {
            let tables = inputs
                .iter()
                .map(|table| host::slice("sum of embeddings", table.tensor()))
                .collect::<Result<Vec<_>>>()?;
            let tables: Vec<&[f32]> = tables.iter().map(|table| &**table).collect();
            let mut out = vec![0.0; sums.len() * width];
            let chunk = rows_per_chunk(width);
            out.par_chunks_mut((chunk * width).max(1)).enumerate().for_each(|(task, out)| {
                for (row, out) in (task * chunk..).zip(out.chunks_exact_mut(width.max(1))) {
                    for term in sums.row(row) {
                        add_assign_serial(out, &tables[term.table as usize][term.entry as usize * width..][..width]);
                    }
                }
            });
            host::tensor(out, &[sums.len(), width])?
        };
        Ok(record(output, inputs, || {
            let shapes: Vec<Vec<usize>> = inputs.iter().map(|table| table.dims().to_vec()).collect();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("sum of embeddings", gradient.tensor())?;
                let wanted: Vec<bool> = (0..shapes.len()).map(|table| flow.wants(table)).collect();
                let places = sums.by_table(shapes.len());
                let gradients: Vec<Option<Vec<f32>>> = (&shapes, &places, &wanted)
                    .into_par_iter()
                    .map(|(shape, (rows, entries), wanted)| {
                        wanted.then(|| {
                            let mut table = vec![0.0; shape.iter().product()];
                            for (row, entry) in rows.iter().zip(entries) {
                                let dy = &dy[*row as usize * width..][..width];
                                add_assign_serial(&mut table[*entry as usize * width..][..width], dy);
                            }
                            table
                        })
                    })
                    .collect();
                for (table, (gradient, shape)) in gradients.into_iter().zip(&shapes).enumerate() {
                    if let Some(gradient) = gradient {
                        flow.give_vec(table, gradient, shape)?;
                    }
                }
                Ok(())
            }
        }))
    }
}
