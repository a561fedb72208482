//! From residuals to samples: FLAC's linear predictors.

/// Most coefficients of a predictor.
pub(super) const MAX_ORDER: usize = 32;

/// Coefficients of the fixed predictors of order 0 to 4, for the latest sample first.
pub(super) const FIXED: [&[i32]; 5] = [&[], &[1], &[2, -1], &[3, -3, 1], &[4, -6, 4, -1]];

/// Turns the residuals behind the first `coefficients.len()` samples of `samples` into samples:
/// `x[n] += (sum of c[k] x[n-1-k]) >> shift`, sums in 64 bits.
pub(super) fn restore(samples: &mut [i32], coefficients: &[i32], shift: u32) {
    macro_rules! by_order {
        ($($order:literal)*) => {
            match coefficients.len() {
                0 => {}
                $($order => restore_order::<$order>(samples, coefficients, shift),)*
                _ => restore_long(samples, coefficients, shift),
            }
        };
    }
    by_order!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
}

fn restore_order<const ORDER: usize>(samples: &mut [i32], coefficients: &[i32], shift: u32) {
    let Some(coefficients) = coefficients.first_chunk::<ORDER>().map(|all| all.map(i64::from)) else { return };
    if samples.len() <= ORDER {
        return;
    }
    // The sample before stays in a register: waiting for it is what takes the time.
    let mut before = i64::from(samples[ORDER - 1]);
    for n in ORDER..samples.len() {
        let (history, rest) = samples.split_at_mut(n);
        let Some(history) = history.last_chunk::<ORDER>() else { return };
        let mut sum = 0i64;
        for k in (1..ORDER).rev() {
            sum = sum.wrapping_add(coefficients[k].wrapping_mul(i64::from(history[ORDER - 1 - k])));
        }
        sum = sum.wrapping_add(coefficients[0].wrapping_mul(before));
        let sample = rest[0].wrapping_add((sum >> shift) as i32);
        rest[0] = sample;
        before = i64::from(sample);
    }
}

fn restore_long(samples: &mut [i32], coefficients: &[i32], shift: u32) {
    for n in coefficients.len()..samples.len() {
        let history = samples[..n].iter().rev();
        let products = coefficients.iter().zip(history).map(|(c, x)| i64::from(*c).wrapping_mul(i64::from(*x)));
        let sum = products.fold(0i64, i64::wrapping_add);
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
            let (mut fast, mut plain) = (residuals.clone(), residuals.clone());
            restore(&mut fast, &coefficients, 9);
            restore_long(&mut plain, &coefficients, 9);
            assert_eq!(fast, plain, "order {order}");
            let short = &mut residuals[..order].to_vec();
            restore(short, &coefficients, 9);
            assert_eq!(short, &residuals[..order]);
        }
    }
}
