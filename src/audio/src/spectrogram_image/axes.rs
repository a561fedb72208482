//! Ticks and labels.

/// Returns a step of 1, 2 or 5 times a power of ten that divides `span` into about `pieces`.
pub(super) fn round_step(span: f64, pieces: f64) -> f64 {
    let raw = (span / pieces.max(1.0)).max(1e-6);
    let power = 10f64.powf(raw.log10().floor());
    let multiple = [1.0, 2.0, 5.0].into_iter().find(|multiple| multiple * power >= raw * 0.999).unwrap_or(10.0);
    multiple * power
}

/// Formats a number with the digits that ticks `step` apart need.
pub(super) fn number(value: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.digits$}");
    if text.trim_start_matches('-').chars().all(|letter| matches!(letter, '0' | '.')) {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

/// Returns the frequencies with a label, in hertz, within the bands.
pub(super) fn frequency_ticks(centres: &[f64]) -> Vec<f64> {
    const WORTHY: [f64; 9] = [125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 12_000.0, 16_000.0];
    let (Some(first), Some(last)) = (centres.first(), centres.last()) else { return Vec::new() };
    // A little beyond the outer centers is still within the outer bands.
    WORTHY.into_iter().filter(|hertz| *hertz >= first * 0.9 && *hertz <= last * 1.06).collect()
}

/// Short form of a frequency.
pub(super) fn hertz_label(hertz: f64) -> String {
    if hertz >= 1000.0 { format!("{}k", hertz / 1000.0) } else { format!("{hertz}") }
}

/// Returns the position of a frequency among the centers of the bands, in bands; the first band's middle is at 0.5.
pub(super) fn position_of(centres: &[f64], hertz: f64) -> f64 {
    let above = centres.partition_point(|centre| *centre < hertz).clamp(1, centres.len().max(2) - 1);
    let (Some(low), Some(high)) = (centres.get(above - 1), centres.get(above)) else { return 0.5 };
    (above - 1) as f64 + 0.5 + (hertz - low) / (high - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!(round_step(3.2, 10.0), 0.5);
        assert_eq!(round_step(80.0, 8.0), 10.0);
        assert_eq!(number(0.5, 0.5), "0.5");
        assert_eq!(number(-0.0, 10.0), "0");
        assert_eq!(number(-20.0, 10.0), "-20");
    }

    #[test]
    fn frequencies_fall_between_their_neighbors() {
        let centres = [100.0, 200.0, 400.0];
        assert_eq!(position_of(&centres, 200.0), 1.5);
        assert_eq!(position_of(&centres, 300.0), 2.0);
        assert_eq!(frequency_ticks(&centres), [125.0, 250.0]);
    }
}
