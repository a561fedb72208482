//! Keys and values of a sequence, for attention of the rows that continue it.

use crate::kernels::attention::softmax_row;
use crate::kernels::gemm::{Matrix, Target, multiply_into, multiply_on_one_thread};
use crate::kernels::reduce::sum_of_pairs;
use crate::kernels::shared::Shared;
use crate::kernels::vectorized::vectorized;
use crate::{NnError, Result};
use rayon::prelude::*;

/// Number of multiplications below which one thread computes the attention of all rows.
const SERIAL: usize = 1 << 16;

/// Number of queries from which on the attention of a head is computed by products of matrices.
const FEWEST_QUERIES: usize = 8;

/// Queries per product.
const BLOCK: usize = 64;

/// The keys and values of the rows of one sequence, in every block of a causal transformer.
#[derive(Debug, Clone)]
pub struct KeyValueCache {
    /// Keys `[row, channel]` of each block and head, block by block.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    heads: usize,
    head_width: usize,
}

impl KeyValueCache {
    /// Creates an empty cache.
    pub fn new(blocks: usize, heads: usize, head_width: usize) -> Self {
        let empty = vec![Vec::new(); blocks * heads];
        Self { keys: empty.clone(), values: empty, heads, head_width }
    }

    /// Number of rows of a block.
    pub fn rows(&self, block: usize) -> usize {
        self.keys.get(block * self.heads).map_or(0, |keys| keys.len() / self.head_width.max(1))
    }

    /// Keeps only the first rows of every block.
    pub fn truncate(&mut self, rows: usize) {
        self.keys.iter_mut().chain(&mut self.values).for_each(|kept| kept.truncate(rows * self.head_width));
    }

    /// Appends keys and values `[row, head x channel]` to a block.
    ///
    /// # Errors
    /// When the sizes do not fit.
    pub fn append(&mut self, block: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let width = self.heads * self.head_width;
        self.check(block, keys)?;
        if keys.len() != values.len() {
            return Err(NnError::shape("key-value cache", format!("{} values", keys.len()), &[values.len()]));
        }
        for (source, kept) in [(keys, &mut self.keys), (values, &mut self.values)] {
            let kept = &mut kept[block * self.heads..(block + 1) * self.heads];
            for row in source.chunks_exact(width) {
                kept.iter_mut()
                    .zip(row.chunks_exact(self.head_width))
                    .for_each(|(kept, row)| kept.extend_from_slice(row));
            }
        }
        Ok(())
    }

    /// Computes the attention of the last rows of a block, whose keys and values have been appended: queries
    /// `[row, head x channel]`, each of which sees the rows up to its own. Writes `[row, head x channel]`.
    ///
    /// # Errors
    /// When the sizes do not fit, or there are more queries than rows.
    pub fn attend(&self, block: usize, queries: &[f32], out: &mut [f32]) -> Result<()> {
        let width = self.heads * self.head_width;
        self.check(block, queries)?;
        let (rows, count) = (self.rows(block), queries.len() / width);
        if out.len() != queries.len() || count > rows {
            let expected = format!("an output of {} and at most {rows} queries", queries.len());
            return Err(NnError::shape("key-value cache", expected, &[out.len(), count]));
        }
        if count >= FEWEST_QUERIES {
            self.attend_blocks(block, queries, out);
            return Ok(());
        }
        let heads = out.par_chunks_mut(self.head_width).zip(queries.par_chunks(self.head_width)).enumerate();
        let attend = |(index, (out, query)): (usize, (&mut [f32], &[f32]))| {
            let (row, head) = (index / self.heads, block * self.heads + index % self.heads);
            let seen = (rows - count + row + 1) * self.head_width;
            attend_head(out, query, &self.keys[head][..seen], &self.values[head][..seen]);
        };
        if count * rows * width < SERIAL {
            let heads = out.chunks_exact_mut(self.head_width).zip(queries.chunks_exact(self.head_width)).enumerate();
            heads.for_each(attend);
        } else {
            heads.for_each(attend);
        }
        Ok(())
    }

    /// Like [`attend`](Self::attend), for many queries.
    fn attend_blocks(&self, block: usize, queries: &[f32], out: &mut [f32]) {
        let (width, head_width) = (self.heads * self.head_width, self.head_width);
        let (rows, count) = (self.rows(block), queries.len() / width);
        let buffer = Shared::new(out);
        let starts = |head: usize| (0..count).step_by(BLOCK).map(move |start| (head, start));
        let tasks: Vec<(usize, usize)> = (0..self.heads).flat_map(starts).collect();
        tasks.into_par_iter().for_each_init(Vec::new, |scores: &mut Vec<f32>, (head, start)| {
            let (end, offset) = (count.min(start + BLOCK), start * width + head * head_width);
            // The last query of the block sees this many rows.
            let seen = rows - count + end;
            let [keys, values] = [&self.keys, &self.values]
                .map(|kept| Matrix::row_major(&kept[block * self.heads + head], seen, head_width));
            let query = Matrix::strided(&queries[offset..], [end - start, head_width], [width, 1]);
            scores.clear();
            scores.resize((end - start) * seen, 0.0);
            multiply_on_one_thread(scores, seen, query, keys.transposed(), false);
            for (row, scores) in scores.chunks_exact_mut(seen).enumerate() {
                let (own, unseen) = scores.split_at_mut(rows - count + start + row + 1);
                softmax_row(own, 1.0 / (head_width as f32).sqrt());
                unseen.fill(0.0);
            }
            let target = Target { buffer, offset, row_stride: width };
            // SAFETY: each task writes the rows of its own queries in the columns of its head.
            unsafe { multiply_into(target, Matrix::row_major(scores, end - start, seen), values, false) };
        });
    }

    fn check(&self, block: usize, rows: &[f32]) -> Result<()> {
        let width = self.heads * self.head_width;
        if width == 0 || !rows.len().is_multiple_of(width) || (block + 1) * self.heads > self.keys.len() {
            let expected = format!("rows of {width} of one of {} blocks", self.keys.len() / self.heads.max(1));
            return Err(NnError::shape("key-value cache", expected, &[block, rows.len()]));
        }
        Ok(())
    }
}

vectorized! {
    /// Computes the attention of one query of a head over keys and values `[row, channel]`.
    fn attend_head(out: &mut [f32], query: &[f32], keys: &[f32], values: &[f32]) {
        let width = query.len();
        let scale = 1.0 / (width as f32).sqrt();
        let mut weights: Vec<f32> =
            keys.chunks_exact(width).map(|key| sum_of_pairs(query, key, |q, k| q * k)).collect();
        softmax_row(&mut weights, scale);
        out.fill(0.0);
        for (weight, value) in weights.iter().zip(values.chunks_exact(width)) {
            out.iter_mut().zip(value).for_each(|(out, value)| *out = value.mul_add(*weight, *out));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Attention;
    use crate::random::RngKey;
    use crate::{AttentionMask, Ragged, Value, host};

    #[test]
    fn it_attends_like_the_operation_of_the_tape() {
        let (rows, heads, head_width) = (150, 3, 10);
        let width = heads * head_width;
        let [queries, keys, values] = ["q", "k", "v"].map(|name| RngKey::new(4).purpose(name).normals(rows * width));
        let [q, k, v] =
            [&queries, &keys, &values].map(|elements| Value::from_vec(elements.clone(), &[rows, width]).unwrap());
        let items = Ragged::packed(&[rows]);
        let attention =
            Attention { heads, attention_mask: AttentionMask::CAUSAL, queries: &items, keys: &items, dropout: None };
        let expected = q.attend(&k, &v, &attention, None).unwrap();
        let expected = host::slice("test", expected.tensor()).unwrap();
        let mut cache = KeyValueCache::new(2, heads, head_width);
        // Rows that are dropped again leave no trace.
        cache.append(1, &queries, &queries).unwrap();
        cache.truncate(0);
        for range in [0..100, 100..101, 101..101, 101..150] {
            let elements = range.start * width..range.end * width;
            cache.append(1, &keys[elements.clone()], &values[elements.clone()]).unwrap();
            let mut out = vec![f32::NAN; elements.len()];
            cache.attend(1, &queries[elements.clone()], &mut out).unwrap();
            out.iter().zip(&expected[elements]).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} {b}"));
        }
        assert_eq!([cache.rows(0), cache.rows(1)], [0, rows]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let mut cache = KeyValueCache::new(1, 2, 3);
        assert!(cache.append(0, &[0.0; 5], &[0.0; 5]).is_err() && cache.append(1, &[0.0; 6], &[0.0; 6]).is_err());
        assert!(cache.append(0, &[0.0; 6], &[0.0; 12]).is_err());
        cache.append(0, &[0.0; 6], &[0.0; 6]).unwrap();
        assert!(cache.attend(0, &[0.0; 12], &mut [0.0; 12]).is_err(), "two queries of one row");
        assert!(cache.attend(0, &[0.0; 6], &mut [0.0; 3]).is_err());
    }
}
