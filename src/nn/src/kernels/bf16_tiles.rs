//! Tiles of 16 vectors of 16 pairs of numbers in bf16, for the kernels of products.

use super::gemm::Matrix;
use std::arch::x86_64::*;
use std::mem::transmute;

/// Pairs of numbers per vector, and vectors per tile.
pub(super) const LANES: usize = 16;

/// Numbers per line of a tile.
pub(super) const DEPTH: usize = 2 * LANES;

/// A tile in registers: one vector per line.
type Tile = [__m512i; LANES];

/// A line of a tile: 16 pairs of numbers.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u32; LANES]);

impl Line {
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn load(&self) -> __m512i {
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

/// Mask of the first `count` of 16 lanes.
pub(super) fn mask(count: usize) -> __mmask16 {
    if count >= LANES { !0 } else { (1 << count) - 1 }
}

/// Swaps the axes of a tile.
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed(tile: Tile) -> Tile {
    let mut pairs = [_mm512_setzero_si512(); LANES];
    for group in (0..LANES).step_by(4) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|index| tile[group + index]);
        let low = [_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)];
        let high = [_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)];
        pairs[group] = _mm512_unpacklo_epi64(low[0], low[1]);
        pairs[group + 1] = _mm512_unpackhi_epi64(low[0], low[1]);
        pairs[group + 2] = _mm512_unpacklo_epi64(high[0], high[1]);
        pairs[group + 3] = _mm512_unpackhi_epi64(high[0], high[1]);
    }
    // Each vector of `pairs` now has, in its four quarters, four lines of one column each: column `index + 4 quarter`.
    let mut result = [_mm512_setzero_si512(); LANES];
    for index in 0..4 {
        let [a, b, c, d] = [0, 4, 8, 12].map(|group| pairs[group + index]);
        let even = [_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d)];
        let odd = [_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d)];
        result[index] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        result[index + 8] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        result[index + 4] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        result[index + 12] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
    result
}

/// Returns whether memory has the lines (rows) of a matrix side by side, in place of the numbers of a line.
pub(super) fn has_adjacent_lines(matrix: Matrix) -> bool {
    matrix.row_stride == 1 && matrix.column_stride != 1
}

/// Reads a tile of a matrix, 16 lines and 16 pairs of columns, with zeros beyond the matrix. Each number is the sum of `PARTS` numbers in
/// bf16: three are exact, one is rounded. The result is `[part][line]`, vectors of pairs; with `PAIRS` it is `[part][pair]`, vectors of
/// lines. Parts are `distance` lines of the result apart.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
pub(super) fn read<const PARTS: usize, const PAIRS: bool>(
    out: &mut [Line],
    distance: usize,
    matrix: Matrix,
    line: usize,
    column: usize,
) {
    if has_adjacent_lines(matrix) == PAIRS {
        return read_in_order::<PARTS>(out, distance, matrix, line, column);
    }
    let mut parts = [[Line([0; LANES]); LANES]; PARTS];
    read_in_order::<PARTS>(parts.as_flattened_mut(), LANES, matrix, line, column);
    for (part, vectors) in parts.iter().enumerate() {
        let swapped = transposed(std::array::from_fn(|index| vectors[index].load()));
        for (out, vector) in out[part * distance..][..LANES].iter_mut().zip(swapped) {
            out.store(vector);
        }
    }
}

/// Reads a tile like [`read`], as `[part][line]` or as `[part][pair]`, whichever memory has adjacent.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
fn read_in_order<const PARTS: usize>(out: &mut [Line], distance: usize, matrix: Matrix, line: usize, column: usize) {
    let lines = matrix.rows.saturating_sub(line).min(LANES);
    if has_adjacent_lines(matrix) {
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
        if PARTS == 1 {
            // SAFETY: both are vectors of 512 bits.
            out[line].store(unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(halves[1], halves[0])) });
            continue;
        }
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
