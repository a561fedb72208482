//! Steps between the products: normalization while a tile is filled, segments, masks.

use super::{Rows, TILE};
use crate::kernels::vectorized::vectorized;

/// Fills a tile, `[row][TILE]`, with `max(0, x * scale + shift)` of the first rows, starting at `column`.
///
/// # Panics
/// When there are fewer rows than scales, or the tile is too short.
pub fn normalize_tile(rows: &Rows, column: usize, scale: &[f32], shift: &[f32], tile: &mut [f32]) {
    assert!(scale.len() <= rows.rows() && scale.len() == shift.len() && tile.len() >= scale.len() * TILE);
    let data = &rows.data()[rows.start(0) + column..];
    normalize(data, rows.stride(), scale, shift, tile);
}

vectorized! {
    fn normalize(data: &[f32], stride: usize, scale: &[f32], shift: &[f32], tile: &mut [f32]) {
        let (tiles, _) = tile.as_chunks_mut::<TILE>();
        for (row, ((tile, scale), shift)) in tiles.iter_mut().zip(scale).zip(shift).enumerate() {
            if let Some(x) = data[row * stride..].first_chunk::<TILE>() {
                for (tile, x) in tile.iter_mut().zip(x) {
                    *tile = (x * scale + shift).max(0.0);
                }
            }
        }
    }
}

/// Splits rows into their even and odd columns for a layer of stride 2: `tile[row][0]` holds `x[2 c - reach]`,
/// `tile[row][1]` holds `x[2 c - reach + 1]`, each `width` long.
///
/// # Panics
/// When the tile is too short or reaches beyond the zeros around the rows.
pub fn split_tile(rows: &Rows, column: usize, reach: usize, width: usize, tile: &mut [f32]) {
    for (row, tile) in tile.chunks_exact_mut(2 * width).take(rows.rows()).enumerate() {
        let start = rows.start(row) + 2 * column - reach;
        let end = rows.data().len().min(start + 2 * width);
        let (pairs, _) = rows.data()[start..end].as_chunks::<2>();
        let (even, odd) = tile.split_at_mut(width);
        for ((even, odd), pair) in even.iter_mut().zip(odd).zip(pairs) {
            [*even, *odd] = *pair;
        }
    }
}

/// The sum of every row over each segment of `length` columns (the last one may be shorter): `[segment][row]`.
pub fn segment_sums(rows: &Rows, length: usize) -> Vec<f32> {
    let count = rows.rows();
    let mut sums = vec![0.0; rows.length().div_ceil(length) * count];
    for row in 0..count {
        for (segment, columns) in rows.row(row).chunks(length).enumerate() {
            sums[segment * count + row] = sum(columns);
        }
    }
    sums
}

/// Mean and deviation of a row; the deviation has one degree of freedom less than there are numbers. Two passes, so that a large
/// mean costs no accuracy.
pub fn mean_and_deviation(row: &[f32]) -> (f32, f32) {
    let mean = sum(row) / row.len() as f32;
    let variance = sum_of_squares(row, mean) / (row.len() as f32 - 1.0);
    (mean, variance.sqrt())
}

vectorized! {
    fn sum_of_squares(values: &[f32], centre: f32) -> f32 {
        const LANES: usize = 32;
        let (chunks, rest) = values.as_chunks::<LANES>();
        let mut lanes = [0.0f32; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                lanes[lane] += (chunk[lane] - centre) * (chunk[lane] - centre);
            }
        }
        lanes.iter().sum::<f32>() + rest.iter().map(|value| (value - centre) * (value - centre)).sum::<f32>()
    }
}

vectorized! {
    fn sum(values: &[f32]) -> f32 {
        const LANES: usize = 32;
        let (chunks, rest) = values.as_chunks::<LANES>();
        let mut lanes = [0.0f32; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                lanes[lane] += chunk[lane];
            }
        }
        lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
    }
}

/// Multiplies rows starting at `first` by a factor per segment of `length` columns: `factors[segment][row]`.
///
/// # Panics
/// When there are too few rows or factors.
pub fn scale_rows(rows: &mut Rows, first: usize, count: usize, length: usize, factors: &[f32]) {
    for row in 0..count {
        for (segment, columns) in rows.row_mut(first + row).chunks_mut(length).enumerate() {
            let factor = factors[segment * count + row];
            columns.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(count: usize, length: usize) -> Rows {
        let mut rows = Rows::new(count, length);
        for row in 0..count {
            rows.row_mut(row).iter_mut().enumerate().for_each(|(t, value)| *value = (100 * row + t) as f32);
        }
        rows
    }

    #[test]
    fn a_tile_is_scaled_shifted_and_cut_at_zero() {
        let rows = ramp(2, 60);
        let mut tile = vec![0.0; 2 * TILE];
        normalize_tile(&rows, 48, &[1.0, -1.0], &[0.5, 150.0], &mut tile);
        assert_eq!(tile[..3], [48.5, 49.5, 50.5]);
        assert_eq!(tile[TILE..TILE + 4], [2.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn even_and_odd_columns_are_told_apart_with_zeros_before_the_first() {
        let rows = ramp(2, 9);
        let mut tile = vec![-1.0; 2 * 2 * 6];
        split_tile(&rows, 0, 2, 6, &mut tile);
        assert_eq!(tile[..6], [0.0, 0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(tile[6..12], [0.0, 1.0, 3.0, 5.0, 7.0, 0.0]);
    }

    #[test]
    fn the_last_segment_may_be_shorter() {
        let mut rows = ramp(2, 7);
        assert_eq!(segment_sums(&rows, 3), [3.0, 303.0, 12.0, 312.0, 6.0, 106.0]);
        scale_rows(&mut rows, 1, 1, 3, &[1.0, 0.0, 2.0]);
        assert_eq!(rows.row(1), [100.0, 101.0, 102.0, 0.0, 0.0, 0.0, 212.0]);
        assert_eq!(rows.row(0)[6], 6.0);
    }
}
