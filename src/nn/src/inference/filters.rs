//! The product that every layer uses: output rows as weighted sums of shifted input rows.

use super::lanes::{Lanes, Plain};

/// Columns computed at a time: three of the widest vectors.
pub const TILE: usize = 48;

/// Output rows per panel of weights.
const PANEL: usize = 8;

/// Width of the widest vector, in numbers: inputs must be readable this far past the last column.
const WIDEST: usize = 16;

/// Weights of a layer, arranged for the inner loop: panels of 8 output rows, in which the 8 weights of one input row are
/// adjacent.
#[derive(Debug, Clone)]
pub struct Filters {
    panels: Vec<f32>,
    bias: Vec<f32>,
    outputs: usize,
    inner: usize,
}

/// Steps applied to sums before they are written.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Rows to add: the data, the offset of the first row, and the distance between rows.
    pub residual: Option<(&'a [f32], usize, usize)>,
    /// Sets negative results to zero.
    pub relu: bool,
}

impl Filters {
    /// Arranges weights `[output][inner]`; the bias has one number per output.
    ///
    /// # Panics
    /// When the sizes do not fit: a bug in a layer, which checks what it loads.
    pub fn new(weights: &[f32], bias: &[f32], inner: usize) -> Self {
        let outputs = bias.len();
        assert_eq!(weights.len(), outputs * inner, "weights of {outputs} outputs from {inner} inputs");
        let panel_count = outputs.div_ceil(PANEL);
        let mut panels = vec![0.0; panel_count * inner * PANEL];
        for (output, row) in weights.chunks_exact(inner.max(1)).enumerate() {
            let panel = &mut panels[output / PANEL * inner * PANEL..][..inner * PANEL];
            for (place, weight) in panel.iter_mut().skip(output % PANEL).step_by(PANEL).zip(row) {
                *place = *weight;
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(panel_count * PANEL, 0.0);
        Self { panels, bias, outputs, inner }
    }

    /// Output rows.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Terms per sum.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// For every output row `o` and column `c` below `columns`:
    /// `out[start + o * stride + c] = epilogue(bias[o] + sum over k of weight[o][k] * input[taps[k] + c])`.
    ///
    /// # Panics
    /// When a tap reaches beyond the input (which must be readable up to the next multiple of 16 columns) or a row beyond the
    /// output or the residual: a bug in a layer, not an error in its input.
    pub fn apply(
        &self,
        input: &[f32],
        taps: &[u32],
        columns: usize,
        out: (&mut [f32], usize, usize),
        epilogue: Epilogue,
    ) {
        let (data, start, stride) = out;
        if columns == 0 || self.outputs == 0 {
            return;
        }
        assert_eq!(taps.len(), self.inner, "one tap per term");
        let reach = taps.iter().max().map_or(0, |tap| *tap as usize);
        let end = columns.checked_next_multiple_of(WIDEST).and_then(|columns| columns.checked_add(reach));
        assert!(end.is_some_and(|end| end <= input.len()), "a tap reaches beyond the input");
        let end = |start: usize, stride: usize| {
            (self.outputs - 1).checked_mul(stride).and_then(|last| last.checked_add(columns)?.checked_add(start))
        };
        assert!(end(start, stride).is_some_and(|end| end <= data.len()), "a row reaches beyond the output");
        let residual = epilogue.residual.map(|(rows, start, stride)| {
            assert!(end(start, stride).is_some_and(|end| end <= rows.len()), "a row reaches beyond the residual");
            // SAFETY: `start` is within the slice.
            (unsafe { rows.as_ptr().add(start) }, stride)
        });
        let job = Job {
            filters: self,
            input: input.as_ptr(),
            taps,
            columns,
            // SAFETY: `start` is within the slice.
            out: unsafe { data.as_mut_ptr().add(start) },
            stride,
            residual,
            relu: epilogue.relu,
        };
        job.run();
    }
}

struct Job<'a> {
    filters: &'a Filters,
    input: *const f32,
    taps: &'a [u32],
    columns: usize,
    out: *mut f32,
    stride: usize,
    residual: Option<(*const f32, usize)>,
    relu: bool,
}

impl Job<'_> {
    fn run(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            use crate::kernels::vectorized::{Level, level};
            match level() {
                // SAFETY: `level` found these instructions; `apply` checked every range.
                Level::Avx512 => return unsafe { self.run_avx512() },
                // SAFETY: as above.
                Level::Avx2 => return unsafe { self.run_avx2() },
                Level::Plain => {}
            }
        }
        // SAFETY: `apply` checked every range.
        unsafe { self.run_with::<Plain, 4>() }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn run_avx512(&self) {
        // SAFETY: the instructions are there; the caller checked every range.
        unsafe { self.run_with::<std::arch::x86_64::__m512, 8>() }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn run_avx2(&self) {
        // SAFETY: the instructions are there; the caller checked every range.
        unsafe { self.run_with::<std::arch::x86_64::__m256, 4>() }
    }

    /// All blocks of `R` rows and up to three vectors; a tile of columns stays in the first-level cache while the weights stream past.
    #[inline(always)]
    unsafe fn run_with<L: Lanes, const R: usize>(&self) {
        let blocks = self.filters.outputs.div_ceil(R);
        let mut column = 0;
        while column < self.columns {
            let vectors = (self.columns - column).div_ceil(L::WIDTH).min(3);
            for block in 0..blocks {
                // SAFETY: the caller checked every range.
                unsafe {
                    match vectors {
                        1 => self.block::<L, R, 1>(block * R, column),
                        2 => self.block::<L, R, 2>(block * R, column),
                        _ => self.block::<L, R, 3>(block * R, column),
                    }
                }
            }
            column += vectors * L::WIDTH;
        }
    }

    #[expect(clippy::needless_range_loop, reason = "rows and vectors index registers and memory alike")]
    #[inline(always)]
    unsafe fn block<L: Lanes, const R: usize, const V: usize>(&self, row: usize, column: usize) {
        let filters = self.filters;
        // SAFETY: rows come in whole panels; taps and columns were checked against the input.
        unsafe {
            let mut weights = filters.panels.as_ptr().add(row / PANEL * PANEL * filters.inner + row % PANEL);
            let bias = filters.bias.as_ptr().add(row);
            let mut sums = [[L::splat(0.0); V]; R];
            for r in 0..R {
                sums[r] = [L::splat(*bias.add(r)); V];
            }
            let input = self.input.add(column);
            for tap in self.taps {
                let from = input.add(*tap as usize);
                let mut x = [L::splat(0.0); V];
                for v in 0..V {
                    x[v] = L::load(from.add(v * L::WIDTH));
                }
                for r in 0..R {
                    let weight = L::splat(*weights.add(r));
                    for v in 0..V {
                        sums[r][v] = weight.multiply_add(x[v], sums[r][v]);
                    }
                }
                weights = weights.add(PANEL);
            }
            for r in 0..R.min(filters.outputs - row) {
                for v in 0..V {
                    self.finish(sums[r][v], row + r, column + v * L::WIDTH);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn finish<L: Lanes>(&self, sum: L, row: usize, column: usize) {
        let count = self.columns - column;
        // SAFETY: rows and columns were checked against output and residual.
        unsafe {
            let to = self.out.add(row * self.stride + column);
            let mut sum = sum;
            if let Some((rows, stride)) = self.residual {
                let from = rows.add(row * stride + column);
                sum = sum.add(if count >= L::WIDTH { L::load(from) } else { partial(from, count) });
            }
            if self.relu {
                sum = sum.max(L::splat(0.0));
            }
            if count >= L::WIDTH {
                sum.store(to);
            } else {
                let mut places = [0.0; WIDEST];
                sum.store(places.as_mut_ptr());
                std::ptr::copy_nonoverlapping(places.as_ptr(), to, count);
            }
        }
    }
}

/// Loads the first `count` numbers and fills the rest with zeros.
#[inline(always)]
unsafe fn partial<L: Lanes>(from: *const f32, count: usize) -> L {
    let mut places = [0.0; WIDEST];
    // SAFETY: the caller's promise for `count` numbers, fewer than a vector.
    unsafe {
        std::ptr::copy_nonoverlapping(from, places.as_mut_ptr(), count);
        L::load(places.as_ptr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::RngKey;

    /// Sums in double precision.
    fn plain(weights: &[f32], bias: &[f32], input: &[f32], taps: &[u32], columns: usize) -> Vec<f64> {
        let term = |o: usize, k: usize, c: usize| {
            f64::from(weights[o * taps.len() + k]) * f64::from(input[taps[k] as usize + c])
        };
        let sum = |o: usize, c: usize| f64::from(bias[o]) + (0..taps.len()).map(|k| term(o, k, c)).sum::<f64>();
        (0..bias.len()).flat_map(|o| (0..columns).map(move |c| (o, c))).map(|(o, c)| sum(o, c)).collect()
    }

    #[test]
    fn products_agree_with_loops_for_all_sizes_and_instructions() {
        for (outputs, inner, columns) in [(1, 1, 1), (4, 7, 16), (8, 3, 48), (13, 20, 31), (33, 96, 117), (16, 5, 64)] {
            let rng_key = RngKey::new(5).sample((outputs * inner * columns) as u64);
            let weights = rng_key.purpose("w").normals(outputs * inner);
            let bias = rng_key.purpose("b").normals(outputs);
            let input = rng_key.purpose("x").normals(2 * inner + columns + 16);
            let residual = rng_key.purpose("r").normals(outputs * (columns + 3));
            let taps: Vec<u32> = (0..inner as u32).map(|k| (k * 2) ^ 1).collect();
            let filters = Filters::new(&weights, &bias, inner);
            let stride = columns + 3;
            let mut out = vec![7.0; outputs * stride];
            let expected = plain(&weights, &bias, &input, &taps, columns);
            let epilogue = Epilogue { residual: Some((&residual, 0, stride)), relu: true };
            filters.apply(&input, &taps, columns, (&mut out, 0, stride), epilogue);
            for (index, expected) in expected.iter().enumerate() {
                let place = index / columns * stride + index % columns;
                let expected = (expected + f64::from(residual[place])).max(0.0);
                assert!((f64::from(out[place]) - expected).abs() < 1e-3, "{outputs} {inner} {columns} {index}");
            }
            let gaps = out.chunks_exact(stride).flat_map(|row| &row[columns..]);
            assert!(gaps.into_iter().all(|gap| *gap == 7.0), "what lies between the rows is left alone");
        }
    }

    #[test]
    fn every_set_of_instructions_gives_the_same_sums() {
        let (outputs, inner, columns) = (12, 30, 70);
        let rng_key = RngKey::new(6);
        let (weights, bias) = (rng_key.normals(outputs * inner), rng_key.purpose("b").normals(outputs));
        let input = rng_key.purpose("x").normals(inner + 80);
        let taps: Vec<u32> = (0..inner as u32).collect();
        let filters = Filters::new(&weights, &bias, inner);
        let expected = plain(&weights, &bias, &input, &taps, columns);
        let mut results = Vec::new();
        let mut with = |run: &dyn Fn(&Job)| {
            let mut out = vec![0.0; outputs * columns];
            let (stride, residual, relu) = (columns, None, false);
            let (input, out_pointer, taps) = (input.as_ptr(), out.as_mut_ptr(), &taps[..]);
            run(&Job { filters: &filters, input, taps, columns, out: out_pointer, stride, residual, relu });
            results.push(out);
        };
        // SAFETY: the sizes fit; the instructions are checked before they are used.
        with(&|job| unsafe { job.run_with::<Plain, 4>() });
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: as above.
                with(&|job| unsafe { job.run_avx2() });
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                // SAFETY: as above.
                with(&|job| unsafe { job.run_avx512() });
            }
        }
        for result in results {
            let close =
                result.iter().zip(&expected).all(|(found, expected)| (f64::from(*found) - expected).abs() < 1e-4);
            assert!(close);
        }
    }
}
