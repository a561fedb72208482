//! Matrix products by the tile unit of x86-64 processors (AMX), whose instruction `TDPBF16PS` multiplies numbers in bf16 and sums in f32.
//!
//! Numbers in f32 are products of f32 here too. Such a number is exactly the sum of three numbers in bf16, `high + middle + low`, each of
//! which has 8 of its 24 bits. Of the nine products of two such sums the six largest are summed; the other three are below 2^-24 of the
//! whole, as the rounding of f32 is. The unit multiplies 16 times as fast as the multiply-add of AVX-512 (measured, docs/BENCHMARKS.md), so
//! six products take less time than one there.
//!
//! The unit treats subnormal numbers as zero.

use super::gemm::Matrix;
use std::sync::LazyLock;

/// The environment variable that switches the unit off: `no`.
const VARIABLE: &str = "FLOWMILL_TILE_PRODUCTS";

/// Returns whether products may use the unit. The answer depends on the processor and its system only, so a training run on one machine
/// always gives the same result.
pub(super) fn chosen() -> bool {
    static CHOSEN: LazyLock<bool> = LazyLock::new(|| std::env::var(VARIABLE).as_deref() != Ok("no") && supported());
    *CHOSEN
}

/// Returns whether the unit is faster than vectors for a product of these sizes, with the work of packing both sides (measured by the
/// example `gemm_rate`).
pub(super) fn pays(rows: usize, inner: usize, columns: usize) -> bool {
    let least = if inner >= 512 { 24 } else { 48 };
    inner >= 96 && rows.saturating_mul(columns) >= least * rows.saturating_add(columns)
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod kernel {
    use super::Matrix;

    pub(super) fn supported() -> bool {
        false
    }

    pub(super) unsafe fn multiply<const PARTS: usize>(_: *mut f32, _: usize, _: Matrix, _: Matrix, _: bool) {
        unreachable!("the processor has no such unit")
    }
}

use kernel::supported;

/// `target = a b` (or `target += a b` with `accumulate`) on one thread, with each number as the sum of `PARTS` numbers in bf16: 3 are
/// exact, 1 rounds to bf16. Rows of the target are `row_stride` elements apart.
///
/// # Safety
/// The processor must have the unit ([`chosen`]). The target must have at least the rows of `a` and the columns of `b`, and nothing else
/// may touch them while this runs.
pub(super) unsafe fn multiply<const PARTS: usize>(
    target: *mut f32,
    row_stride: usize,
    a: Matrix,
    b: Matrix,
    accumulate: bool,
) {
    // SAFETY: by the caller's promise.
    unsafe { kernel::multiply::<PARTS>(target, row_stride, a, b, accumulate) }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod kernel {
    use super::Matrix;
    use crate::kernels::bf16_tiles::{DEPTH, LANES, Line, has_adjacent_lines, mask, read};
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::cell::RefCell;

    /// Rows and columns that are summed in tiles at a time: two tiles by two.
    const SIDE: usize = 2 * LANES;
    /// Steps of [`DEPTH`] numbers along the inner axis that are summed at a time: that part of a panel of the right side stays in the
    /// first-level cache.
    const STEPS: usize = 4;
    /// Steps along the inner axis, and panels of rows and of columns, that are packed at a time. All of it stays in the second-level cache.
    /// Several panels of columns make long runs of each row of the target, which memory writes several times as fast as short ones.
    const BLOCK_STEPS: usize = 3 * STEPS;
    const BLOCK_ROWS: usize = 8;
    const BLOCK_COLUMNS: usize = 4;

    /// Lines of the sums of one panel by another: `[row's tile][column's tile][row]`.
    const TILES: usize = 4 * LANES;

    /// Packed operands and sums, kept from one product to the next.
    #[derive(Default)]
    struct Scratch {
        left: Vec<Line>,
        right: Vec<Line>,
        sums: Vec<Line>,
    }

    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }

    /// Asks the system for the state of the tiles, which it keeps for a process only on request.
    pub(super) fn supported() -> bool {
        const REQUEST: libc::c_long = 0x1023;
        const TILE_DATA: libc::c_long = 18;
        let features = __cpuid_count(7, 0).edx;
        let has = |bit: u32| features >> bit & 1 == 1;
        // AMX-BF16 and AMX-TILE.
        has(22)
            && has(24)
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16")
            // SAFETY: the call changes nothing but the permission.
            && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) } == 0
    }

    /// Like [`super::multiply`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn multiply<const PARTS: usize>(
        target: *mut f32,
        row_stride: usize,
        a: Matrix,
        b: Matrix,
        accumulate: bool,
    ) {
        let (rows, inner, columns) = (a.rows, a.columns, b.columns);
        let b = b.transposed();
        let steps = inner.div_ceil(DEPTH);
        // Blocks of about equal length.
        let block = steps.div_ceil(steps.div_ceil(BLOCK_STEPS));
        let [height, width] = [BLOCK_ROWS, BLOCK_COLUMNS].map(|panels| panels * SIDE);
        SCRATCH.with_borrow_mut(|Scratch { left, right, sums }| {
            let panel = block * PARTS * SIDE;
            let high = rows.min(height).div_ceil(SIDE);
            grow(left, high * panel);
            grow(right, BLOCK_COLUMNS * panel);
            grow(sums, BLOCK_COLUMNS * high * TILES);
            // SAFETY: the processor has the unit, by the caller's promise.
            unsafe { configure() };
            for first_row in (0..rows).step_by(height) {
                let rows = (rows - first_row).min(height);
                for first in (0..inner).step_by(block * DEPTH) {
                    let panel = (inner - first).div_ceil(DEPTH).min(block) * PARTS * SIDE;
                    let left = &mut left[..rows.div_ceil(SIDE) * panel];
                    pack::<PARTS, false>(left, panel, a, first_row, first);
                    for first_column in (0..columns).step_by(width) {
                        let columns = (columns - first_column).min(width);
                        let right = &mut right[..columns.div_ceil(SIDE) * panel];
                        pack::<PARTS, true>(right, panel, b, first_column, first);
                        let strips = sums.chunks_exact_mut(rows.div_ceil(SIDE) * TILES);
                        for (right, sums) in right.chunks_exact(panel).zip(strips) {
                            for (index, right) in right.chunks(STEPS * PARTS * SIDE).enumerate() {
                                let start = index * STEPS * PARTS * SIDE;
                                for (left, sums) in left.chunks_exact(panel).zip(sums.chunks_exact_mut(TILES)) {
                                    // SAFETY: the processor has the unit, and its tiles are configured.
                                    unsafe { sum::<PARTS>(&left[start..][..right.len()], right, sums, index > 0) };
                                }
                            }
                        }
                        // SAFETY: the rows and columns are within the target, by the caller's promise.
                        unsafe {
                            let target = target.add(first_row * row_stride + first_column);
                            write(sums, target, row_stride, rows, columns, accumulate || first > 0);
                        }
                    }
                }
            }
            // SAFETY: nothing is in the tiles any more.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        });
    }

    /// Makes room for at least so many lines.
    fn grow(lines: &mut Vec<Line>, count: usize) {
        if lines.len() < count {
            lines.resize(count, Line([0; LANES]));
        }
    }

    /// Gives all eight tiles their full size: 16 lines of 64 bytes.
    ///
    /// # Safety
    /// The processor must have the unit, and the process the permission.
    unsafe fn configure() {
        #[repr(C, align(64))]
        struct Configuration([u8; 64]);
        let mut configuration = Configuration([0; 64]);
        configuration.0[0] = 1;
        for tile in 0..8 {
            configuration.0[16 + 2 * tile] = 64;
            configuration.0[48 + tile] = LANES as u8;
        }
        // SAFETY: the configuration has 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly)) };
    }

    /// Sums the products of some steps of a panel of the left side and one of the right side, and writes them, or adds them to what is
    /// there.
    ///
    /// # Safety
    /// The processor must have the unit, with its tiles configured.
    #[inline(never)]
    unsafe fn sum<const PARTS: usize>(left: &[Line], right: &[Line], sums: &mut [Line], add: bool) {
        const { assert!(PARTS == 1 || PARTS == 3, "a number has one part or three") };
        let steps = left.len() / (PARTS * SIDE);
        assert!(steps > 0 && left.len() == steps * PARTS * SIDE && right.len() == left.len() && sums.len() == TILES);
        /// The four products of the tiles 4 and 5 of the left side with 6 and 7 of the right side.
        macro_rules! products {
            () => {
                "tdpbf16ps tmm0, tmm4, tmm6
                 tdpbf16ps tmm1, tmm4, tmm7
                 tdpbf16ps tmm2, tmm5, tmm6
                 tdpbf16ps tmm3, tmm5, tmm7"
            };
        }
        /// Executes instructions for each step. They move `a` and `b` to the lines of the next one.
        macro_rules! add_steps {
            ($($instruction:expr),* $(,)?) => {
                asm!(
                    "2:",
                    $($instruction,)*
                    "dec {steps}",
                    "jnz 2b",
                    a = inout(reg) left.as_ptr() => _,
                    b = inout(reg) right.as_ptr() => _,
                    steps = inout(reg) steps => _,
                    line = in(reg) 64usize,
                    options(nostack, readonly),
                )
            };
        }
        let sums = sums.as_mut_ptr();
        // SAFETY: each step reads the lines of one step of both panels, and there are sums for four tiles, which was checked; no code
        // between these blocks uses the tiles.
        unsafe {
            if add {
                asm!(
                    "tileloadd tmm0, [{sums} + {line}]",
                    "tileloadd tmm1, [{sums} + {line} + 1024]",
                    "tileloadd tmm2, [{sums} + {line} + 2048]",
                    "tileloadd tmm3, [{sums} + {line} + 3072]",
                    sums = in(reg) sums,
                    line = in(reg) 64usize,
                    options(nostack, readonly),
                );
            } else {
                asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
            }
            if PARTS == 3 {
                add_steps!(
                    "tileloadd tmm4, [{a} + {line} + 4096]",
                    "tileloadd tmm6, [{b} + {line}]",
                    "tileloadd tmm5, [{a} + {line} + 5120]",
                    "tileloadd tmm7, [{b} + {line} + 1024]",
                    products!(),
                    "tileloadd tmm4, [{a} + {line} + 2048]",
                    "tileloadd tmm5, [{a} + {line} + 3072]",
                    products!(),
                    "tileloadd tmm6, [{b} + {line} + 2048]",
                    "tileloadd tmm7, [{b} + {line} + 3072]",
                    products!(),
                    "tileloadd tmm4, [{a} + {line}]",
                    "tileloadd tmm5, [{a} + {line} + 1024]",
                    products!(),
                    "tileloadd tmm6, [{b} + {line} + 4096]",
                    "tileloadd tmm7, [{b} + {line} + 5120]",
                    products!(),
                    "tileloadd tmm6, [{b} + {line}]",
                    "tileloadd tmm7, [{b} + {line} + 1024]",
                    products!(),
                    "add {a}, 6144",
                    "add {b}, 6144",
                );
            } else {
                add_steps!(
                    "tileloadd tmm4, [{a} + {line}]",
                    "tileloadd tmm6, [{b} + {line}]",
                    "tileloadd tmm5, [{a} + {line} + 1024]",
                    "tileloadd tmm7, [{b} + {line} + 1024]",
                    products!(),
                    "add {a}, 2048",
                    "add {b}, 2048",
                );
            }
            asm!(
                "tilestored [{sums} + {line}], tmm0",
                "tilestored [{sums} + {line} + 1024], tmm1",
                "tilestored [{sums} + {line} + 2048], tmm2",
                "tilestored [{sums} + {line} + 3072], tmm3",
                sums = in(reg) sums,
                line = in(reg) 64usize,
                options(nostack),
            );
        }
    }

    /// Writes sums `[column's panel][row's panel]`, or adds them, to the rows and columns that the target has.
    ///
    /// # Safety
    /// The target must have the rows and columns, which nothing else touches.
    #[target_feature(enable = "avx512f")]
    unsafe fn write(sums: &[Line], target: *mut f32, row_stride: usize, rows: usize, columns: usize, add: bool) {
        let strip = rows.div_ceil(SIDE) * TILES;
        for row in 0..rows {
            let first = row / SIDE * TILES + row % SIDE / LANES * 2 * LANES + row % LANES;
            for column in (0..columns).step_by(LANES) {
                let mask = mask(columns - column);
                let sums = &sums[column / SIDE * strip + first + column % SIDE / LANES * LANES];
                // SAFETY: within both by the caller's promise; columns beyond the target are masked.
                unsafe {
                    let sum = _mm512_castsi512_ps(sums.load());
                    let place = target.add(row * row_stride + column);
                    let sum = if add { _mm512_add_ps(_mm512_maskz_loadu_ps(mask, place), sum) } else { sum };
                    _mm512_mask_storeu_ps(place, mask, sum);
                }
            }
        }
    }

    /// Packs panels of 32 lines (rows of the left side, columns of the right side) of the numbers from column `first` on, with zeros
    /// beyond the matrix, as `[panel][step][part][tile][line][number]`; with `PAIRS` as `[panel][step][part][tile][pair][line][number of
    /// the pair]`. Memory is read in its order.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn pack<const PARTS: usize, const PAIRS: bool>(
        packed: &mut [Line],
        panel: usize,
        matrix: Matrix,
        line: usize,
        first: usize,
    ) {
        let (panels, steps) = (packed.len() / panel, panel / (PARTS * SIDE));
        let across = has_adjacent_lines(matrix);
        for index in 0..panels * steps {
            let (number, step) = if across { (index % panels, index / panels) } else { (index / steps, index % steps) };
            let packed = &mut packed[number * panel + step * PARTS * SIDE..][..PARTS * SIDE];
            for tile in 0..SIDE / LANES {
                let line = line + number * SIDE + tile * LANES;
                read::<PARTS, PAIRS>(&mut packed[tile * LANES..], SIDE, matrix, line, first + step * DEPTH);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::layouts::Layouts;
    use crate::random::RngKey;
    use half::bf16;

    /// Checks products in every layout, onto ones and onto nothing. The tolerance is a share of the sum of the absolute terms.
    fn check<const PARTS: usize>(round: fn(f32) -> f32, tolerance: f64) {
        if !chosen() {
            eprintln!("not tested: this processor has no AMX");
            return;
        }
        let sizes = [
            [1, 1, 1],
            [5, 7, 3],
            [32, 32, 32],
            [7, 31, 65],
            [33, 64, 47],
            [200, 33, 300],
            [97, 600, 17],
            [1030, 257, 70],
            [40, 900, 140],
        ];
        for [rows, inner, columns] in sizes {
            let layouts = Layouts::new([rows, inner, columns]);
            let expected = layouts.sums(round);
            for [a, b] in layouts.pairs() {
                let stride = columns + 3;
                let (mut added, mut fresh) = (vec![1.0; rows * stride], vec![f32::NAN; rows * columns]);
                // SAFETY: the processor has the unit, and the targets have the rows and columns.
                unsafe {
                    multiply::<PARTS>(added.as_mut_ptr(), stride, a, b, true);
                    multiply::<PARTS>(fresh.as_mut_ptr(), columns, a, b, false);
                }
                for (index, (expected, size)) in expected.iter().enumerate() {
                    let place = index / columns * stride + index % columns;
                    let errors = [
                        (f64::from(fresh[index]) - expected).abs() / size,
                        (f64::from(added[place]) - expected - 1.0).abs() / (size + 1.0),
                    ];
                    assert!(errors.iter().all(|error| *error <= tolerance), "{rows} {inner} {columns}: {errors:?}");
                }
                let gaps = added.chunks(stride).all(|row| row[columns..] == [1.0; 3]);
                assert!(gaps, "the gap between rows is left alone");
            }
        }
    }

    #[test]
    fn products_of_three_parts_are_those_of_single_precision() {
        // Three roundings to single precision.
        check::<3>(|x| x, 1.8e-7);
    }

    #[test]
    fn sums_are_at_least_as_exact_as_those_of_vectors() {
        if !chosen() {
            return;
        }
        for sizes in [[200, 33, 300], [130, 128, 500], [130, 900, 500], [100, 4096, 100]] {
            let [rows, inner, columns] = sizes;
            let layouts = Layouts::new(sizes);
            let expected = layouts.sums(|x| x);
            let [a, b] = layouts.pairs()[0];
            let (mut by_unit, mut by_vectors) = (vec![0.0; rows * columns], vec![0.0; rows * columns]);
            // SAFETY: the processor has the unit, and the target has the rows and columns.
            unsafe { multiply::<3>(by_unit.as_mut_ptr(), columns, a, b, false) };
            // SAFETY: operands and target have the sizes, with rows one after the other.
            unsafe {
                let [left, right, target] = [inner, columns, columns].map(|stride| stride as isize);
                gemm::gemm(
                    rows,
                    columns,
                    inner,
                    by_vectors.as_mut_ptr(),
                    1,
                    target,
                    false,
                    layouts.a.as_ptr(),
                    1,
                    left,
                    layouts.b.as_ptr(),
                    1,
                    right,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
            let errors = |product: &[f32]| {
                let error = |(found, (sum, size)): (&f32, &(f64, f64))| (f64::from(*found) - sum).abs() / size;
                let errors: Vec<f64> = product.iter().zip(&expected).map(error).collect();
                let square = errors.iter().map(|error| error * error).sum::<f64>();
                [square, errors.into_iter().fold(0.0, f64::max)]
            };
            let (unit, vectors) = (errors(&by_unit), errors(&by_vectors));
            assert!(unit.iter().zip(&vectors).all(|(unit, vectors)| unit <= vectors), "{sizes:?} {unit:?} {vectors:?}");
        }
    }

    #[test]
    fn products_of_one_part_are_those_of_bf16() {
        check::<1>(|x| bf16::from_f32(x).to_f32(), 1.2e-7);
    }

    #[test]
    fn numbers_of_every_size_keep_their_bits() {
        if !chosen() {
            return;
        }
        // A diagonal of powers of two: each element is one exact product.
        let size = 64;
        let factor = |index: usize| 2f32.powi(index as i32 - 32);
        let diagonal: Vec<f32> = (0..size * size)
            .map(|index| if index / size == index % size { factor(index / size) } else { 0.0 })
            .collect();
        let numbers: Vec<f32> = RngKey::new(1).normals(size * size);
        let mut product = vec![0.0; size * size];
        let (a, b) = (Matrix::row_major(&diagonal, size, size), Matrix::row_major(&numbers, size, size));
        // SAFETY: the processor has the unit, and the target has the rows and columns.
        unsafe { multiply::<3>(product.as_mut_ptr(), size, a, b, false) };
        for (index, (found, number)) in product.iter().zip(&numbers).enumerate() {
            assert_eq!(*found, number * factor(index / size));
        }
    }

    #[test]
    fn numbers_that_are_not_finite_stay_so() {
        if !chosen() {
            return;
        }
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7fff_ffff)] {
            let (a, b) = ([1.0, x, 1.0], [1.0, 1.0, 1.0]);
            let mut sums = [0.0; 2];
            let (a, b) = (Matrix::row_major(&a, 1, 3), Matrix::row_major(&b, 3, 1));
            // SAFETY: the processor has the unit, and each target has one element.
            unsafe {
                multiply::<3>(sums.as_mut_ptr(), 1, a, b, false);
                multiply::<1>(sums.as_mut_ptr().add(1), 1, a, b, false);
            }
            assert!(sums.iter().all(|sum| !sum.is_finite()), "{x} gave {sums:?}");
        }
    }
}
