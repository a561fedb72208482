//! Steps between the convolutions of networks over images: activations, and the binomial filter of StyleGAN2 (Karras et al., arXiv
//! 1912.04958), which halves and doubles images by the weights 1, 3, 3, 1.

use crate::kernels::vectorized::vectorized;

vectorized! {
    /// `row = leaky(gain * row + shift) * factor`, where a leaky rectifier multiplies negative numbers by `slope`. The settings are gain,
    /// shift, slope and factor.
    pub fn leaky_row(row: &mut [f32], settings: [f32; 4]) {
        let [gain, shift, slope, factor] = settings;
        for x in row {
            let y = gain * *x + shift;
            *x = factor * if y > 0.0 { y } else { slope * y };
        }
    }
}

vectorized! {
    /// `row = row * factor`.
    pub fn scale_row(row: &mut [f32], factor: f32) {
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

vectorized! {
    /// `out = scale * (a + 3 b + 3 c + d)`, over the length of `out`.
    pub fn binomial_rows(out: &mut [f32], a: &[f32], b: &[f32], c: &[f32], d: &[f32], scale: f32) {
        for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *out = scale * ((a + d) + 3.0 * (b + c));
        }
    }
}

vectorized! {
    /// `out = near * b + far * a`, over the length of `out`.
    pub fn mixed_rows(out: &mut [f32], a: &[f32], b: &[f32], far: f32, near: f32) {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = far * a + near * b;
        }
    }
}

vectorized! {
    /// Splits a row into its even and odd numbers.
    pub fn split_row(row: &[f32], even: &mut [f32], odd: &mut [f32]) {
        let (pairs, rest) = row.as_chunks::<2>();
        for ((even, odd), pair) in even.iter_mut().zip(odd).zip(pairs) {
            [*even, *odd] = *pair;
        }
        if let (Some(even), Some(last)) = (even.get_mut(pairs.len()), rest.first()) {
            *even = *last;
        }
    }
}

vectorized! {
    /// Joins even and odd numbers to a row.
    pub fn join_row(row: &mut [f32], even: &[f32], odd: &[f32]) {
        let (pairs, rest) = row.as_chunks_mut::<2>();
        for ((pair, even), odd) in pairs.iter_mut().zip(even).zip(odd) {
            *pair = [*even, *odd];
        }
        let count = pairs.len();
        if let (Some(last), Some(even)) = (rest.first_mut(), even.get(count)) {
            *last = *even;
        }
    }
}

vectorized! {
    /// `out = warped * mask + out * (1 - mask)`, all times `factor`; `warped` becomes `warped * mask`.
    pub fn blend_row(out: &mut [f32], warped: &mut [f32], mask: &[f32], factor: f32) {
        for ((out, warped), mask) in out.iter_mut().zip(warped).zip(mask) {
            *warped *= mask;
            *out = factor * (*warped + *out * (1.0 - mask));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_activated_split_and_joined() {
        let mut row = [1.0, -2.0, 3.0];
        leaky_row(&mut row, [2.0, 1.0, 0.5, 10.0]);
        assert_eq!(row, [30.0, -15.0, 70.0]);
        scale_row(&mut row, 0.1);
        assert!((row[1] + 1.5).abs() < 1e-6);
        for length in [0_usize, 1, 6, 7] {
            let row: Vec<f32> = (0..length).map(|x| x as f32).collect();
            let (mut even, mut odd) = (vec![0.0; length.div_ceil(2)], vec![0.0; length / 2]);
            split_row(&row, &mut even, &mut odd);
            assert!(even.iter().enumerate().all(|(place, x)| *x == 2.0 * place as f32));
            assert!(odd.iter().enumerate().all(|(place, x)| *x == 2.0 * place as f32 + 1.0));
            let mut joined = vec![-1.0; length];
            join_row(&mut joined, &even, &odd);
            assert_eq!(joined, row);
        }
    }

    #[test]
    fn rows_are_weighed_and_blended() {
        let mut out = [0.0; 2];
        binomial_rows(&mut out, &[1.0, 0.0], &[1.0, 2.0], &[1.0, 0.0], &[1.0, 4.0], 0.125);
        assert_eq!(out, [1.0, 1.25]);
        mixed_rows(&mut out, &[4.0, 8.0], &[0.0, 4.0], 0.25, 0.75);
        assert_eq!(out, [1.0, 5.0]);
        let mut warped = [2.0, 4.0];
        blend_row(&mut out, &mut warped, &[0.5, 1.0], 2.0);
        assert_eq!((out, warped), ([3.0, 8.0], [1.0, 4.0]));
    }
}
