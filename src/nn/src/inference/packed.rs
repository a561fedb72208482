//! Products with constant weights, which are packed once instead of in every product.
//!
//! A panel is 64 outputs; for every input, their weights are adjacent. A tile of 6 rows and a panel's width is summed in registers
//! while the panel stays in the second-level cache. Terms are summed in the order of the inputs, in stretches of equal length that are
//! added one after the other. A sum therefore does not depend on the number of rows, the number of threads, or the width of the
//! machine's vectors.

use std::ops::Range;

use rayon::prelude::*;

use super::lanes::{Lanes, Plain};
use crate::kernels::{activation::Activation, shared::Shared};

/// Outputs per panel.
const PANEL: usize = 64;

/// Largest number of inputs per stretch: its part of a panel fits into the second-level cache.
const STRETCH: usize = 512;

/// Largest number of rows per task: whole tiles.
const ROWS_PER_TASK: usize = 240;

/// Tasks per thread, so that threads end at about the same time.
const TASKS_PER_THREAD: usize = 4;

/// Inputs whose weights are fetched ahead of their use.
const AHEAD: usize = 12;

/// A cache line, so that no vector of weights spans two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Cache lines of a panel per input.
const LINES: usize = PANEL / 16;

/// Weights and bias of a linear layer, packed.
pub(super) struct Packed {
    panels: Vec<Line>,
    /// Bias, padded to the outputs of all panels.
    bias: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

/// Rows to be multiplied: each begins `stride` numbers after the previous one, so they may overlap.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub data: &'a [f32],
    pub count: usize,
    pub stride: usize,
}

impl Packed {
    /// Packs weights `[output][input]`; no bias is a bias of zeros.
    ///
    /// # Panics
    /// When the sizes do not fit: a bug in a layer, which checks what it loads.
    pub fn new(weights: &[f32], bias: Option<&[f32]>, [outputs, inputs]: [usize; 2]) -> Self {
        assert_eq!(weights.len(), outputs * inputs, "weights of {outputs} outputs from {inputs} inputs");
        let count = outputs.div_ceil(PANEL);
        let mut panels = vec![Line([0.0; 16]); count * inputs * LINES];
        let tasks = panels.par_chunks_mut((inputs * LINES).max(1)).zip(weights.par_chunks((inputs * PANEL).max(1)));
        tasks.for_each(|(panel, weights)| {
            for (output, weights) in weights.chunks_exact(inputs.max(1)).enumerate() {
                for (lines, weight) in panel.chunks_exact_mut(LINES).zip(weights) {
                    lines[output / 16].0[output % 16] = *weight;
                }
            }
        });
        let mut bias = bias.map_or_else(|| vec![0.0; outputs], <[f32]>::to_vec);
        assert_eq!(bias.len(), outputs, "one bias per output");
        bias.resize(count * PANEL, 0.0);
        Self { panels, bias, inputs, outputs }
    }

    /// `activation(rows weights^T + bias)`, plus the residual (shaped like `out`, `[row][output]`) before the activation.
    /// Every number of `out` is written; none is read before that.
    ///
    /// # Panics
    /// When the sizes do not fit: a bug in a layer, not an error in its input.
    pub fn apply(&self, rows: Rows, residual: Option<&[f32]>, activation: Activation, out: &mut [f32]) {
        let Self { inputs, outputs, .. } = *self;
        assert_eq!(Some(out.len()), rows.count.checked_mul(outputs), "{} rows of {outputs} outputs", rows.count);
        assert!(residual.is_none_or(|residual| residual.len() == out.len()), "a residual shaped like the output");
        if out.is_empty() {
            return;
        }
        let end = (rows.count - 1).checked_mul(rows.stride).and_then(|last| last.checked_add(inputs));
        assert!(end.is_some_and(|end| end <= rows.data.len()), "a row reaches beyond the input");
        let job = Job { packed: self, rows, residual, activation, out: Shared::new(out) };
        // A task takes all panels, so that its rows stay in the second-level cache, unless there are too few rows for all threads.
        let (panels, blocks) = (outputs.div_ceil(PANEL), rows.count.div_ceil(ROWS_PER_TASK));
        let per_task = panels.div_ceil((TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(blocks));
        let groups = panels.div_ceil(per_task);
        let task = |index: usize| {
            let (panel, row) = (index % groups * per_task, index / groups * ROWS_PER_TASK);
            job.run(panel..panels.min(panel + per_task), row..rows.count.min(row + ROWS_PER_TASK));
        };
        match groups * blocks {
            1 => task(0),
            count => (0..count).into_par_iter().for_each(task),
        }
    }

    /// The stretches of inputs.
    fn stretches(&self) -> impl Iterator<Item = Range<usize>> {
        let (inputs, count) = (self.inputs, self.inputs.div_ceil(STRETCH).max(1));
        let length = inputs.div_ceil(count).max(1);
        (0..count).map(move |index| inputs.min(index * length)..inputs.min((index + 1) * length))
    }
}

struct Job<'a> {
    packed: &'a Packed,
    rows: Rows<'a>,
    residual: Option<&'a [f32]>,
    activation: Activation,
    out: Shared<'a>,
}

impl Job<'_> {
    /// Computes some rows of the outputs of some panels.
    fn run(&self, panels: Range<usize>, rows: Range<usize>) {
        #[cfg(target_arch = "x86_64")]
        {
            use crate::kernels::vectorized::{Level, level};
            match level() {
                // SAFETY: `level` found these instructions; `apply` checked every range.
                Level::Avx512 => return unsafe { self.run_avx512(panels, rows) },
                // SAFETY: as above.
                Level::Avx2 => return unsafe { self.run_avx2(panels, rows) },
                Level::Plain => {}
            }
        }
        // SAFETY: `apply` checked every range.
        unsafe { self.run_with::<Plain, 2>(panels, rows) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn run_avx512(&self, panels: Range<usize>, rows: Range<usize>) {
        // SAFETY: the instructions are there; the caller checked every range.
        unsafe { self.run_with::<std::arch::x86_64::__m512, 4>(panels, rows) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn run_avx2(&self, panels: Range<usize>, rows: Range<usize>) {
        // SAFETY: the instructions are there; the caller checked every range.
        unsafe { self.run_with::<std::arch::x86_64::__m256, 2>(panels, rows) }
    }

    /// Tiles of 6 rows and `V` vectors.
    #[inline(always)]
    unsafe fn run_with<L: Lanes, const V: usize>(&self, panels: Range<usize>, rows: Range<usize>) {
        let outputs = panels.start * PANEL..self.packed.outputs.min(panels.end * PANEL);
        for stretch in self.packed.stretches() {
            for column in outputs.clone().step_by(V * L::WIDTH) {
                for row in rows.clone().step_by(6) {
                    let tile = Tile { row, column, stretch: stretch.clone() };
                    // SAFETY: the caller's promise.
                    unsafe {
                        match rows.end - row {
                            1 => self.tile::<L, 1, V>(tile),
                            2 => self.tile::<L, 2, V>(tile),
                            3 => self.tile::<L, 3, V>(tile),
                            4 => self.tile::<L, 4, V>(tile),
                            5 => self.tile::<L, 5, V>(tile),
                            _ => self.tile::<L, 6, V>(tile),
                        }
                    }
                }
            }
        }
    }

    #[expect(clippy::needless_range_loop, reason = "rows and vectors index registers and memory alike")]
    #[inline(always)]
    unsafe fn tile<L: Lanes, const R: usize, const V: usize>(&self, tile: Tile) {
        let Tile { row, column, ref stretch } = tile;
        let mut sums;
        // SAFETY: the rows were checked against the input, and panels are whole.
        unsafe {
            sums = [[L::splat(0.0); V]; R];
            let panel = self.packed.panels.as_ptr().cast::<f32>().add(column / PANEL * self.packed.inputs * PANEL);
            let mut weights = panel.add(stretch.start * PANEL + column % PANEL);
            let rows: [*const f32; R] =
                std::array::from_fn(|r| self.rows.data.as_ptr().add((row + r) * self.rows.stride));
            for input in stretch.clone() {
                let mut w = [L::splat(0.0); V];
                for v in 0..V {
                    w[v] = L::load(weights.add(v * L::WIDTH));
                    L::prefetch(weights.wrapping_add(AHEAD * PANEL + v * L::WIDTH));
                }
                for r in 0..R {
                    let x = L::splat(*rows[r].add(input));
                    for v in 0..V {
                        sums[r][v] = x.multiply_add(w[v], sums[r][v]);
                    }
                }
                weights = weights.add(PANEL);
            }
        }
        for r in 0..R {
            // SAFETY: as above; tasks write different rows or panels.
            unsafe { self.finish(sums[r], row + r, &tile) }
        }
    }

    /// Adds sums to the bias and residual at first, and later to the sums of earlier stretches.
    #[inline(always)]
    unsafe fn finish<L: Lanes, const V: usize>(&self, sums: [L; V], row: usize, tile: &Tile) {
        let outputs = self.packed.outputs;
        let end = outputs.min(tile.column + V * L::WIDTH);
        for (v, sum) in sums.into_iter().enumerate() {
            let column = tile.column + v * L::WIDTH;
            // SAFETY: the caller's promise.
            unsafe {
                if column + L::WIDTH <= end {
                    let out = self.out.slice(row * outputs + column, L::WIDTH).as_mut_ptr();
                    self.before::<L>(row, column, tile).add(sum).store(out);
                } else if column < end {
                    let mut sums = [0.0; PANEL];
                    sum.store(sums.as_mut_ptr());
                    self.finish_rest(&sums[..end - column], row, column, tile);
                }
            }
        }
        if tile.stretch.end == self.packed.inputs {
            // SAFETY: as above.
            self.activation.apply(unsafe { self.out.slice(row * outputs + tile.column, end - tile.column) });
        }
    }

    /// Returns the vector that a vector of sums is added to.
    #[inline(always)]
    unsafe fn before<L: Lanes>(&self, row: usize, column: usize, tile: &Tile) -> L {
        let offset = row * self.packed.outputs + column;
        // SAFETY: the caller's promise; the bias is as long as all panels.
        unsafe {
            if tile.stretch.start > 0 {
                return L::load(self.out.slice(offset, L::WIDTH).as_ptr());
            }
            let bias = L::load(self.packed.bias.as_ptr().add(column));
            self.residual.map_or(bias, |residual| bias.add(L::load(residual.as_ptr().add(offset))))
        }
    }

    /// Like [`Self::finish`], where the outputs end within a vector.
    #[inline(never)]
    unsafe fn finish_rest(&self, sums: &[f32], row: usize, column: usize, tile: &Tile) {
        let offset = row * self.packed.outputs + column;
        // SAFETY: the caller's promise.
        let out = unsafe { self.out.slice(offset, sums.len()) };
        for (place, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
            let before = match (tile.stretch.start, self.residual) {
                (0, None) => self.packed.bias[column + place],
                (0, Some(residual)) => self.packed.bias[column + place] + residual[offset + place],
                _ => *out,
            };
            *out = before + sum;
        }
    }
}

/// The part of the result that is computed in registers at a time.
struct Tile {
    row: usize,
    column: usize,
    stretch: Range<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::gemm::{Matrix, multiply_then};
    use crate::random::RngKey;

    struct Case {
        weights: Vec<f32>,
        bias: Vec<f32>,
        residual: Vec<f32>,
        x: Vec<f32>,
        sizes: [usize; 3],
    }

    impl Case {
        fn new([rows, inputs, outputs]: [usize; 3]) -> Self {
            let rng_key = RngKey::new(9).sample((rows * inputs * outputs) as u64);
            Self {
                weights: rng_key.purpose("w").normals(outputs * inputs),
                bias: rng_key.purpose("b").normals(outputs),
                residual: rng_key.purpose("r").normals(rows * outputs),
                x: rng_key.purpose("x").normals(rows * inputs),
                sizes: [rows, inputs, outputs],
            }
        }

        fn packed(&self) -> Packed {
            Packed::new(&self.weights, Some(&self.bias), [self.sizes[2], self.sizes[1]])
        }

        fn rows(&self) -> Rows<'_> {
            Rows { data: &self.x, count: self.sizes[0], stride: self.sizes[1] }
        }

        fn found(&self, activation: Activation) -> Vec<f32> {
            let mut out = vec![f32::NAN; self.residual.len()];
            self.packed().apply(self.rows(), Some(&self.residual), activation, &mut out);
            out
        }

        /// Sums term by term, rounded like the fused instruction.
        fn in_order(&self) -> Vec<f32> {
            let [rows, inputs, outputs] = self.sizes;
            let packed = self.packed();
            let element = |row: usize, output: usize| {
                let start = self.bias[output] + self.residual[row * outputs + output];
                packed.stretches().fold(start, |sum, stretch| {
                    let terms = stretch.map(|k| (self.x[row * inputs + k], self.weights[output * inputs + k]));
                    sum + terms.fold(0.0f32, |sum, (x, w)| x.mul_add(w, sum))
                })
            };
            (0..rows)
                .flat_map(|row| (0..outputs).map(move |output| (row, output)))
                .map(|(r, o)| element(r, o))
                .collect()
        }
    }

    fn has_fused_instructions() -> bool {
        #[cfg(target_arch = "x86_64")]
        return crate::kernels::vectorized::level() != crate::kernels::vectorized::Level::Plain;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    #[test]
    fn sums_are_those_of_plain_loops_in_order() {
        for sizes in [[1, 1, 1], [6, 64, 64], [7, 33, 65], [13, 700, 130], [481, 5, 3], [20, 513, 200]] {
            let case = Case::new(sizes);
            let (found, expected) = (case.found(Activation::Identity), case.in_order());
            if has_fused_instructions() {
                assert_eq!(found, expected, "{sizes:?}");
            }
            found.iter().zip(&expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-3, "{sizes:?}: {a} {b}"));
        }
    }

    /// Compares with the product of trainable layers, which packs its weights every time, at sizes that never go to the tile unit.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn results_are_bit_for_bit_those_of_the_product_that_packs_every_time() {
        for sizes in [[29, 96, 128], [24, 512, 200], [20, 1280, 320]] {
            let case = Case::new(sizes);
            let [rows, inputs, outputs] = sizes;
            let mut expected = case.residual.clone();
            for row in expected.chunks_exact_mut(outputs) {
                row.iter_mut().zip(&case.bias).for_each(|(out, bias)| *out += bias);
            }
            let weights = Matrix::row_major(&case.weights, outputs, inputs).transposed();
            let x = Matrix::row_major(&case.x, rows, inputs);
            multiply_then(&mut expected, outputs, x, weights, true, |_, run| Activation::Gelu.apply(run));
            assert_eq!(case.found(Activation::Gelu), expected, "{sizes:?}");
        }
    }

    #[test]
    fn every_set_of_instructions_gives_the_same_sums() {
        let case = Case::new([11, 600, 90]);
        let packed = case.packed();
        let mut results = Vec::new();
        let mut with = |run: &dyn Fn(&Job)| {
            let mut out = vec![0.0; 11 * 90];
            let (residual, activation) = (Some(&case.residual[..]), Activation::Identity);
            let job = Job { packed: &packed, rows: case.rows(), residual, activation, out: Shared::new(&mut out) };
            run(&job);
            results.push(out);
        };
        // SAFETY: the sizes fit; the instructions are checked before they are used.
        unsafe {
            with(&|job| job.run_with::<Plain, 2>(0..2, 0..11));
            #[cfg(target_arch = "x86_64")]
            {
                use crate::kernels::vectorized::{Level, level};
                if level() != Level::Plain {
                    with(&|job| job.run_avx2(0..2, 0..11));
                }
                if level() == Level::Avx512 {
                    with(&|job| job.run_avx512(0..2, 0..11));
                }
            }
        }
        for result in &results[1..] {
            assert_eq!(*result, results[1], "fused instructions agree to the last bit");
            result.iter().zip(&results[0]).for_each(|(a, b)| assert!((a - b).abs() < 1e-3, "{a} {b}"));
        }
    }

    #[test]
    fn rows_may_overlap_and_threads_do_not_matter() {
        let case = Case::new([700, 40, 150]);
        let rows = Rows { stride: 10, count: 600, data: &case.x };
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut out = vec![f32::NAN; 600 * 150];
            pool.install(|| case.packed().apply(rows, None, Activation::Relu, &mut out));
            out
        };
        let found = run(1);
        assert_eq!(found, run(5));
        let unfolded: Vec<f32> = (0..600).flat_map(|row| case.x[row * 10..row * 10 + 40].to_vec()).collect();
        let mut expected = vec![f32::NAN; 600 * 150];
        let rows = Rows { data: &unfolded, count: 600, stride: 40 };
        case.packed().apply(rows, None, Activation::Relu, &mut expected);
        assert_eq!(found, expected);
        assert!(found.iter().all(|value| *value >= 0.0) && found.iter().any(|value| *value > 0.0));
    }
}
