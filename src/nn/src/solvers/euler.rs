//! Euler's method.

use super::{Solution, check_length};
use crate::NnError;

/// Euler's method: `x += (t' - t) velocity(x, t)` from each time to the next; one evaluation per step.
///
/// # Errors
/// Those of `velocity`; when it returns another number of elements, or fewer than two times are given.
pub fn euler<E: From<NnError>>(
    mut state: Vec<f32>,
    times: &[f32],
    mut velocity: impl FnMut(&[f32], f32) -> Result<Vec<f32>, E>,
) -> Result<Solution, E> {
    let [first, rest @ ..] = times else {
        return Err(NnError::invalid("euler", "at least two times are needed").into());
    };
    if rest.is_empty() {
        return Err(NnError::invalid("euler", "at least two times are needed").into());
    }
    let mut time = *first;
    for next in rest {
        let slope = velocity(&state, time)?;
        check_length("euler", &state, &slope)?;
        let step = next - time;
        state.iter_mut().zip(slope).for_each(|(x, slope)| *x += step * slope);
        time += step;
    }
    if state.iter().any(|x| !x.is_finite()) {
        let message = "the state is not finite at the end".to_owned();
        return Err(NnError::NotFinite { what: "euler", message }.into());
    }
    Ok(Solution { state, evaluations: rest.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solvers::TimeSchedule;

    #[test]
    fn it_converges_to_the_exponential_at_first_order() {
        let error = |steps: usize| {
            let times = TimeSchedule::Uniform.times(steps);
            let solution = euler::<NnError>(vec![1.0], &times, |x, _| Ok(x.to_vec())).unwrap();
            assert_eq!(solution.evaluations, steps);
            (f64::from(solution.state[0]) - std::f64::consts::E).abs()
        };
        assert!(error(100) < 0.02);
        let ratio = error(50) / error(100);
        assert!((1.9..2.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn it_is_exact_on_straight_paths() {
        let times = TimeSchedule::Cosine.times(3);
        let solution = euler::<NnError>(vec![1.0, 2.0], &times, |_, _| Ok(vec![3.0, -1.0])).unwrap();
        assert!((solution.state[0] - 4.0).abs() < 1e-6 && (solution.state[1] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn what_cannot_be_solved_is_an_error() {
        let failed = |times: &[f32], velocity: fn(&[f32], f32) -> Result<Vec<f32>, NnError>| {
            euler(vec![1.0], times, velocity).unwrap_err()
        };
        for too_few in [&[0.0][..], &[]] {
            let error = failed(too_few, |x, _| Ok(x.to_vec()));
            assert!(matches!(error, NnError::Invalid { what: "euler", .. }), "{error}");
        }
        let length = failed(&[0.0, 1.0], |_, _| Ok(vec![]));
        assert!(matches!(&length, NnError::Shape { expected, .. } if expected == "[1]"), "{length}");
        let nan = failed(&[0.0, 1.0], |_, _| Ok(vec![f32::NAN]));
        assert!(matches!(nan, NnError::NotFinite { what: "euler", .. }), "{nan}");
    }
}
