//! Tiles of 16 vectors of 16 pairs of numbers in bf16, for the kernels of products.

use std::arch::x86_64::*;

/// Pairs of numbers per vector, and vectors per tile.
pub(super) const LANES: usize = 16;

/// One vector per index.
pub(super) type Tile = [__m512i; LANES];

/// Mask of the first `count` of 16 lanes.
pub(super) fn mask(count: usize) -> __mmask16 {
    if count >= LANES { !0 } else { (1 << count) - 1 }
}

/// Swaps the axes of a tile.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn transposed(tile: Tile) -> Tile {
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
