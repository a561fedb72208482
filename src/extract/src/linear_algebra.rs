//! The little dense linear algebra that fitting needs, in double precision and in a fixed order.

const LANES: usize = 8;

/// The inner product, in eight partial sums.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// Sweeps over all pairs of rows before giving up; ten are ample for a few hundred dimensions.
const MAX_SWEEPS: usize = 60;

/// The cosine below which two rows count as orthogonal.
const ORTHOGONAL: f64 = 1e-13;

/// The inverse square root of a symmetric positive definite matrix, `[row][column]` with rows of length `size`.
///
/// One-sided Jacobi (Hestenes 1958): rotations of pairs of rows until all rows are orthogonal. The resulting rows are the
/// eigenvectors, each as long as its eigenvalue. `None` when the matrix is not positive definite or does not converge.
pub(super) fn inverse_square_root(matrix: &[f64], size: usize) -> Option<Vec<f64>> {
    let mut rows: Vec<Vec<f64>> = matrix.chunks_exact(size).map(<[f64]>::to_vec).collect();
    if rows.len() != size || !(0..MAX_SWEEPS).any(|_| sweep(&mut rows)) {
        return None;
    }
    let mut result = vec![0.0; size * size];
    for row in &rows {
        let eigenvalue = dot(row, row).sqrt();
        if !eigenvalue.is_normal() {
            return None;
        }
        let scale = 1.0 / (eigenvalue * eigenvalue * eigenvalue.sqrt());
        for (result, &left) in result.chunks_exact_mut(size).zip(row) {
            for (value, &right) in result.iter_mut().zip(row) {
                *value += scale * left * right;
            }
        }
    }
    Some(result)
}

/// The eigenvalues of a symmetric positive semidefinite matrix, the largest first, with their eigenvectors of unit length. An eigenvalue of
/// (almost) zero has no usable vector and is left out. `None` when the iteration does not converge.
pub(super) fn symmetric_eigen(matrix: &[f64], size: usize) -> Option<Vec<(f64, Vec<f64>)>> {
    let mut rows: Vec<Vec<f64>> = matrix.chunks_exact(size.max(1)).map(<[f64]>::to_vec).collect();
    if rows.len() != size || !(0..MAX_SWEEPS).any(|_| sweep(&mut rows)) {
        return None;
    }
    let mut pairs: Vec<(f64, Vec<f64>)> = rows
        .into_iter()
        .map(|row| (dot(&row, &row).sqrt(), row))
        .filter(|(eigenvalue, _)| eigenvalue.is_normal())
        .map(|(eigenvalue, row)| (eigenvalue, row.into_iter().map(|value| value / eigenvalue).collect()))
        .collect();
    pairs.sort_by(|one, other| other.0.total_cmp(&one.0));
    Some(pairs)
}

/// Rotates every pair of rows once; whether they were all orthogonal already.
fn sweep(rows: &mut [Vec<f64>]) -> bool {
    let mut orthogonal = true;
    for first in 0..rows.len() {
        let (head, tail) = rows.split_at_mut(first + 1);
        for second in tail {
            orthogonal &= rotate(&mut head[first], second);
        }
    }
    orthogonal
}

/// Makes two rows orthogonal by a rotation; whether they were so already.
fn rotate(p: &mut [f64], q: &mut [f64]) -> bool {
    let (pp, qq, pq) = (dot(p, p), dot(q, q), dot(p, q));
    if pq.abs() <= ORTHOGONAL * (pp * qq).sqrt() {
        return true;
    }
    let zeta = (qq - pp) / (2.0 * pq);
    let tangent = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
    let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
    let sine = cosine * tangent;
    for (p, q) in p.iter_mut().zip(q) {
        (*p, *q) = (cosine * *p - sine * *q, sine * *p + cosine * *q);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(a: &[f64], b: &[f64], size: usize) -> Vec<f64> {
        let entry = |i: usize| (0..size).map(|k| a[i / size * size + k] * b[k * size + i % size]).sum();
        (0..size * size).map(entry).collect()
    }

    #[test]
    fn the_inverse_square_root_undoes_the_matrix() {
        let size = 24;
        let rng_key = flowmill_nn::random::RngKey::keyed(1, "matrix", 0, 0, 0);
        let factor: Vec<f64> = rng_key.normals(size * size).into_iter().map(f64::from).collect();
        let transposed: Vec<f64> = (0..size * size).map(|i| factor[i % size * size + i / size]).collect();
        let mut matrix = product(&factor, &transposed, size);
        (0..size).for_each(|i| matrix[i * size + i] += 0.5);
        let root = inverse_square_root(&matrix, size).unwrap();
        let identity = product(&product(&root, &matrix, size), &root, size);
        for (i, value) in identity.iter().enumerate() {
            let expected = f64::from(u8::from(i / size == i % size));
            assert!((value - expected).abs() < 1e-9, "{i}: {value}");
        }
    }

    #[test]
    fn a_singular_matrix_has_none() {
        assert_eq!(inverse_square_root(&[0.0; 4], 2), None);
        assert_eq!(inverse_square_root(&[f64::NAN; 4], 2), None);
    }
}
