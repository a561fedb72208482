//! Times and amounts of memory as Slurm writes them.

/// Returns the seconds of a time limit: `90` (minutes), `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`.
pub(super) fn parse_time(text: &str) -> Option<u64> {
    let numbers = |text: &str| text.split(':').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<u64>>>();
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(days.parse::<u64>().ok()?), numbers(rest)?),
        None => (None, numbers(text)?),
    };
    let (hours, minutes, seconds) = match (days.is_some(), &rest[..]) {
        (true, &[hours]) => (hours, 0, 0),
        (true, &[hours, minutes]) => (hours, minutes, 0),
        (false, &[minutes]) => (0, minutes, 0),
        (false, &[minutes, seconds]) => (0, minutes, seconds),
        (_, &[hours, minutes, seconds]) => (hours, minutes, seconds),
        _ => return None,
    };
    let minutes = days.unwrap_or(0).checked_mul(24)?.checked_add(hours)?.checked_mul(60)?.checked_add(minutes)?;
    minutes.checked_mul(60)?.checked_add(seconds).filter(|seconds| *seconds > 0)
}

/// Writes a time limit as `D-HH:MM:SS`.
pub(super) fn format_time(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    format!("{days}-{hours:02}:{minutes:02}:{:02}", seconds % 60)
}

/// Returns the megabytes of an amount of memory: `500` or `500M`, `8G`, `1T`, `2048K`.
pub(super) fn parse_memory(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let megabytes = match &text[digits.len()..] {
        "" | "M" | "MB" => Some(number),
        "G" | "GB" => number.checked_mul(1024),
        "T" | "TB" => number.checked_mul(1024 * 1024),
        "K" | "KB" => Some(number.div_ceil(1024)),
        _ => None,
    };
    megabytes.filter(|megabytes| *megabytes > 0)
}

/// Returns a limit after it was raised a number of times.
pub(super) fn raised(limit: u64, factor: Option<f64>, times: u32) -> u64 {
    let raised = limit as f64 * factor.unwrap_or(1.0).powi(i32::try_from(times).unwrap_or(i32::MAX));
    // A limit beyond all machines is refused by Slurm, with its words.
    raised.ceil().min(1e15) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_slurm() {
        let known = [("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("2-0", 172_800), ("1-12:30", 131_400)];
        for (text, seconds) in known.into_iter().chain([("1-00:00:01", 86_401)]) {
            assert_eq!(parse_time(text), Some(seconds), "{text}");
            assert_eq!(parse_time(&format_time(seconds)), Some(seconds), "{text}");
        }
        for wrong in ["", "0", "1h", "1-", "-1", "1:2:3:4", "99999999999999999999", "9999999999999999-0"] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn memory_is_counted_in_binary_units() {
        for (text, megabytes) in [("500", 500), ("500M", 500), ("8G", 8192), ("1T", 1_048_576), ("1025K", 2)] {
            assert_eq!(parse_memory(text), Some(megabytes), "{text}");
        }
        for wrong in ["", "G", "0", "-1G", "1.5G", "8 G", "8Q"] {
            assert_eq!(parse_memory(wrong), None, "{wrong}");
        }
        assert_eq!(raised(1000, Some(1.5), 2), 2250);
        assert_eq!(raised(1000, None, 3), 1000);
    }
}
