//! The method of Dormand and Prince: order 5 with an error estimate of order 4 (Hairer, Nørsett and Wanner, Solving Ordinary
//! Differential Equations I, sections II.4 and II.5).

use super::{Solution, check_length};
use crate::NnError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Stages of a step; the last one is the first of the next step.
const STAGES: usize = 7;
/// The times of the stages as shares of the step.
const NODES: [f64; STAGES] = [0.0, 1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0, 1.0];
/// Weights of earlier stages in stage `i + 1`; the last row is the solution.
const WEIGHTS: [&[f64]; STAGES - 1] = [
    &[1.0 / 5.0],
    &[3.0 / 40.0, 9.0 / 40.0],
    &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
    &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
    &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
    &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];
/// Weights of the error: solution of order 5 minus solution of order 4.
const ERROR: [f64; STAGES] =
    [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0];
/// A step is made slightly shorter than the error allows, and not too different from the previous one.
const SAFETY: f64 = 0.9;
const SHRINK: f64 = 0.2;
const GROW: f64 = 10.0;

/// Accuracy of the adaptive solver, and its limit of evaluations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tolerances {
    /// Allowed error of a step relative to the magnitude of the state.
    pub rtol: f64,
    /// Allowed absolute error of a step.
    pub atol: f64,
    /// Largest number of evaluations of the velocity.
    pub max_evaluations: usize,
}

impl Default for Tolerances {
    fn default() -> Self {
        Self { rtol: 1e-5, atol: 1e-5, max_evaluations: 5000 }
    }
}

impl Tolerances {
    /// Checks that the tolerances can be met.
    ///
    /// # Errors
    /// When a tolerance cannot be met; the first one is reported.
    pub fn check(&self) -> crate::Result<()> {
        let Self { rtol, atol, max_evaluations } = *self;
        // The state is in single precision: below its rounding every step would be rejected.
        if !(1e-6..1.0).contains(&rtol) {
            return Err(NnError::invalid("rtol", format!("{rtol} is not in [1e-6, 1)")));
        }
        if !(atol > 0.0 && atol.is_finite()) {
            return Err(NnError::invalid("atol", format!("{atol} is not a positive number")));
        }
        if max_evaluations < STAGES + 1 {
            return Err(NnError::invalid("max_evaluations", format!("{max_evaluations} is less than one step needs")));
        }
        Ok(())
    }
}

/// Follows `velocity(state, time)` from the first to the second time with steps as long as the tolerances allow. A step takes
/// six evaluations (its first stage is the last of the previous step); finding the length of the first step takes two.
///
/// # Errors
/// Those of `velocity`; when it returns another number of elements or a value that is not finite, when the steps become too
/// short to advance, and when `max_evaluations` is reached (a stiff problem).
pub fn dormand_prince<E: From<NnError>>(
    start: Vec<f32>,
    times: [f32; 2],
    tolerances: &Tolerances,
    velocity: impl FnMut(&[f32], f32) -> Result<Vec<f32>, E>,
) -> Result<Solution, E> {
    tolerances.check()?;
    let [time, end] = times.map(f64::from);
    if !(end > time && end.is_finite() && time.is_finite()) {
        return Err(NnError::invalid("dopri5", format!("the time cannot run from {time} to {end}")).into());
    }
    if start.is_empty() {
        return Ok(Solution { state: start, evaluations: 0 });
    }
    let mut run = Run { velocity, tolerances, end, time, evaluations: 0 };
    let mut state = start;
    let mut slope = run.evaluate(&state, time)?;
    let mut step = run.first_step(&state, &slope)?;
    while run.time < end {
        let left = end - run.time;
        // A last step that would leave almost nothing is extended to the end.
        let last = step >= left * (1.0 - 1e-9);
        let length = if last { left } else { step };
        run.check_step(length)?;
        let trial = run.attempt(&state, &slope, length)?;
        if trial.error <= 1.0 {
            run.time = if last { end } else { run.time + length };
            (state, slope) = (trial.state, trial.slope);
        }
        step = length * growth(trial.error);
    }
    Ok(Solution { state, evaluations: run.evaluations })
}

/// Factor on the step that brings the error (relative to the allowed one) to the allowed one.
fn growth(error: f64) -> f64 {
    if error == 0.0 { GROW } else { (SAFETY * error.powf(-0.2)).clamp(SHRINK, GROW) }
}

/// Result of a trial step.
struct Trial {
    state: Vec<f32>,
    /// The velocity at its end.
    slope: Vec<f32>,
    /// The error relative to the allowed one.
    error: f64,
}

struct Run<'a, F> {
    velocity: F,
    tolerances: &'a Tolerances,
    end: f64,
    time: f64,
    evaluations: usize,
}

impl<F> Run<'_, F> {
    fn evaluate<E>(&mut self, state: &[f32], time: f64) -> Result<Vec<f32>, E>
    where
        E: From<NnError>,
        F: FnMut(&[f32], f32) -> Result<Vec<f32>, E>,
    {
        if self.evaluations >= self.tolerances.max_evaluations {
            let message = format!(
                "stopped at time {:.4} after {} evaluations of the velocity: the velocity changes too fast for these tolerances (rtol \
                 {:e}, atol {:e}); loosen them, allow more evaluations or use euler",
                self.time, self.evaluations, self.tolerances.rtol, self.tolerances.atol
            );
            return Err(NnError::invalid("dopri5", message).into());
        }
        self.evaluations += 1;
        let slope = (self.velocity)(state, time as f32)?;
        check_length("dopri5", state, &slope)?;
        if slope.iter().any(|x| !x.is_finite()) {
            let message = format!("the velocity at time {time:.4} is not finite");
            return Err(NnError::NotFinite { what: "dopri5", message }.into());
        }
        Ok(slope)
    }

    /// Rejects a step too short to advance the time, which means that the error does not shrink with the step.
    fn check_step(&self, step: f64) -> Result<(), NnError> {
        if step > 1e-9 * self.end.abs().max(1.0) {
            return Ok(());
        }
        let message = format!("the step at time {:.4} became too short: {step:e}", self.time);
        Err(NnError::invalid("dopri5", message))
    }

    /// The root mean square of `values` relative to the allowed error at the larger of two states.
    fn norm(&self, values: impl Iterator<Item = f64>, states: [&[f32]; 2]) -> f64 {
        let Tolerances { rtol, atol, .. } = *self.tolerances;
        let count = states[0].len() as f64;
        let magnitudes = states[0].iter().zip(states[1]).map(|(a, b)| f64::from(a.abs().max(b.abs())));
        let squares = values.zip(magnitudes).map(|(value, magnitude)| (value / (atol + rtol * magnitude)).powi(2));
        (squares.sum::<f64>() / count).sqrt()
    }

    /// The length of the first step: Hairer's estimate from the first two derivatives.
    fn first_step<E>(&mut self, state: &[f32], slope: &[f32]) -> Result<f64, E>
    where
        E: From<NnError>,
        F: FnMut(&[f32], f32) -> Result<Vec<f32>, E>,
    {
        let doubles = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let position = self.norm(doubles(state).into_iter(), [state, state]);
        let speed = self.norm(doubles(slope).into_iter(), [state, state]);
        let guess = if position < 1e-5 || speed < 1e-5 { 1e-6 } else { 0.01 * position / speed };
        let guess = guess.min(self.end - self.time);
        let moved: Vec<f32> =
            state.iter().zip(slope).map(|(x, v)| (f64::from(*x) + guess * f64::from(*v)) as f32).collect();
        let there = self.evaluate(&moved, self.time + guess)?;
        let change = there.iter().zip(slope).map(|(a, b)| f64::from(*a) - f64::from(*b));
        let bend = self.norm(change, [state, state]) / guess;
        let fastest = speed.max(bend);
        let step = if fastest <= 1e-15 { (guess * 1e-3).max(1e-6) } else { (0.01 / fastest).powf(0.2) };
        Ok(step.min(100.0 * guess))
    }

    fn attempt<E>(&mut self, state: &[f32], slope: &[f32], step: f64) -> Result<Trial, E>
    where
        E: From<NnError>,
        F: FnMut(&[f32], f32) -> Result<Vec<f32>, E>,
    {
        let mut slopes: Vec<Vec<f32>> = vec![slope.to_vec()];
        let mut moved = state.to_vec();
        for (stage, weights) in WEIGHTS.iter().enumerate() {
            for (index, moved) in moved.iter_mut().enumerate() {
                let sum: f64 =
                    weights.iter().zip(&slopes).map(|(weight, slope)| weight * f64::from(slope[index])).sum();
                *moved = (f64::from(state[index]) + step * sum) as f32;
            }
            slopes.push(self.evaluate(&moved, self.time + NODES[stage + 1] * step)?);
        }
        let errors = (0..state.len()).map(|index| {
            step * ERROR.iter().zip(&slopes).map(|(weight, slope)| weight * f64::from(slope[index])).sum::<f64>()
        });
        let error = self.norm(errors, [state, &moved]);
        let slope = slopes.pop().unwrap_or_default();
        Ok(Trial { state: moved, slope, error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::{E, PI};

    fn solve(
        start: &[f32],
        end: f32,
        tolerances: Tolerances,
        velocity: impl Fn(&[f32], f32) -> Vec<f32>,
    ) -> Result<Solution, NnError> {
        dormand_prince(start.to_vec(), [0.0, end], &tolerances, |x, t| Ok(velocity(x, t)))
    }

    fn within(tolerance: f64) -> Tolerances {
        Tolerances { rtol: tolerance, atol: tolerance, ..Tolerances::default() }
    }

    #[test]
    fn the_table_is_consistent() {
        for (stage, weights) in WEIGHTS.iter().enumerate() {
            assert!((weights.iter().sum::<f64>() - NODES[stage + 1]).abs() < 1e-14, "stage {stage}");
        }
        assert!(ERROR.iter().sum::<f64>().abs() < 1e-14);
        // Conditions of order 1 to 5 on the pure quadrature: sum b c^k = 1 / (k + 1).
        for power in 0..5 {
            let sum: f64 = WEIGHTS[5].iter().zip(NODES).map(|(weight, node)| weight * node.powi(power)).sum();
            assert!((sum - 1.0 / f64::from(power + 1)).abs() < 1e-14, "order {}", power + 1);
        }
    }

    #[test]
    fn one_step_has_order_five() {
        // The local errors of x' = -x fall with the sixth power of the step; these steps keep them above rounding.
        let local = |step: f64| {
            let tolerances = Tolerances::default();
            let velocity = |x: &[f32], _: f32| Ok::<_, NnError>(vec![-x[0]]);
            let mut run = Run { velocity, tolerances: &tolerances, end: 1.0, time: 0.0, evaluations: 0 };
            let trial = run.attempt(&[1.0], &[-1.0], step).unwrap();
            assert_eq!(run.evaluations, 6);
            (f64::from(trial.state[0]) - (-step).exp()).abs()
        };
        let order = (local(1.0) / local(0.5)).log2();
        assert!((5.7..6.7).contains(&order), "{order}");
    }

    #[test]
    fn it_reaches_known_solutions_within_the_tolerance() {
        let exponential = solve(&[1.0], 1.0, within(1e-5), |x, _| x.to_vec()).unwrap();
        assert!((f64::from(exponential.state[0]) - E).abs() < 1e-4, "{exponential:?}");
        let circle = solve(&[1.0, 0.0], 2.0 * PI as f32, within(1e-5), |x, _| vec![-x[1], x[0]]).unwrap();
        assert!((circle.state[0] - 1.0).abs() < 1e-3 && circle.state[1].abs() < 1e-3, "{circle:?}");
        // x' = 3 t^2: exact for a method of order 5.
        let cubic = solve(&[0.0], 1.0, within(1e-5), |_, t| vec![3.0 * t * t]).unwrap();
        assert!((cubic.state[0] - 1.0).abs() < 1e-6, "{cubic:?}");
    }

    #[test]
    fn evaluations_are_counted_and_grow_with_the_precision() {
        let count = |tolerance: f64| {
            let mut calls = 0;
            let velocity = |x: &[f32], t: f32| {
                calls += 1;
                Ok::<_, NnError>(vec![x[0] * (8.0 * t).cos()])
            };
            let solution = dormand_prince(vec![1.0], [0.0, 1.0], &within(tolerance), velocity).unwrap();
            assert_eq!(solution.evaluations, calls);
            assert_eq!((calls - 2) % 6, 0, "two for the first step, six for each");
            let expected = (8f64.sin() / 8.0).exp();
            assert!((f64::from(solution.state[0]) - expected).abs() < 30.0 * tolerance + 1e-6, "{solution:?}");
            calls
        };
        let [coarse, middle, fine] = [1e-2, 1e-4, 1e-6].map(count);
        assert!(coarse < middle && middle < fine, "{coarse} {middle} {fine}");
    }

    #[test]
    fn a_straight_path_takes_next_to_nothing() {
        let solution = solve(&[1.0, -1.0], 1.0, within(1e-5), |_, _| vec![2.0, 0.5]).unwrap();
        assert!((solution.state[0] - 3.0).abs() < 1e-5 && (solution.state[1] + 0.5).abs() < 1e-5);
        assert!(solution.evaluations <= 2 + 6 * 5, "{}", solution.evaluations);
        assert_eq!(solve(&[], 1.0, within(1e-5), |_, _| Vec::new()).unwrap().evaluations, 0);
    }

    #[test]
    fn what_cannot_be_solved_ends_in_an_error() {
        type Velocity = fn(&[f32], f32) -> Vec<f32>;
        let said = |tolerances, velocity: Velocity| solve(&[1.0], 1.0, tolerances, velocity).unwrap_err();
        let few = Tolerances { max_evaluations: 200, ..Tolerances::default() };
        let stiff = said(few, |x, t| vec![-1e6 * (x[0] - t.cos())]);
        let names = |text: &str| text.contains("200 evaluations") && text.contains("euler");
        assert!(matches!(&stiff, NnError::Invalid { what: "dopri5", message } if names(message)), "{stiff}");
        let not_finite: [Velocity; 2] = [|_, t| vec![if t > 0.5 { f32::NAN } else { 1.0 }], |_, _| vec![f32::INFINITY]];
        for velocity in not_finite {
            let error = said(few, velocity);
            assert!(matches!(error, NnError::NotFinite { what: "dopri5", .. }), "{error}");
        }
        let length = said(few, |_, _| vec![]);
        assert!(matches!(&length, NnError::Shape { expected, .. } if expected == "[1]"), "{length}");
        // A velocity that jumps back and forth: no step is short enough.
        let noise = said(Tolerances::default(), |_, t| vec![if (t * 1e7) as i64 % 2 == 0 { 1e9 } else { -1e9 }]);
        assert!(matches!(noise, NnError::Invalid { what: "dopri5", .. }), "{noise}");
        for (bad, name) in [
            (Tolerances { rtol: 0.0, ..few }, "rtol"),
            (Tolerances { atol: f64::NAN, ..few }, "atol"),
            (Tolerances { max_evaluations: 7, ..few }, "max_evaluations"),
        ] {
            let error = said(bad, |x, _| x.to_vec());
            assert!(matches!(error, NnError::Invalid { what, .. } if what == name), "{name}: {error}");
        }
        assert!(solve(&[1.0], 0.0, few, |x, _| x.to_vec()).is_err());
    }
}
