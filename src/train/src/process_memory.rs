//! Memory of this process, if the system reports it.

use std::fs;

/// Returns the bytes in memory now.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// Returns the largest number of bytes in memory since the start or the last [`reset_peak`].
pub fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Resets the peak to the current value. If the system refuses, the peak remains that of the whole process.
pub fn reset_peak() {
    let _refused = fs::write("/proc/self/clear_refs", "5");
}

fn status(key: &str) -> Option<u64> {
    field(&fs::read_to_string("/proc/self/status").ok()?, key)
}

/// Returns a field of `/proc/self/status`, in bytes.
fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_bytes() {
        let text = "Name:\tflowmill\nVmHWM:\t  2048 kB\nVmRSS:\t   100 kB\n";
        assert_eq!(field(text, "VmHWM:"), Some(2048 * 1024));
        assert_eq!(field(text, "VmRSS:"), Some(100 * 1024));
        assert_eq!(field(text, "VmSwap:"), None);
        assert_eq!(field("VmRSS:\tmany kB\n", "VmRSS:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_that_is_touched_shows_in_the_peak() {
        let before = peak().unwrap();
        let block = std::hint::black_box(vec![1u8; 256 << 20]);
        assert!(peak().unwrap() >= 256 << 20 && peak().unwrap() >= before);
        assert!(resident().unwrap() >= 256 << 20);
        drop(block);
    }
}
