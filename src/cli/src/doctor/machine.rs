//! Processor, memory, thread settings, graphics devices.

use std::fs;

/// The processor.
#[derive(Debug, Clone)]
pub struct Processor {
    /// The name for itself.
    pub name: String,
    /// The number of logical cores that this process may use.
    pub cores: usize,
    /// The number of logical cores of the machine.
    pub installed: usize,
    /// The instruction sets that the kernels can use.
    pub features: Vec<&'static str>,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// The memory of the machine.
    pub total: u64,
    /// The memory that is free or can be freed.
    pub available: u64,
    /// The memory that this process group may use, if it is limited.
    pub limit: Option<u64>,
}

/// Queries the processor.
pub fn processor() -> Processor {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|pair| pair.1.trim()));
    let installed = about.lines().filter(|line| line.starts_with("processor")).count();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Processor {
        name: name.unwrap_or(std::env::consts::ARCH).to_string(),
        cores,
        installed: installed.max(cores),
        features: features(),
    }
}

/// The instruction sets of this processor that the kernels can use.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    let sets = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    sets.into_iter().filter(|set| set.1).map(|set| set.0).collect()
}

/// The instruction sets of this processor that the kernels can use.
#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    if cfg!(target_arch = "aarch64") { vec!["neon"] } else { Vec::new() }
}

/// Queries the memory; `None` if the system does not report it.
pub fn memory() -> Option<Memory> {
    let about = fs::read_to_string("/proc/meminfo").ok()?;
    Some(Memory {
        total: meminfo(&about, "MemTotal:")?,
        available: meminfo(&about, "MemAvailable:")?,
        limit: group_limit(),
    })
}

/// Returns one value of `/proc/meminfo`, in bytes.
fn meminfo(about: &str, key: &str) -> Option<u64> {
    let line = about.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Returns the memory limit of the control group, of version 1 or 2.
fn group_limit() -> Option<u64> {
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = files.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    limits.min().filter(|limit| *limit < 1 << 50)
}

/// Returns the environment variables that change the number of threads of libraries, with their values.
pub fn thread_settings() -> Vec<(&'static str, String)> {
    const NAMES: [&str; 5] =
        ["RAYON_NUM_THREADS", "POLARS_MAX_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"];
    NAMES.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?))).collect()
}

/// Returns the graphics devices that the system lists, whether or not this build can use them.
pub fn graphics() -> Vec<String> {
    let Ok(folders) = fs::read_dir("/proc/driver/nvidia/gpus") else { return Vec::new() };
    let mut devices: Vec<String> = folders
        .filter_map(|folder| {
            let about = fs::read_to_string(folder.ok()?.path().join("information")).ok()?;
            let model = about.lines().find_map(|line| line.strip_prefix("Model:"))?;
            Some(model.trim().to_string())
        })
        .collect();
    devices.sort();
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_lines_are_in_bytes() {
        let about = "MemTotal:       24576000 kB\nMemAvailable:   100 kB\n";
        assert_eq!(meminfo(about, "MemTotal:"), Some(24_576_000 * 1024));
        assert_eq!(meminfo(about, "SwapTotal:"), None);
    }
}
