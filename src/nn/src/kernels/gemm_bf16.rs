//! Matrix products of numbers in bf16 with sums in f32, by the instruction `VDPBF16PS` of AVX-512 BF16.
//!
//! The instruction multiplies two pairs of numbers per sum, so both sides are packed in pairs along the inner axis. It treats
//! subnormal numbers as zero.

use super::gemm::Matrix;
use std::sync::LazyLock;

/// The environment variable that overrides [`chosen`]: `yes` (if the processor has the instruction) or `no`.
const VARIABLE: &str = "FLOWMILL_BF16_PRODUCTS";

/// Returns whether bf16 products use the instruction. The answer depends on the processor only, so a training run on one machine
/// always gives the same result.
///
/// On Intel's processors the instruction takes four times as long as an f32 multiply-add (measured, docs/BENCHMARKS.md), so f32 is
/// faster. On AMD's, PyTorch's bf16 training, whose products use it, takes 0.57 of the time of f32 (Zen 5); this kernel was not measured
/// there.
pub(crate) fn chosen() -> bool {
    static CHOSEN: LazyLock<bool> = LazyLock::new(|| {
        supported()
            && match std::env::var(VARIABLE).as_deref() {
                Ok("yes") => true,
                Ok("no") => false,
                _ => fast(),
            }
    });
    *CHOSEN
}

#[cfg(not(target_arch = "x86_64"))]
mod kernel {
    use super::Matrix;

    pub(crate) fn supported() -> bool {
        false
    }

    pub(super) fn fast() -> bool {
        false
    }

    pub(super) unsafe fn multiply(_: *mut f32, _: usize, _: Matrix, _: Matrix, _: bool) {
        unreachable!("the processor has no such instruction")
    }
}

use kernel::fast;
/// Returns whether the processor has the instruction.
pub(crate) use kernel::supported;

/// `target = a b` (or `target += a b` with `accumulate`) on one thread, with both sides rounded to bf16; rows of the target are
/// `row_stride` elements apart.
///
/// # Safety
/// The processor must have the instruction ([`supported`]). The target must have at least the rows of `a` and the columns of `b`, and
/// nothing else may touch them while this runs.
pub(crate) unsafe fn multiply(target: *mut f32, row_stride: usize, a: Matrix, b: Matrix, accumulate: bool) {
    // SAFETY: by the caller's promise.
    unsafe { kernel::multiply(target, row_stride, a, b, accumulate) }
}

#[cfg(target_arch = "x86_64")]
mod kernel {
    use super::Matrix;
    use crate::kernels::bf16_tiles::{LANES, Line, mask, read};
    use std::arch::x86_64::*;
    use std::mem::transmute;

    /// Rows and vectors of columns that the inner loop accumulates in registers.
    const ROWS: usize = 6;
    const VECTORS: usize = 4;
    const COLUMNS: usize = VECTORS * LANES;
    /// Pairs along the inner axis, rows and columns that are packed at a time: a panel of the right side stays in the first-level cache.
    const BLOCK_PAIRS: usize = 128;
    const BLOCK_ROWS: usize = 16 * ROWS;
    const BLOCK_COLUMNS: usize = 16 * COLUMNS;
    /// Distance between packed rows of the left side; not a power of two, so that they do not share the same cache sets.
    const LEFT_STRIDE: usize = BLOCK_PAIRS + LANES;

    pub(crate) fn supported() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16")
    }

    pub(super) fn fast() -> bool {
        let vendor = __cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx] == [*b"Auth", *b"enti", *b"cAMD"].map(u32::from_le_bytes)
    }

    /// Like [`super::multiply`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn multiply(target: *mut f32, row_stride: usize, a: Matrix, b: Matrix, accumulate: bool) {
        let (rows, inner, columns) = (a.rows, a.columns, b.columns);
        let pairs = inner.div_ceil(2);
        let block_columns = columns.min(BLOCK_COLUMNS).next_multiple_of(COLUMNS);
        let block_pairs = pairs.min(BLOCK_PAIRS).next_multiple_of(LANES);
        let mut right = vec![0u32; block_columns * block_pairs];
        let mut left = vec![0u32; BLOCK_ROWS.min(rows).next_multiple_of(LANES).next_multiple_of(ROWS) * LEFT_STRIDE];
        for first_column in (0..columns).step_by(BLOCK_COLUMNS) {
            let width = (columns - first_column).min(BLOCK_COLUMNS);
            for first_pair in (0..pairs).step_by(BLOCK_PAIRS) {
                let depth = (pairs - first_pair).min(BLOCK_PAIRS);
                pack_right(&mut right, b, first_pair, depth, first_column, width);
                for first_row in (0..rows).step_by(BLOCK_ROWS) {
                    let height = (rows - first_row).min(BLOCK_ROWS);
                    pack_left(&mut left, a, first_pair, depth, first_row, height);
                    for column in (0..width).step_by(COLUMNS) {
                        let panel = &right[column * depth.next_multiple_of(LANES)..];
                        let across = (width - column).min(COLUMNS);
                        for row in (0..height).step_by(ROWS) {
                            let strip = Strip {
                                left: &left[row * LEFT_STRIDE..],
                                right: panel,
                                depth,
                                rows: (height - row).min(ROWS),
                                last: mask((across - 1) % LANES + 1),
                                row_stride,
                                add: accumulate || first_pair > 0,
                            };
                            // SAFETY: the strip is within the target, by the caller's promise.
                            unsafe {
                                let target = target.add((first_row + row) * row_stride + first_column + column);
                                match across.div_ceil(LANES) {
                                    1 => strip.sum::<1>(target),
                                    2 => strip.sum::<2>(target),
                                    3 => strip.sum::<3>(target),
                                    _ => strip.sum::<4>(target),
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// Some rows of the left side times one panel of the right one.
    struct Strip<'a> {
        left: &'a [u32],
        right: &'a [u32],
        /// Pairs along the inner axis.
        depth: usize,
        rows: usize,
        /// The columns of the last vector.
        last: __mmask16,
        row_stride: usize,
        /// True to add to the target.
        add: bool,
    }

    impl Strip<'_> {
        /// Sums and writes `WIDE` vectors of columns.
        ///
        /// # Safety
        /// The target must have the rows and columns of the strip, which nothing else touches.
        #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
        unsafe fn sum<const WIDE: usize>(&self, target: *mut f32) {
            assert!(
                self.left.len() >= (ROWS - 1) * LEFT_STRIDE + self.depth && self.right.len() >= self.depth * COLUMNS
            );
            let mut sums = [[_mm512_setzero_ps(); WIDE]; ROWS];
            let (mut left, mut right) = (self.left.as_ptr(), self.right.as_ptr());
            for _ in 0..self.depth {
                // SAFETY: both sides reach this far, which was checked above.
                unsafe {
                    let mut columns = [_mm512_setzero_si512(); WIDE];
                    for (vector, columns) in columns.iter_mut().enumerate() {
                        *columns = _mm512_loadu_si512(right.add(vector * LANES).cast());
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let pair = _mm512_set1_epi32((*left.add(row * LEFT_STRIDE)).cast_signed());
                        for (sum, columns) in sums.iter_mut().zip(columns) {
                            *sum = _mm512_dpbf16_ps(
                                *sum,
                                transmute::<__m512i, __m512bh>(pair),
                                transmute::<__m512i, __m512bh>(columns),
                            );
                        }
                    }
                    left = left.add(1);
                    right = right.add(COLUMNS);
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                if row < self.rows {
                    for (vector, sum) in sums.into_iter().enumerate() {
                        let mask = if vector + 1 == WIDE { self.last } else { !0 };
                        // SAFETY: within the target by the caller's promise; columns beyond it are masked.
                        unsafe {
                            let place = target.add(row * self.row_stride + vector * LANES);
                            let sum =
                                if self.add { _mm512_add_ps(_mm512_maskz_loadu_ps(mask, place), sum) } else { sum };
                            _mm512_mask_storeu_ps(place, mask, sum);
                        }
                    }
                }
            }
        }
    }

    /// Packs rows of the left side as `[row][pair]`.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn pack_left(packed: &mut [u32], a: Matrix, first_pair: usize, depth: usize, first_row: usize, height: usize) {
        let mut tile = [Line([0; LANES]); LANES];
        for row in (0..height).step_by(LANES) {
            for pair in (0..depth).step_by(LANES) {
                read::<1, false>(&mut tile, LANES, a, first_row + row, 2 * (first_pair + pair));
                for (index, line) in tile.iter().enumerate().take(height - row) {
                    packed[(row + index) * LEFT_STRIDE + pair..][..LANES].copy_from_slice(&line.0);
                }
            }
        }
    }

    /// Packs columns of the right side in panels as `[panel][pair][column]`.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn pack_right(packed: &mut [u32], b: Matrix, first_pair: usize, depth: usize, first_column: usize, width: usize) {
        let b = b.transposed();
        let panel = depth.next_multiple_of(LANES) * COLUMNS;
        let mut tile = [Line([0; LANES]); LANES];
        for column in (0..width).step_by(LANES) {
            let packed = &mut packed[column / COLUMNS * panel + column % COLUMNS..];
            for pair in (0..depth).step_by(LANES) {
                read::<1, true>(&mut tile, LANES, b, first_column + column, 2 * (first_pair + pair));
                for (index, line) in tile.iter().enumerate() {
                    packed[(pair + index) * COLUMNS..][..LANES].copy_from_slice(&line.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::uninitialized;
    use crate::kernels::layouts::Layouts;
    use half::bf16;

    #[test]
    fn products_in_bf16_agree_with_loops_for_all_sizes_and_layouts() {
        if !supported() {
            eprintln!("not tested: this processor has no AVX-512 BF16");
            return;
        }
        let sizes = [
            [1, 1, 1],
            [5, 7, 3],
            [6, 2, 64],
            [7, 31, 65],
            [16, 32, 16],
            [17, 33, 47],
            [200, 33, 300],
            [97, 600, 17],
            [13, 257, 1100],
        ];
        for [rows, inner, columns] in sizes {
            let layouts = Layouts::new([rows, inner, columns]);
            let expected = layouts.sums(|x| bf16::from_f32(x).to_f32());
            for [a, b] in layouts.pairs() {
                let stride = columns + 3;
                let mut added = vec![1.0; rows * stride];
                // SAFETY: the target has the rows and columns, and every element is written.
                let mut fresh = unsafe { uninitialized(rows * columns) };
                // SAFETY: as above.
                unsafe {
                    multiply(added.as_mut_ptr(), stride, a, b, true);
                    multiply(fresh.as_mut_ptr(), columns, a, b, false);
                }
                for (index, (expected, _)) in expected.iter().enumerate() {
                    let place = index / columns * stride + index % columns;
                    let close = |found: f32, expected: f64| (f64::from(found) - expected).abs() < 2e-4;
                    assert!(close(fresh[index], *expected), "{rows} {inner} {columns}: {} {expected}", fresh[index]);
                    assert!(close(added[place], expected + 1.0), "{rows} {inner} {columns} added");
                }
                let gaps = added.chunks(stride).all(|row| row[columns..] == [1.0; 3]);
                assert!(gaps, "the gap between rows is left alone");
            }
        }
    }

    #[test]
    fn numbers_that_are_not_finite_stay_so() {
        if !supported() {
            return;
        }
        for x in [f32::NAN, f32::INFINITY, f32::from_bits(0x7fff_ffff)] {
            let (a, b) = ([1.0, x, 1.0], [1.0, 1.0, 1.0]);
            let mut sum = [0.0];
            let (a, b) = (Matrix::row_major(&a, 1, 3), Matrix::row_major(&b, 3, 1));
            // SAFETY: the target has one element.
            unsafe { multiply(sum.as_mut_ptr(), 1, a, b, false) };
            assert!(!sum[0].is_finite() && sum[0].is_nan() == x.is_nan(), "{x} gave {}", sum[0]);
        }
    }
}
