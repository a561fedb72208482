//! A table of tensors: names, types, shapes, number of elements.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use super::facts::View;
use crate::human;
use crate::style;
use crate::table::{Align, Cell, Table};

/// The tensors of a file.
#[derive(Debug, Default, Serialize)]
pub struct Tensors {
    /// The tensors in the order of the file.
    pub tensors: Vec<Tensor>,
    /// Numbers and bytes by element type.
    types: BTreeMap<String, Sum>,
}

/// The properties of one tensor.
#[derive(Debug, Serialize)]
pub struct Tensor {
    /// The name.
    pub name: String,
    /// The element type.
    pub dtype: String,
    /// The dimensions.
    pub shape: Vec<usize>,
    /// The size in bytes.
    pub bytes: u64,
}

/// The sums of the tensors of one type.
#[derive(Debug, Default, Serialize)]
struct Sum {
    numbers: u64,
    bytes: u64,
}

impl FromIterator<Tensor> for Tensors {
    fn from_iter<I: IntoIterator<Item = Tensor>>(tensors: I) -> Self {
        let mut found = Self::default();
        for tensor in tensors {
            let sum = found.types.entry(tensor.dtype.clone()).or_default();
            sum.numbers += numbers(&tensor.shape);
            sum.bytes += tensor.bytes;
            found.tensors.push(tensor);
        }
        found
    }
}

impl Tensors {
    /// Prints one line per tensor, then the sums per type.
    pub fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        let mut table = Table::new(&[
            ("tensor", Align::Left),
            ("type", Align::Left),
            ("shape", Align::Left),
            ("numbers", Align::Right),
        ]);
        for tensor in &self.tensors {
            table.row([
                Cell::from(human::shortened(&tensor.name, view.text(120))),
                Cell::styled(&tensor.dtype, style::DIM),
                Cell::from(shape(&tensor.shape)),
                Cell::from(human::count(numbers(&tensor.shape))),
            ]);
        }
        table.print(out)?;
        Ok(writeln!(out, "{}", self.summary())?)
    }

    /// Returns the number of tensors and of their elements by type.
    pub fn summary(&self) -> String {
        let total: u64 = self.types.values().map(|sum| sum.numbers).sum();
        let sums = self.types.iter();
        let sums =
            sums.map(|(dtype, sum)| format!("{} {dtype} ({})", human::count(sum.numbers), human::bytes(sum.bytes)));
        let parts: Vec<String> = sums.collect();
        format!(
            "{} tensors, {} numbers: {}",
            human::count(self.tensors.len() as u64),
            human::count(total),
            if parts.is_empty() { "none".into() } else { parts.join(", ") }
        )
    }
}

fn numbers(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product, size| product.saturating_mul(*size as u64))
}

/// Formats dimensions.
fn shape(shape: &[usize]) -> String {
    match shape {
        [] => "scalar".to_string(),
        sizes => sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × "),
    }
}
