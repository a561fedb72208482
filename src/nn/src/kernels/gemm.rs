//! Matrix products on strided views, cut into tiles of fixed size.

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
            assert!(
                (rows - 1) * strides[0] + (columns - 1) * strides[1] < data.len(),
                "matrix view out of bounds"
            );
        }
        Self {
            data,
            rows,
            columns,
            row_stride: strides[0],
            column_stride: strides[1],
        }
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
        let Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride,
        } = self;
        Self {
            data,
            rows: columns,
            columns: rows,
            row_stride: column_stride,
            column_stride: row_stride,
        }
    }
}

#[derive(Clone, Copy)]
struct Target(*mut f32);
// SAFETY: tasks write disjoint tiles of the target.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: `multiply` checked that every element of the target lies within its slice.
        unsafe { self.0.add(offset) }
    }
}

/// Products below this many multiplications run as one task.
const SMALL: usize = 1 << 18;
const TILE_ROWS: usize = 192;
const TILE_COLUMNS: usize = 256;

/// `target = a b` (or `target += a b` with `accumulate`) on one thread; `target` has rows of `row_stride` elements.
///
/// # Panics
/// When the shapes do not fit: a mistake in a kernel, not in its input.
pub fn multiply_serial(
    target: &mut [f32],
    row_stride: usize,
    a: Matrix,
    b: Matrix,
    accumulate: bool,
) {
    check(target, row_stride, a, b);
    tile(
        Target(target.as_mut_ptr()),
        row_stride,
        a,
        b,
        accumulate,
        [0, a.rows],
        [0, b.columns],
    );
}

/// As [`multiply_serial`], multi-threaded. Tiles have a fixed size and each is computed by one task, so the result does not
/// depend on the number of threads.
///
/// # Panics
/// When the shapes do not fit: a mistake in a kernel, not in its input.
pub fn multiply(target: &mut [f32], row_stride: usize, a: Matrix, b: Matrix, accumulate: bool) {
    check(target, row_stride, a, b);
    let target = Target(target.as_mut_ptr());
    if a.rows * b.columns * a.columns <= SMALL {
        return tile(
            target,
            row_stride,
            a,
            b,
            accumulate,
            [0, a.rows],
            [0, b.columns],
        );
    }
    let (across, down) = (b.columns.div_ceil(TILE_COLUMNS), a.rows.div_ceil(TILE_ROWS));
    (0..across * down).into_par_iter().for_each(|index| {
        let (row, column) = (index / across * TILE_ROWS, index % across * TILE_COLUMNS);
        let rows = [row, a.rows.min(row + TILE_ROWS)];
        let columns = [column, b.columns.min(column + TILE_COLUMNS)];
        tile(target, row_stride, a, b, accumulate, rows, columns);
    });
}

fn check(target: &[f32], row_stride: usize, a: Matrix, b: Matrix) {
    assert_eq!(a.columns, b.rows, "inner sizes of a matrix product");
    assert!(row_stride >= b.columns, "rows of a matrix product overlap");
    if a.rows > 0 && b.columns > 0 {
        assert!(
            (a.rows - 1) * row_stride + b.columns <= target.len(),
            "target of a matrix product out of bounds"
        );
    }
}

fn tile(
    target: Target,
    row_stride: usize,
    a: Matrix,
    b: Matrix,
    accumulate: bool,
    rows: [usize; 2],
    columns: [usize; 2],
) {
    // SAFETY: views and target were checked against their slices, the tile lies within them, and tiles are disjoint.
    unsafe {
        gemm::gemm(
            rows[1] - rows[0],
            columns[1] - columns[0],
            a.columns,
            target.at(rows[0] * row_stride + columns[0]),
            1,
            row_stride as isize,
            accumulate,
            a.data.as_ptr().add(rows[0] * a.row_stride),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr().add(columns[0] * b.column_stride),
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
        let element = |m: &Matrix, r: usize, c: usize| {
            f64::from(m.data[r * m.row_stride + c * m.column_stride])
        };
        let inner = |r: usize, c: usize| {
            (0..a.columns)
                .map(|k| element(&a, r, k) * element(&b, k, c))
                .sum()
        };
        (0..a.rows)
            .flat_map(|r| (0..b.columns).map(move |c| (r, c)))
            .map(|(r, c)| inner(r, c))
            .collect()
    }

    #[test]
    fn products_agree_with_loops_for_all_layouts() {
        let draw = Draw::new(3);
        for (rows, inner, columns) in [
            (1, 1, 1),
            (5, 7, 3),
            (200, 33, 300),
            (400, 64, 17),
            (2, 900, 600),
        ] {
            let a = draw.purpose("a").normals(rows * inner);
            let b = draw.purpose("b").normals(inner * columns);
            let layouts_a = [
                Matrix::row_major(&a, rows, inner),
                Matrix::row_major(&a, inner, rows).transposed(),
            ];
            let layouts_b = [
                Matrix::row_major(&b, inner, columns),
                Matrix::row_major(&b, columns, inner).transposed(),
            ];
            for (a, b) in layouts_a
                .into_iter()
                .flat_map(|a| layouts_b.map(|b| (a, b)))
            {
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
}
