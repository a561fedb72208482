//! From residuals to samples: FLAC's linear predictors.

/// Most coefficients of a predictor.
pub(super) const MAX_ORDER: usize = 32;

/// Coefficients of the fixed predictors of order 0 to 4, for the latest sample first.
pub(super) const FIXED: [&[i32]; 5] = [&[], &[1], &[2, -1], &[3, -3, 1], &[4, -6, 4, -1]];

/// Turns the residuals behind the first `coefficients.len()` samples of `samples` into samples:
/// `x[n] += (sum of c[k] x[n-1-k]) >> shift`. Arithmetic is modulo 2^32, or in 64 bits where `wide`.
pub(super) fn restore(samples: &mut [i32], coefficients: &[i32], shift: u32, wide: bool) {
    macro_rules! by_order {
        ($($order:literal)*) => {
            match coefficients.len() {
                0 => {}
                $($order => restore_narrow::<$order>(samples, coefficients, shift),)*
                _ => restore_long(samples, coefficients, shift),
            }
        };
    }
    if wide {
        restore_wide(samples, coefficients, shift);
    } else {
        by_order!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    }
}

fn restore_narrow<const ORDER: usize>(samples: &mut [i32], coefficients: &[i32], shift: u32) {
    let Some(coefficients) = coefficients.first_chunk::<ORDER>() else { return };
    let Some((head, rest)) = samples.split_first_chunk_mut::<ORDER>() else { return };
    // The latest samples, oldest first, in registers.
    let mut history = *head;
    for value in rest {
        let mut sum = 0i32;
        // The latest sample last: it is the one that is waited for.
        for k in (0..ORDER).rev() {
            sum = sum.wrapping_add(coefficients[k].wrapping_mul(history[ORDER - 1 - k]));
        }
        let sample = value.wrapping_add(sum >> shift);
        history.copy_within(1.., 0);
        history[ORDER - 1] = sample;
        *value = sample;
    }
}

fn restore_long(samples: &mut [i32], coefficients: &[i32], shift: u32) {
    for n in coefficients.len()..samples.len() {
        let history = samples[..n].iter().rev();
        let sum = coefficients.iter().zip(history).fold(0i32, |sum, (c, x)| sum.wrapping_add(c.wrapping_mul(*x)));
        samples[n] = samples[n].wrapping_add(sum >> shift);
    }
}

fn restore_wide(samples: &mut [i32], coefficients: &[i32], shift: u32) {
    for n in coefficients.len()..samples.len() {
        let history = samples[..n].iter().rev();
        let sum: i64 = coefficients.iter().zip(history).map(|(c, x)| i64::from(*c) * i64::from(*x)).sum();
        samples[n] = samples[n].wrapping_add((sum >> shift) as i32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_agree() {
        for order in 1..=MAX_ORDER {
            let coefficients: Vec<i32> = (0..order as i32).map(|k| (k * 37 + 11) % 61 - 30).collect();
            let residuals: Vec<i32> = (0..200).map(|n| (n * 7919 + 13) % 201 - 100).collect();
            let run = |wide| {
                let mut samples = residuals.clone();
                restore(&mut samples, &coefficients, 9, wide);
                samples
            };
            assert_eq!(run(false), run(true), "order {order}");
        }
    }
}
