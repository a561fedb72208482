//! Matrix products on strided views, cut into tiles of fixed size.

use super::shared::Shared;
use gemm::Parallelism;
use rayon::prelude::*;

/// A strided view of a matrix.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A view with the given strides.
    ///
    /// # Panics
    /// When the view would reach beyond `data`: a mistake in a kernel, not in its input.
    pub fn strided(data: &'a [f32], shape: [usize; 2], strides: [usize; 2]) -> Self {
        let [rows, columns] = shape;
        if rows > 0 && columns > 0 {
            let last = (rows - 1) * strides[0] + (columns - 1) * strides[1];
            assert!(last < data.len(), "matrix view out of bounds");
        }
        Self { data, rows, columns, row_stride: strides[0], column_stride: strides[1] }
    }

    /// A row-major matrix.
    ///
    /// # Panics
    /// When `data` is too short.
    pub fn row_major(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, [rows, columns], [columns, 1])
    }

    /// The transposed view.
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// Some of the rows.
    pub fn row_range(self, start: usize, end: usize) -> Self {
        let offset = if start < end { start * self.row_stride } else { 0 };
        let shape = [end - start, self.columns];
        Self::strided(&self.data[offset..], shape, [self.row_stride, self.column_stride])
    }

    /// Some of the columns.
    pub fn column_range(self, start: usize, end: usize) -> Self {
        self.transposed().row_range(start, end).transposed()
    }
}

/// Where a product goes: rows of `row_stride` elements from `offset` on.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The buffer.
    pub buffer: Shared<'a>,
    /// Index of the first element of the first row.
    pub offset: usize,
    /// Distance between rows.
    pub row_stride: usize,
}

/// Products below this many multiplications run as one task.
const SMALL: usize = 1 << 18;
const TILE_ROWS: usize = 192;
const TILE_COLUMNS: usize = 256;

/// `target = a b` (or `target += a b` with `accumulate`), multi-threaded; `target` has rows of `row_stride` elements. Tiles
/// have a fixed size and each is computed by one task, so the result does not depend on the number of threads.
///
/// # Panics
/// When the shapes do not fit: a mistake in a kernel, not in its input.
pub fn multiply(target: &mut [f32], row_stride: usize, a: Matrix, b: Matrix, accumulate: bool) {
    multiply_then(target, row_stride, a, b, accumulate, |_, _| ());
}

/// As [`multiply`]; `then` is called for each finished tile of rows with their index and elements, while they are in
/// the cache. Needs `row_stride` to be the number of columns of `b` when it looks at them.
///
/// # Panics
/// As [`multiply`].
pub fn multiply_then(
    target: &mut [f32],
    row_stride: usize,
    a: Matrix,
    b: Matrix,
    accumulate: bool,
    then: impl Fn(usize, &mut [f32]) + Sync,
) {
    assert!(row_stride >= b.columns, "rows of a matrix product overlap");
    let buffer = Shared::new(target);
    let finish = |rows: [usize; 2]| {
        // SAFETY: tasks that call `finish` own whole rows.
        then(rows[0], unsafe { buffer.slice(rows[0] * row_stride, (rows[1] - rows[0]) * b.columns) });
    };
    let whole = Target { buffer, offset: 0, row_stride };
    let few_rows = a.rows < 4 * TILE_ROWS && b.columns > TILE_COLUMNS;
    if a.rows * b.columns * a.columns <= SMALL {
        multiply_into(whole, a, b, accumulate);
        finish([0, a.rows]);
    } else if few_rows {
        (0..b.columns.div_ceil(TILE_COLUMNS)).into_par_iter().for_each(|index| {
            let columns = [index * TILE_COLUMNS, b.columns.min((index + 1) * TILE_COLUMNS)];
            let target = Target { offset: columns[0], ..whole };
            multiply_into(target, a, b.column_range(columns[0], columns[1]), accumulate);
        });
        finish([0, a.rows]);
    } else {
        let height = tile_rows(a.rows);
        (0..a.rows.div_ceil(height)).into_par_iter().for_each(|index| {
            let rows = [index * height, a.rows.min((index + 1) * height)];
            let target = Target { offset: rows[0] * row_stride, ..whole };
            multiply_into(target, a.row_range(rows[0], rows[1]), b, accumulate);
            finish(rows);
        });
    }
}

/// Rows per tile: a function of the problem alone.
fn tile_rows(rows: usize) -> usize {
    if rows >= 4 * TILE_ROWS { TILE_ROWS } else { rows.div_ceil(8).next_multiple_of(16) }
}

/// `target = a b` (or `target += a b` with `accumulate`) on one thread.
///
/// # Panics
/// When the shapes do not fit: a mistake in a kernel, not in its input.
pub fn multiply_into(target: Target, a: Matrix, b: Matrix, accumulate: bool) {
    assert_eq!(a.columns, b.rows, "inner sizes of a matrix product");
    if a.rows == 0 || b.columns == 0 {
        return;
    }
    let destination = target.buffer.matrix(target.offset, a.rows, b.columns, target.row_stride);
    // SAFETY: both views and the target were checked against their slices; the tasks' targets are disjoint.
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
    use crate::random::Draw;

    fn naive(a: Matrix, b: Matrix) -> Vec<f64> {
        let element = |m: &Matrix, r: usize, c: usize| f64::from(m.data[r * m.row_stride + c * m.column_stride]);
        let inner = |r: usize, c: usize| (0..a.columns).map(|k| element(&a, r, k) * element(&b, k, c)).sum();
        (0..a.rows).flat_map(|r| (0..b.columns).map(move |c| (r, c))).map(|(r, c)| inner(r, c)).collect()
    }

    #[test]
    fn products_agree_with_loops_for_all_layouts() {
        let draw = Draw::new(3);
        for (rows, inner, columns) in [(1, 1, 1), (5, 7, 3), (200, 33, 300), (900, 64, 17), (2, 900, 600)] {
            let a = draw.purpose("a").normals(rows * inner);
            let b = draw.purpose("b").normals(inner * columns);
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
    fn results_do_not_depend_on_the_number_of_threads() {
        let draw = Draw::new(4);
        let (rows, inner, columns) = (1500, 200, 130);
        let (a, b) = (draw.normals(rows * inner), draw.purpose("b").normals(inner * columns));
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
