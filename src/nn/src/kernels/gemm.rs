//! Matrix products on strided views, cut into tiles of fixed size.

use super::file_matrix::FileMatrix;
use super::shared::Shared;
use super::{gemm_amx, gemm_bf16};
use crate::Precision;
use crate::host::uninitialized;
use gemm::Parallelism;
use rayon::prelude::*;

/// A strided view of a matrix.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
    precision: Precision,
}

impl<'a> Matrix<'a> {
    /// Creates a view with the given strides.
    ///
    /// # Panics
    /// When the view would reach beyond `data`: a bug in a kernel, not an error in its input.
    pub fn strided(data: &'a [f32], shape: [usize; 2], strides: [usize; 2]) -> Self {
        let [rows, columns] = shape;
        if rows > 0 && columns > 0 {
            let along = |size: usize, stride: usize| (size - 1).checked_mul(stride);
            let last = along(rows, strides[0]).and_then(|down| down.checked_add(along(columns, strides[1])?));
            assert!(last.is_some_and(|last| last < data.len()), "matrix view out of bounds");
        }
        let [row_stride, column_stride] = strides;
        Self { data, rows, columns, row_stride, column_stride, precision: Precision::Fp32 }
    }

    /// Creates a view of a row-major matrix.
    ///
    /// # Panics
    /// When `data` is too short.
    pub fn row_major(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, [rows, columns], [columns, 1])
    }

    /// Marks the numbers as being in a format, or as allowed to be rounded to it. A product of two bf16 matrices uses the
    /// processor's bf16 instruction where that is faster.
    pub fn of(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Returns the number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The transposed view.
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            precision: self.precision,
        }
    }

    /// Returns some of the rows.
    pub fn row_range(self, start: usize, end: usize) -> Self {
        assert!(start <= end && end <= self.rows, "rows {start}..{end} of a matrix of {}", self.rows);
        // Rows without elements are never read.
        let offset = if start < end && self.columns > 0 { start * self.row_stride } else { 0 };
        let shape = [end - start, self.columns];
        Self::strided(&self.data[offset..], shape, [self.row_stride, self.column_stride]).of(self.precision)
    }

    /// Returns some of the columns.
    pub fn column_range(self, start: usize, end: usize) -> Self {
        self.transposed().row_range(start, end).transposed()
    }
}

/// The right factor of a product.
#[derive(Debug, Clone, Copy)]
pub enum Factor<'a> {
    /// Numbers in memory.
    Memory(Matrix<'a>),
    /// Weights that stay in their file.
    File(FileMatrix<'a>),
}

impl<'a> From<Matrix<'a>> for Factor<'a> {
    fn from(matrix: Matrix<'a>) -> Self {
        Self::Memory(matrix)
    }
}

impl Factor<'_> {
    /// The number of rows.
    fn rows(&self) -> usize {
        match self {
            Self::Memory(matrix) => matrix.rows,
            Self::File(matrix) => matrix.rows(),
        }
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        match self {
            Self::Memory(matrix) => matrix.columns,
            Self::File(matrix) => matrix.columns(),
        }
    }

    /// The transposed view.
    pub fn transposed(self) -> Self {
        match self {
            Self::Memory(matrix) => Self::Memory(matrix.transposed()),
            Self::File(matrix) => Self::File(matrix.transposed()),
        }
    }
}

/// Destination of a product: rows of `row_stride` elements, starting at `offset`.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The buffer.
    pub buffer: Shared<'a>,
    /// Index of the first element of the first row.
    pub offset: usize,
    /// Distance between rows.
    pub row_stride: usize,
}

/// Smallest number of multiplications per task that is worth a thread.
const TASK: usize = 1 << 22;
/// Number of multiplications per task beyond which more tasks only mean more packing.
const LARGE_TASK: usize = 1 << 26;

/// Instructions that compute a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    /// Instructions of the processor's tile unit.
    Unit,
    /// Instructions on vectors.
    Vectors,
}

impl Kernel {
    /// Returns the faster kernel for a product. It depends on the problem and the processor only.
    fn of(rows: usize, inner: usize, columns: usize) -> Self {
        let unit = gemm_amx::chosen() && gemm_amx::pays(rows, inner, columns);
        if unit { Self::Unit } else { Self::Vectors }
    }
}

/// Division of a product into tiles: their number down and across, and their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tiles {
    down: usize,
    across: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Tiles {
    /// Divides a product. The division depends on the problem only, never on the machine: as many tiles as there is work for, in the
    /// arrangement with the least packing (each tile packs its part of both sides).
    pub(crate) fn new(rows: usize, inner: usize, columns: usize) -> Self {
        let work = rows.saturating_mul(inner).saturating_mul(columns);
        Self::of_number(rows, columns, (work / TASK).min(4).max(work / LARGE_TASK))
    }

    /// Divides a product for the tile unit, which sums every element in the same order whatever the division: no more tiles than there are
    /// threads, because each is packed.
    fn for_unit(rows: usize, inner: usize, columns: usize) -> Self {
        let work = rows.saturating_mul(inner).saturating_mul(columns);
        Self::of_number(rows, columns, (work / TASK).min(rayon::current_num_threads().next_power_of_two()))
    }

    /// Divides a product into about so many tiles.
    fn of_number(rows: usize, columns: usize, wanted: usize) -> Self {
        let wanted = wanted.clamp(1, 1 << 10);
        let count = 1usize << wanted.ilog2();
        let arrangements = (0..=count.ilog2()).map(|bits| (1usize << bits, count >> bits));
        let packed = |(down, across): &(usize, usize)| down * columns + across * rows;
        let (down, across) = arrangements.min_by_key(packed).unwrap_or((1, 1));
        // The inner loops compute blocks of 6 rows and 64 columns.
        let height = rows.div_ceil(down).next_multiple_of(6).max(6);
        let width = columns.div_ceil(across).next_multiple_of(64).max(64);
        Self { down: rows.div_ceil(height), across: columns.div_ceil(width), height, width }
    }

    /// The rows and columns of each tile.
    fn tile(&self, index: usize, rows: usize, columns: usize) -> [std::ops::Range<usize>; 2] {
        let (row, column) = (index / self.across * self.height, index % self.across * self.width);
        [row..rows.min(row + self.height), column..columns.min(column + self.width)]
    }
}

/// `target = a b` (or `target += a b` with `accumulate`), multi-threaded; `target` has rows of `row_stride` elements. The result
/// does not depend on the number of threads.
///
/// # Panics
/// When the shapes do not fit: a bug in a kernel, not an error in its input.
pub fn multiply<'b>(target: &mut [f32], row_stride: usize, a: Matrix, b: impl Into<Factor<'b>>, accumulate: bool) {
    multiply_then(target, row_stride, a, b, accumulate, |_, _| ());
}

/// `a b`, multi-threaded, row-major.
///
/// # Panics
/// Like [`multiply`].
pub fn product<'b>(a: Matrix, b: impl Into<Factor<'b>>) -> Vec<f32> {
    let b = b.into();
    // SAFETY: the product has exactly this shape, so it writes every element.
    let mut product = unsafe { uninitialized(a.rows * b.columns()) };
    multiply(&mut product, b.columns(), a, b, false);
    product
}

/// Like [`multiply`], and calls `then` for each finished run of elements with the index of the first and the elements, while
/// they are in the cache.
///
/// # Panics
/// Like [`multiply`].
pub fn multiply_then<'b>(
    target: &mut [f32],
    row_stride: usize,
    a: Matrix,
    b: impl Into<Factor<'b>>,
    accumulate: bool,
    then: impl Fn(usize, &mut [f32]) + Sync,
) {
    let b = b.into();
    let width = b.columns();
    assert!(row_stride >= width, "rows of a matrix product overlap");
    let buffer = Shared::new(target);
    let kernel = Kernel::of(a.rows, a.columns, width);
    let tiles = match kernel {
        Kernel::Unit => Tiles::for_unit(a.rows, a.columns, width),
        Kernel::Vectors => Tiles::new(a.rows, a.columns, width),
    };
    let work = |index: usize| {
        let [rows, columns] = tiles.tile(index, a.rows, width);
        let target = Target { buffer, offset: rows.start * row_stride + columns.start, row_stride };
        let left = a.row_range(rows.start, rows.end);
        // SAFETY: tiles do not overlap, and each is written by one task.
        unsafe {
            match b {
                Factor::Memory(b) => {
                    multiply_with(kernel, target, left, b.column_range(columns.start, columns.end), accumulate);
                }
                Factor::File(b) => multiply_by_file(kernel, target, left, b, columns.clone(), accumulate),
            }
        };
        let runs = if columns.len() == row_stride { 1 } else { rows.len() };
        let length = rows.len() * columns.len() / runs.max(1);
        for run in 0..runs {
            let offset = target.offset + run * row_stride;
            // SAFETY: tiles do not overlap, and neither do the rows of a tile.
            then(offset, unsafe { buffer.slice(offset, length) });
        }
    };
    assert_eq!(a.columns, b.rows(), "inner sizes of a matrix product");
    match tiles.down * tiles.across {
        1 => work(0),
        count => (0..count).into_par_iter().for_each(work),
    }
}

/// Like [`multiply_into`], by some of the columns of weights in a file, with a given kernel. They are converted block by block, so that the
/// numbers never leave the cache.
///
/// # Safety
/// Like [`multiply_into`].
unsafe fn multiply_by_file(
    kernel: Kernel,
    target: Target,
    a: Matrix,
    b: FileMatrix,
    columns: std::ops::Range<usize>,
    accumulate: bool,
) {
    let ([height, width], mut block) = (b.block_size(), Vec::new());
    for column in columns.clone().step_by(width) {
        let end = columns.end.min(column + width);
        let target = Target { offset: target.offset + column - columns.start, ..target };
        // One block at least: without rows the sums are 0.
        for row in (0..b.rows().max(1)).step_by(height) {
            let rows = row..b.rows().min(row + height);
            let left = a.column_range(rows.start, rows.end);
            let right = b.block(rows, column..end, &mut block);
            // SAFETY: by the caller's promise; the columns are among those given.
            unsafe { multiply_with(kernel, target, left, right, accumulate || row > 0) };
        }
    }
}

/// `target = a b` (or `target += a b` with `accumulate`) on one thread; `target` has rows of `row_stride` elements.
///
/// # Panics
/// When the shapes do not fit: a bug in a kernel, not an error in its input.
pub fn multiply_on_one_thread(target: &mut [f32], row_stride: usize, a: Matrix, b: Matrix, accumulate: bool) {
    let target = Target { buffer: Shared::new(target), offset: 0, row_stride };
    // SAFETY: the buffer is borrowed for this product alone.
    unsafe { multiply_into(target, a, b, accumulate) }
}

/// `target = a b` (or `target += a b` with `accumulate`) on one thread.
///
/// # Safety
/// Nothing else may touch the target's elements (the rows of `a` by the columns of `b`) while this runs.
///
/// # Panics
/// When the shapes do not fit: a bug in a kernel, not an error in its input.
pub(crate) unsafe fn multiply_into(target: Target, a: Matrix, b: Matrix, accumulate: bool) {
    let kernel = Kernel::of(a.rows, a.columns, b.columns);
    // SAFETY: by the caller's promise.
    unsafe { multiply_with(kernel, target, a, b, accumulate) }
}

/// Like [`multiply_into`], with a given kernel.
///
/// # Safety
/// Like [`multiply_into`].
unsafe fn multiply_with(kernel: Kernel, target: Target, a: Matrix, b: Matrix, accumulate: bool) {
    assert_eq!(a.columns, b.rows, "inner sizes of a matrix product");
    if a.rows == 0 || b.columns == 0 {
        return;
    }
    let destination = target.buffer.matrix(target.offset, a.rows, b.columns, target.row_stride);
    if a.columns == 0 && !accumulate {
        // The inner size is 0: all sums are empty.
        for row in 0..a.rows {
            // SAFETY: the row is within the target, which nothing else touches by the caller's promise.
            unsafe { destination.add(row * target.row_stride).write_bytes(0, b.columns) };
        }
        return;
    }
    let rounded = a.precision == Precision::Bf16 && b.precision == Precision::Bf16;
    if kernel == Kernel::Unit {
        let multiply = if rounded { gemm_amx::multiply::<1> } else { gemm_amx::multiply::<3> };
        // SAFETY: both views and the target were checked against their slices; nothing else touches the target by the caller's promise.
        // The unit is chosen only if the processor has it.
        return unsafe { multiply(destination, target.row_stride, a, b, accumulate) };
    }
    if rounded && gemm_bf16::chosen() {
        // SAFETY: both views and the target were checked against their slices; nothing else touches the target by the caller's promise.
        // The instruction is chosen only if the processor has it.
        return unsafe { gemm_bf16::multiply(destination, target.row_stride, a, b, accumulate) };
    }
    // SAFETY: as above.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            destination,
            1,
            target.row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::file_matrix::testing::in_file;
    use crate::random::RngKey;
    use flowmill_weights::ElementType;

    fn naive(a: Matrix, b: Matrix) -> Vec<f64> {
        let element = |m: &Matrix, r: usize, c: usize| f64::from(m.data[r * m.row_stride + c * m.column_stride]);
        let inner = |r: usize, c: usize| (0..a.columns).map(|k| element(&a, r, k) * element(&b, k, c)).sum();
        (0..a.rows).flat_map(|r| (0..b.columns).map(move |c| (r, c))).map(|(r, c)| inner(r, c)).collect()
    }

    #[test]
    fn products_agree_with_loops_for_all_layouts() {
        let rng_key = RngKey::new(3);
        for (rows, inner, columns) in
            [(1, 1, 1), (5, 7, 3), (200, 33, 300), (900, 64, 17), (2, 900, 600), (130, 900, 500)]
        {
            let a = rng_key.purpose("a").normals(rows * inner);
            let b = rng_key.purpose("b").normals(inner * columns);
            let layouts_a = [Matrix::row_major(&a, rows, inner), Matrix::row_major(&a, inner, rows).transposed()];
            let layouts_b = [Matrix::row_major(&b, inner, columns), Matrix::row_major(&b, columns, inner).transposed()];
            for (a, b) in layouts_a.into_iter().flat_map(|a| layouts_b.map(|b| (a, b))) {
                let stride = columns + 2;
                let mut target = vec![1.0; rows * stride];
                multiply(&mut target, stride, a, b, true);
                let expected = naive(a, b);
                for (index, expected) in expected.iter().enumerate() {
                    let found = f64::from(target[index / columns * stride + index % columns]);
                    assert!((found - expected - 1.0).abs() < 1e-3, "{found} {expected}");
                }
                assert_eq!(target[columns], 1.0, "the gap between rows is left alone");
            }
        }
    }

    #[test]
    fn products_with_weights_in_a_file_are_those_with_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let rng_key = RngKey::new(5);
        for (at, (rows, inner, columns)) in [(1, 1, 1), (5, 300, 3), (130, 700, 900), (3, 0, 2)].into_iter().enumerate()
        {
            let a = rng_key.purpose("a").normals(rows * inner);
            let a = Matrix::row_major(&a, rows, inner);
            let numbers = rng_key.purpose("b").normals(inner * columns);
            for (element, precision) in [
                (ElementType::BF16, Precision::Fp32),
                (ElementType::F16, Precision::Fp32),
                (ElementType::F16, Precision::Bf16),
                (ElementType::F32, Precision::Fp32),
            ] {
                let path = folder.path().join(format!("{at} {element} {precision:?}.safetensors"));
                let weight = in_file(&numbers, inner * columns, element, &path);
                let mut held = vec![0.0; numbers.len()];
                weight.copy_to(0, &mut held);
                precision.round(&mut held);
                let file = |rows: usize, columns: usize| FileMatrix::new(&weight, rows, columns, precision);
                let memory = |rows: usize, columns: usize| Matrix::row_major(&held, rows, columns).of(precision);
                let views = [
                    (Factor::File(file(inner, columns)), memory(inner, columns)),
                    (Factor::File(file(columns, inner)).transposed(), memory(columns, inner).transposed()),
                ];
                for (file, memory) in views {
                    let (found, expected) = (product(a, file), naive(a, memory));
                    for (found, expected) in found.iter().zip(&expected) {
                        assert!((f64::from(*found) - expected).abs() < 1e-3, "{found} {expected}");
                    }
                    assert_eq!(found.len(), expected.len());
                    let twice = || {
                        let mut target = vec![1.0; rows * columns];
                        multiply(&mut target, columns, a, file, true);
                        target
                    };
                    assert!(twice().iter().zip(&found).all(|(sum, product)| (sum - product - 1.0).abs() < 1e-3));
                    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
                    assert_eq!(alone.install(twice), twice());
                }
            }
        }
    }

    #[test]
    fn a_product_over_nothing_is_zero() {
        let (a, b) = (Matrix::row_major(&[], 2, 0), Matrix::row_major(&[], 0, 3));
        assert_eq!(product(a, b), [0.0; 6]);
        let mut target = [1.0; 6];
        multiply(&mut target, 3, a, b, true);
        assert_eq!(target, [1.0; 6]);
    }

    #[test]
    fn views_beyond_their_data_are_refused_even_where_their_sizes_overflow() {
        let data = [0.0; 6];
        let refused = |shape: [usize; 2], strides: [usize; 2]| {
            std::panic::catch_unwind(|| Matrix::strided(&data, shape, strides).rows).is_err()
        };
        assert!(!refused([2, 3], [3, 1]) && refused([3, 3], [3, 1]));
        assert!(refused([3, 1], [usize::MAX / 2 + 1, 1]) && refused([2, 2], [usize::MAX, 1]));
        let rows = |start: usize, end: usize| {
            std::panic::catch_unwind(|| Matrix::row_major(&data, 2, 3).row_range(start, end).rows).is_err()
        };
        assert!(!rows(1, 2) && rows(1, 3) && rows(2, 1));
    }

    #[test]
    fn tiles_cover_every_element_once() {
        for (rows, inner, columns) in [(1, 1, 1), (1601, 130, 127), (128, 1600, 128), (800, 512, 2048), (3, 9000, 5000)]
        {
            let tiles = Tiles::new(rows, inner, columns);
            let mut seen = vec![0u8; rows * columns];
            for index in 0..tiles.down * tiles.across {
                let [tile_rows, tile_columns] = tiles.tile(index, rows, columns);
                assert!(!tile_rows.is_empty() && !tile_columns.is_empty());
                for row in tile_rows {
                    tile_columns.clone().for_each(|column| seen[row * columns + column] += 1);
                }
            }
            assert!(seen.iter().all(|seen| *seen == 1));
        }
    }

    #[test]
    fn every_finished_element_is_handed_on_once() {
        let (rows, inner, columns) = (700, 300, 900);
        let (a, b) = (vec![1.0; rows * inner], vec![1.0; inner * columns]);
        let mut target = vec![0.0; rows * columns];
        let (a, b) = (Matrix::row_major(&a, rows, inner), Matrix::row_major(&b, inner, columns));
        multiply_then(&mut target, columns, a, b, false, |offset, run| {
            run.iter_mut().enumerate().for_each(|(index, x)| *x += (offset + index) as f32);
        });
        assert!(target.iter().enumerate().all(|(index, x)| *x == (inner + index) as f32));
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let rng_key = RngKey::new(4);
        let (rows, inner, columns) = (1500, 500, 330);
        let (a, b) = (rng_key.normals(rows * inner), rng_key.purpose("b").normals(inner * columns));
        let product = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut target = vec![0.0; rows * columns];
            let (a, b) = (Matrix::row_major(&a, rows, inner), Matrix::row_major(&b, inner, columns));
            pool.install(|| multiply(&mut target, columns, a, b, false));
            target
        };
        assert_eq!(product(1), product(7));
    }
}
