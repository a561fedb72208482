//! Matrices of frozen weights that stay in their file.

use super::gemm::Matrix;
use crate::Precision;
use flowmill_weights::MappedTensor;
use std::ops::Range;

/// Lines of the file, and numbers of each, that are converted at a time: 256 KiB, which stay in the cache. Longer runs are read faster.
const BLOCK: [usize; 2] = [128, 512];

/// A matrix in a mapped file, row-major there, or its transposed view.
#[derive(Debug, Clone, Copy)]
pub struct FileMatrix<'a> {
    weight: &'a MappedTensor,
    /// Rows and columns in the file.
    lines: usize,
    width: usize,
    is_transposed: bool,
    precision: Precision,
}

impl<'a> FileMatrix<'a> {
    /// Creates a view of a tensor as a row-major matrix, whose numbers are rounded to a format when they are read.
    ///
    /// # Panics
    /// When the tensor has another number of elements: a bug in an operation, not an error in its input.
    pub fn new(weight: &'a MappedTensor, rows: usize, columns: usize, precision: Precision) -> Self {
        assert_eq!(weight.count(), rows * columns, "matrix view of weights in a file");
        Self { weight, lines: rows, width: columns, is_transposed: false, precision }
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> usize {
        if self.is_transposed { self.width } else { self.lines }
    }

    /// The number of columns.
    pub(super) fn columns(&self) -> usize {
        if self.is_transposed { self.lines } else { self.width }
    }

    /// The transposed view.
    pub(super) fn transposed(self) -> Self {
        Self { is_transposed: !self.is_transposed, ..self }
    }

    /// Rows and columns to read at a time.
    pub(super) fn block_size(&self) -> [usize; 2] {
        let [lines, run] = BLOCK;
        if self.is_transposed { [run, lines] } else { [lines, run] }
    }

    /// Reads some rows and columns into a buffer, on this thread.
    pub(super) fn block<'b>(&self, rows: Range<usize>, columns: Range<usize>, buffer: &'b mut Vec<f32>) -> Matrix<'b> {
        let (lines, run) = if self.is_transposed { (columns, rows) } else { (rows, columns) };
        // Elements that are there already need not be cleared: all are written.
        buffer.resize(lines.len() * run.len(), 0.0);
        for (line, out) in lines.clone().zip(buffer.chunks_exact_mut(run.len().max(1))) {
            self.weight.copy_to(line * self.width + run.start, out);
        }
        self.precision.round_here(buffer);
        let block = Matrix::row_major(buffer, lines.len(), run.len()).of(self.precision);
        if self.is_transposed { block.transposed() } else { block }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use flowmill_weights::{Archive, ElementType, MappedTensor};
    use half::{bf16, f16};
    use std::path::Path;

    /// Writes numbers to a file in a type, and maps them.
    pub(crate) fn in_file(numbers: &[f32], count: usize, element: ElementType, path: &Path) -> MappedTensor {
        let bytes: Vec<u8> = match element {
            ElementType::BF16 => numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            ElementType::F16 => numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            _ => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        let dtype = element.to_string().to_uppercase();
        let header =
            format!(r#"{{"weight":{{"dtype":"{dtype}","shape":[{count}],"data_offsets":[0,{}]}}}}"#, bytes.len());
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat();
        std::fs::write(path, file).unwrap();
        Archive::open(path).unwrap().map().unwrap().remove("weight").unwrap()
    }
}
