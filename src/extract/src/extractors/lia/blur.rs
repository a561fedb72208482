//! Feature maps, and their binomial filter before halving and after doubling.

use flowmill_nn::inference::{Plane, Rows, binomial_rows, join_row, mixed_rows, scale_row, split_row};

/// Zeros before and after a row, so that filters may read beyond its ends.
const MARGIN: usize = 16;

/// The maps of a square picture: one row per channel and line, `channel * size + line`.
#[derive(Debug, Clone, Default)]
pub(super) struct Maps {
    pub(super) rows: Rows,
    pub(super) channels: usize,
    pub(super) size: usize,
}

impl Maps {
    /// Maps of unspecified contents.
    pub(super) fn new(channels: usize, size: usize) -> Self {
        Self { rows: Rows::new(channels * size, size), channels, size }
    }

    /// Copies `[channel][line][column]`.
    pub(super) fn of(elements: &[f32], channels: usize, size: usize) -> Self {
        let mut maps = Self::new(channels, size);
        for (row, line) in elements.chunks_exact(size.max(1)).enumerate().take(channels * size) {
            maps.rows.row_mut(row).copy_from_slice(line);
        }
        maps
    }

    /// Returns the maps as `[channel][line][column]`.
    pub(super) fn elements(&self) -> Vec<f32> {
        (0..self.channels * self.size).flat_map(|row| self.rows.row(row)).copied().collect()
    }

    pub(super) fn plane(&self) -> Plane<'_> {
        Plane { rows: &self.rows, frequencies: self.size }
    }

    pub(super) fn line_mut(&mut self, channel: usize, line: usize) -> &mut [f32] {
        self.rows.row_mut(channel * self.size + line)
    }

    /// Applies `work` to all lines, with the channel of each.
    pub(super) fn for_lines(&mut self, mut work: impl FnMut(usize, &mut [f32])) {
        for channel in 0..self.channels {
            (0..self.size).for_each(|line| work(channel, self.line_mut(channel, line)));
        }
    }
}

/// Filtered maps for a convolution of stride 2: `size + 1` lines per channel, each split into its even and odd columns.
pub(super) struct Halving {
    pub(super) rows: Rows,
    /// Place of the odd columns in a row.
    pub(super) odd: usize,
}

impl Halving {
    /// Filters maps whose size is even, with two zeros before and after each line and column.
    pub(super) fn new(maps: &Maps) -> Self {
        let (size, half) = (maps.size, maps.size / 2);
        let odd = (half + 1).next_multiple_of(16);
        let mut rows = Rows::new(maps.channels * (size + 1), 2 * odd);
        let zeros = vec![0.0; size];
        let mut line = vec![0.0; size];
        let (mut evens, mut odds) = (vec![0.0; half + 2 * MARGIN], vec![0.0; half + 2 * MARGIN]);
        for channel in 0..maps.channels {
            let source = |place: usize| match place.checked_sub(2).filter(|place| *place < size) {
                Some(place) => maps.rows.row(channel * size + place),
                None => &zeros,
            };
            for place in 0..=size {
                let [a, b, c, d] = [0, 1, 2, 3].map(|tap| source(place + tap));
                // Both directions are scaled here.
                binomial_rows(&mut line, a, b, c, d, 1.0 / 64.0);
                split_row(&line, &mut evens[MARGIN..MARGIN + half], &mut odds[MARGIN..MARGIN + half]);
                let (even, odd) = rows.row_mut(channel * (size + 1) + place).split_at_mut(odd);
                let (before, after) = (MARGIN - 1, MARGIN + 1);
                binomial_rows(
                    &mut even[..=half],
                    &evens[before..],
                    &odds[before..],
                    &evens[MARGIN..],
                    &odds[MARGIN..],
                    1.0,
                );
                binomial_rows(
                    &mut odd[..half],
                    &odds[before..],
                    &evens[MARGIN..],
                    &odds[MARGIN..],
                    &evens[after..],
                    1.0,
                );
            }
        }
        Self { rows, odd }
    }
}

/// Filters maps whose size is even, with a zero before and after each line and column, and keeps the even lines and columns.
pub(super) fn halved(maps: &Maps) -> Maps {
    let (size, half) = (maps.size, maps.size / 2);
    let mut out = Maps::new(maps.channels, half);
    let zeros = vec![0.0; size];
    let mut line = vec![0.0; size];
    let (mut evens, mut odds) = (vec![0.0; half + 2 * MARGIN], vec![0.0; half + 2 * MARGIN]);
    for channel in 0..maps.channels {
        let source = |place: usize| match place.checked_sub(1).filter(|place| *place < size) {
            Some(place) => maps.rows.row(channel * size + place),
            None => &zeros,
        };
        for kept in 0..half {
            let [a, b, c, d] = [0, 1, 2, 3].map(|tap| source(2 * kept + tap));
            binomial_rows(&mut line, a, b, c, d, 1.0 / 64.0);
            split_row(&line, &mut evens[MARGIN..MARGIN + half], &mut odds[MARGIN..MARGIN + half]);
            let (before, after) = (&odds[MARGIN - 1..], &evens[MARGIN + 1..]);
            binomial_rows(out.line_mut(channel, kept), before, &evens[MARGIN..], &odds[MARGIN..], after, 1.0);
        }
    }
    out
}

/// The result of a transposed convolution of stride 2, by the parity of lines and columns: `size + 1` even and `size` odd lines per
/// channel, each with its even and odd columns.
pub(super) struct Doubling {
    pub(super) even: Rows,
    pub(super) odd: Rows,
    /// Place of the odd columns in a row.
    pub(super) odd_columns: usize,
}

impl Doubling {
    /// Makes room for maps of this size before doubling.
    pub(super) fn new(channels: usize, size: usize) -> Self {
        let odd_columns = (size + 1 + MARGIN).next_multiple_of(16);
        let even = Rows::new(channels * (size + 1), 2 * odd_columns);
        Self { even, odd: Rows::new(channels * size, 2 * odd_columns), odd_columns }
    }

    /// Filters the result, with a zero before and after each line and column, to maps of twice the size.
    pub(super) fn filtered(&self, channels: usize, size: usize) -> Maps {
        let mut maps = Maps::new(channels, 2 * size);
        let zeros = vec![0.0; 2 * self.odd_columns];
        let padded = || vec![0.0; size + 1 + 2 * MARGIN];
        let (mut evens, mut odds, mut first, mut second) = (padded(), padded(), vec![0.0; size], vec![0.0; size]);
        for channel in 0..channels {
            // Line `place - 1` of the result.
            let source = |place: usize| match place.checked_sub(1).filter(|place| *place <= 2 * size) {
                Some(place) if place.is_multiple_of(2) => self.even.row(channel * (size + 1) + place / 2),
                Some(place) => self.odd.row(channel * size + place / 2),
                None => &zeros,
            };
            for line in 0..2 * size {
                let rows = [0, 1, 2, 3].map(|tap| source(line + tap));
                let [a, b, c, d] = rows;
                binomial_rows(&mut evens[MARGIN..=MARGIN + size], a, b, c, d, 1.0 / 16.0);
                let [a, b, c, d] = rows.map(|row| &row[self.odd_columns..]);
                binomial_rows(&mut odds[MARGIN..MARGIN + size], a, b, c, d, 1.0 / 16.0);
                let (before, after) = (MARGIN - 1, MARGIN + 1);
                binomial_rows(&mut first, &odds[before..], &evens[MARGIN..], &odds[MARGIN..], &evens[after..], 1.0);
                binomial_rows(&mut second, &evens[MARGIN..], &odds[MARGIN..], &evens[after..], &odds[after..], 1.0);
                join_row(maps.line_mut(channel, line), &first, &second);
            }
        }
        maps
    }
}

/// Doubles maps by the binomial filter.
pub(super) fn doubled(maps: &Maps) -> Maps {
    let size = maps.size;
    let mut out = Maps::new(maps.channels, 2 * size);
    let zeros = vec![0.0; size];
    let mut middle = vec![0.0; size + 2 * MARGIN];
    let (mut evens, mut odds) = (vec![0.0; size], vec![0.0; size]);
    for channel in 0..maps.channels {
        let source = |line: usize| match line.checked_sub(1).filter(|line| *line < size) {
            Some(line) => maps.rows.row(channel * size + line),
            None => &zeros,
        };
        for line in 0..2 * size {
            let (near, far) = (source(line / 2 + 1), source(line / 2 + 2 * (line % 2)));
            mixed_rows(&mut middle[MARGIN..MARGIN + size], far, near, 0.25, 0.75);
            mixed_rows(&mut evens, &middle[MARGIN - 1..], &middle[MARGIN..], 0.25, 0.75);
            mixed_rows(&mut odds, &middle[MARGIN + 1..], &middle[MARGIN..], 0.25, 0.75);
            join_row(out.line_mut(channel, line), &evens, &odds);
        }
    }
    out
}

/// Maps with a line of zeros before the first channel and after every channel, each channel times a factor: line `y` of a channel is row
/// `channel * (size + 1) + 1 + y`.
pub(super) fn separated(maps: &Maps, factors: &[f32]) -> Rows {
    let size = maps.size;
    let mut rows = Rows::new(maps.channels * (size + 1) + 1, size);
    for (channel, factor) in factors.iter().enumerate().take(maps.channels) {
        for line in 0..size {
            let row = rows.row_mut(channel * (size + 1) + 1 + line);
            row.copy_from_slice(maps.rows.row(channel * size + line));
            scale_row(row, *factor);
        }
    }
    rows
}
