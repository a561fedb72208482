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
    use crate::kernels::bf16_tiles::{LANES, mask, transposed};
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::cell::RefCell;
    use std::mem::transmute;

    /// Numbers per line of a tile: 16 pairs.
    const DEPTH: usize = 2 * LANES;
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

    /// A line of a tile.
    #[derive(Clone, Copy)]
    #[repr(C, align(64))]
    struct Line([u32; LANES]);

    impl Line {
        #[target_feature(enable = "avx512f")]
        #[inline]
        fn load(&self) -> __m512i {
            // SAFETY: a line has exactly one vector of numbers, at its alignment.
            unsafe { _mm512_load_si512(self.0.as_ptr().cast()) }
        }

        #[target_feature(enable = "avx512f")]
        #[inline]
        fn store(&mut self, vector: __m512i) {
            // SAFETY: as above.
            unsafe { _mm512_store_si512(self.0.as_mut_ptr().cast(), vector) }
        }
    }

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
        let (a, b, sums) = (left.as_ptr(), right.as_ptr(), sums.as_mut_ptr());
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
                asm!(
                    "2:",
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
                    "dec {steps}",
                    "jnz 2b",
                    a = inout(reg) a => _,
                    b = inout(reg) b => _,
                    steps = inout(reg) steps => _,
                    line = in(reg) 64usize,
                    options(nostack, readonly),
                );
            } else {
                asm!(
                    "2:",
                    "tileloadd tmm4, [{a} + {line}]",
                    "tileloadd tmm6, [{b} + {line}]",
                    "tileloadd tmm5, [{a} + {line} + 1024]",
                    "tileloadd tmm7, [{b} + {line} + 1024]",
                    products!(),
                    "add {a}, 2048",
                    "add {b}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    a = inout(reg) a => _,
                    b = inout(reg) b => _,
                    steps = inout(reg) steps => _,
                    line = in(reg) 64usize,
                    options(nostack, readonly),
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
        let across = matrix.row_stride == 1 && matrix.column_stride != 1;
        for index in 0..panels * steps {
            let (number, step) = if across { (index % panels, index / panels) } else { (index / steps, index % steps) };
            let packed = &mut packed[number * panel + step * PARTS * SIDE..][..PARTS * SIDE];
            pack_step::<PARTS, PAIRS>(packed, matrix, across, line + number * SIDE, first + step * DEPTH);
        }
    }

    /// Packs one step of a panel.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    fn pack_step<const PARTS: usize, const PAIRS: bool>(
        packed: &mut [Line],
        matrix: Matrix,
        across: bool,
        line: usize,
        column: usize,
    ) {
        for tile in 0..SIDE / LANES {
            let line = line + tile * LANES;
            let lines = matrix.rows.saturating_sub(line).min(LANES);
            let packed = &mut packed[tile * LANES..];
            if across == PAIRS {
                read::<PARTS>(packed, SIDE, matrix, across, line, lines, column);
                continue;
            }
            let mut parts = [[Line([0; LANES]); LANES]; PARTS];
            read::<PARTS>(parts.as_flattened_mut(), LANES, matrix, across, line, lines, column);
            for (part, vectors) in parts.iter().enumerate() {
                let swapped = transposed(std::array::from_fn(|index| vectors[index].load()));
                for (packed, vector) in packed[part * SIDE..][..LANES].iter_mut().zip(swapped) {
                    packed.store(vector);
                }
            }
        }
    }

    /// Reads 16 lines of a matrix and 16 pairs of its columns in parts, as `[part][line]` or `[part][pair]`, whichever memory has adjacent.
    /// The parts are `distance` lines of the result apart.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    fn read<const PARTS: usize>(
        out: &mut [Line],
        distance: usize,
        matrix: Matrix,
        across: bool,
        line: usize,
        lines: usize,
        column: usize,
    ) {
        if across {
            across_lines::<PARTS>(out, distance, matrix, line, lines, column);
        } else {
            along_lines::<PARTS>(out, distance, matrix, line, lines, column);
        }
    }

    /// Splits numbers in parts, each in the upper half of its lane. Their sum is the number, or the number rounded to bf16 if there is one
    /// part only. Parts of what is not finite are not finite.
    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    fn split<const PARTS: usize>(numbers: __m512) -> [__m512i; PARTS] {
        if PARTS == 1 {
            // SAFETY: both types have 256 bits.
            let rounded = unsafe { transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(numbers)) };
            return [_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(rounded)); PARTS];
        }
        let upper = _mm512_set1_epi32(!0xffff);
        let half = _mm512_set1_epi32(0x8000);
        let mut rest = numbers;
        let mut parts = [_mm512_setzero_si512(); PARTS];
        for (index, part) in parts.iter_mut().enumerate() {
            let bits = _mm512_castps_si512(rest);
            // The last part has no more than 8 bits left.
            let bits = if index + 1 < PARTS { _mm512_add_epi32(bits, half) } else { bits };
            *part = _mm512_and_si512(bits, upper);
            rest = _mm512_sub_ps(rest, _mm512_castsi512_ps(*part));
        }
        parts
    }

    /// Reads along lines: one vector of 16 pairs of columns per line, zeros for lines that the matrix does not have.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    fn along_lines<const PARTS: usize>(
        out: &mut [Line],
        distance: usize,
        matrix: Matrix,
        first: usize,
        lines: usize,
        column: usize,
    ) {
        let count = (matrix.columns - column).min(DEPTH);
        // The upper halves of the lanes of two vectors.
        let odd: [u16; DEPTH] = std::array::from_fn(|index| 2 * index as u16 + 1);
        // SAFETY: both types have 512 bits.
        let odd = unsafe { transmute::<[u16; DEPTH], __m512i>(odd) };
        let masks = [mask(count), mask(count.saturating_sub(LANES))];
        let out = &mut out[..(PARTS - 1) * distance + LANES];
        for line in 0..LANES {
            if line >= lines {
                (0..PARTS).for_each(|part| out[part * distance + line].store(_mm512_setzero_si512()));
                continue;
            }
            let start = (first + line) * matrix.row_stride + column * matrix.column_stride;
            let mut copy = [0.0; DEPTH];
            let numbers = if matrix.column_stride == 1 {
                &matrix.data[start..start + count]
            } else {
                for (index, copy) in copy.iter_mut().enumerate().take(count) {
                    *copy = matrix.data[start + index * matrix.column_stride];
                }
                &copy[..count]
            };
            // SAFETY: numbers beyond the slice are masked.
            let halves = unsafe {
                [
                    _mm512_maskz_loadu_ps(masks[0], numbers.as_ptr()),
                    _mm512_maskz_loadu_ps(masks[1], numbers.as_ptr().wrapping_add(LANES)),
                ]
            };
            let [low, high] = halves.map(|half| split::<PARTS>(half));
            for part in 0..PARTS {
                out[part * distance + line].store(_mm512_permutex2var_epi16(low[part], odd, high[part]));
            }
        }
    }

    /// Reads across adjacent lines: one vector of 16 lines per pair of columns.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    fn across_lines<const PARTS: usize>(
        out: &mut [Line],
        distance: usize,
        matrix: Matrix,
        first: usize,
        lines: usize,
        column: usize,
    ) {
        let mask = mask(lines);
        let read = |column: usize| {
            if lines == 0 || column >= matrix.columns {
                return [_mm512_setzero_si512(); PARTS];
            }
            let numbers = &matrix.data[first + column * matrix.column_stride..][..lines];
            // SAFETY: numbers beyond the slice are masked.
            split::<PARTS>(unsafe { _mm512_maskz_loadu_ps(mask, numbers.as_ptr()) })
        };
        let out = &mut out[..(PARTS - 1) * distance + LANES];
        for pair in 0..LANES {
            let (even, odd) = (read(column + 2 * pair), read(column + 2 * pair + 1));
            for part in 0..PARTS {
                out[part * distance + pair].store(_mm512_or_si512(_mm512_srli_epi32::<16>(even[part]), odd[part]));
            }
        }
    }
}
