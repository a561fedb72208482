//! Numbers in the form in which people read them.

use std::time::Duration;

use chrono::DateTime;

/// Formats `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a size in powers of 1000: `831 B`, `12.3 kB`, `4.6 GB`.
pub fn bytes(size: u64) -> String {
    if size < 1000 {
        return format!("{size} B");
    }
    let mut value = size as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if value < 99.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Formats an age in its largest unit: `now`, `40 s`, `3 min`, `5 h`, `12 d`.
pub fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..5 => "now".into(),
        5..100 => format!("{seconds} s"),
        100..6000 => format!("{} min", seconds / 60),
        6000..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Formats a time in seconds since 1970: `2026-12-01 04:10 UTC`.
pub fn date(seconds: f64) -> String {
    let time = DateTime::from_timestamp(seconds as i64, 0).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// A length of time in its two largest units: `12.3 s`, `4 min 05 s`, `7 h 30 min`, `3 d 04 h`.
pub fn duration(seconds: f64) -> String {
    // Negative and undefined times become 0.
    let whole = seconds.round() as u64;
    match whole {
        0..100 => format!("{:.1} s", seconds.max(0.0)),
        100..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..172_800 => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {:02} h", whole / 86_400, whole / 3600 % 24),
    }
}

/// A number with about six significant digits, without needless zeros.
pub fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    if value.fract() == 0.0 && value.abs() < 1e9 {
        return format!("{value:.0}");
    }
    let magnitude = value.abs().log10().floor();
    if !(-4.0..9.0).contains(&magnitude) {
        return format!("{value:.4e}");
    }
    let decimals = (5.0 - magnitude).max(1.0) as usize;
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Returns at most `limit` characters of `text` on one line, with control characters escaped, and `…` if it was cut.
pub fn shortened(text: &str, limit: usize) -> String {
    let mut short = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == limit {
            short.push('…');
            break;
        }
        if character.is_control() {
            short.extend(character.escape_default());
        } else {
            short.push(character);
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_separators() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes(831), "831 B");
        assert_eq!(bytes(12_345), "12.3 kB");
        assert_eq!(bytes(999_950), "1.0 MB");
        assert_eq!(bytes(4_600_000_000), "4.6 GB");
    }

    #[test]
    fn ages_have_one_unit() {
        assert_eq!(age(Duration::from_millis(430)), "now");
        assert_eq!(age(Duration::from_secs(200)), "3 min");
        assert_eq!(age(Duration::from_secs(7500)), "2 h");
        assert_eq!(age(Duration::from_secs(273_600)), "3 d");
    }

    #[test]
    fn times_have_two_units() {
        assert_eq!(duration(12.34), "12.3 s");
        assert_eq!(duration(245.2), "4 min 05 s");
        assert_eq!(duration(27_030.0), "7 h 30 min");
        assert_eq!(duration(273_600.0), "3 d 04 h");
        assert_eq!(duration(-1.0), "0.0 s");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(0.000_123_456_789), "0.000123457");
        assert_eq!(number(1e-7), "1.0000e-7");
        assert_eq!(number(12.5), "12.5");
        assert_eq!(number(f64::NAN), "NaN");
    }

    #[test]
    fn long_text_is_cut_and_control_characters_are_escaped() {
        assert_eq!(shortened("a\u{1b}[31mb", 20), "a\\u{1b}[31mb");
        assert_eq!(shortened("abcdef", 3), "abc…");
    }
}
