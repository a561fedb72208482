//! Starts at the boundary of the allowed paths.
//!
//! If Delta exceeds 1, an item's prediction is scaled so that nothing remains for the noise. The noise is then the
//! root of a difference that is zero, and in single precision the root of its rounding error, which is up to about
//! 3e-4. Its value in a file depends on the order in which the file's implementation computed its sums, and a
//! different value exceeds the tolerance. So for each such item the roundings around its time and variance are tried,
//! and the one whose gradient is nearest to the file's is used. Only this one number per item is free.

use flowmill_nn::objectives::{Placement, ShallowFlowMatching};

use crate::parity::Result;

/// The number of steps of single precision to both sides of time and variance, which is the effect of another order
/// of sums.
const STEPS: i32 = 8;

/// Returns the starts with the roundings that give the smallest `errors`, one per item.
pub(super) fn fitted(
    objective: &ShallowFlowMatching,
    mut starts: Vec<Placement>,
    errors: impl Fn(Vec<Placement>) -> Result<Vec<f64>>,
) -> Result<Vec<Placement>> {
    let candidates: Vec<Vec<f64>> = starts.iter().map(|start| roundings(objective, start)).collect();
    let most = candidates.iter().map(Vec::len).max().unwrap_or(0);
    if most < 2 {
        return Ok(starts);
    }
    let mut best = vec![f64::INFINITY; starts.len()];
    let own = starts.clone();
    for index in 0..most {
        let noise = |item: usize| candidates[item].get(index).copied().unwrap_or(own[item].noise);
        let tried: Vec<Placement> =
            own.iter().enumerate().map(|(item, start)| Placement { noise: noise(item), ..*start }).collect();
        for (item, error) in errors(tried.clone())?.into_iter().enumerate() {
            if error < best[item] {
                (best[item], starts[item]) = (error, tried[item]);
            }
        }
    }
    Ok(starts)
}

/// Returns the possible factors of the noise of a start, with the start's own first. It is the only one if the noise
/// is not rounding.
fn roundings(objective: &ShallowFlowMatching, start: &Placement) -> Vec<f64> {
    let mut noises = vec![start.noise];
    if start.delta <= 1.0 {
        return noises;
    }
    let (time, variance) = ((start.time * start.delta) as f32, (start.variance * start.delta * start.delta) as f32);
    for (time_steps, variance_steps) in (-STEPS..=STEPS).flat_map(|a| (-STEPS..=STEPS).map(move |b| (a, b))) {
        let near = objective.place(stepped(time, time_steps), stepped(variance, variance_steps), 1.0);
        if near.delta > 1.0 && !noises.contains(&near.noise) {
            noises.push(near.noise);
        }
    }
    noises
}

/// Returns the number `steps` steps of single precision away.
fn stepped(number: f32, steps: i32) -> f32 {
    (0..steps.abs()).fold(number, |number, _| if steps > 0 { number.next_up() } else { number.next_down() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_starts_without_noise_have_roundings() {
        let objective = ShallowFlowMatching::default();
        assert_eq!(roundings(&objective, &objective.place(0.4, 0.1, 1.0)).len(), 1);
        let beyond = objective.place(1.3, 0.2, 1.0);
        let noises = roundings(&objective, &beyond);
        assert!(noises.len() > 1 && noises[0] == beyond.noise);
        assert!(noises.iter().all(|noise| *noise < 1e-3), "{noises:?}");
    }

    #[test]
    fn each_item_takes_the_rounding_that_fits_it() {
        let objective = ShallowFlowMatching::default();
        let starts =
            vec![objective.place(1.3, 0.2, 1.0), objective.place(0.4, 0.1, 1.0), objective.place(1.1, 0.3, 1.0)];
        let wanted: Vec<f64> = starts.iter().map(|start| roundings(&objective, start).pop().unwrap()).collect();
        let errors = |tried: Vec<Placement>| {
            Ok(tried.iter().zip(&wanted).map(|(start, wanted)| (start.noise - wanted).abs()).collect())
        };
        let found = fitted(&objective, starts, errors).unwrap();
        assert_eq!(found.iter().map(|start| start.noise).collect::<Vec<_>>(), wanted);
    }
}
