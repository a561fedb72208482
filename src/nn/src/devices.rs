//! List of the devices of this build and this machine for people: names, memory, driver, and why one cannot be used.

use crate::device::SUPPORTED;
use candle_core::Device;

/// A kind of device that Flowmill can compute on, as seen by this build on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The first part of device names: `cpu`, `cuda` or `metal`.
    pub kind: &'static str,
    /// Version of the driver, if there is one.
    pub driver: Option<String>,
    /// The devices, or the reason why there is none.
    pub devices: Result<Vec<Found>, Unusable>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The name for `train.device` and `--device`.
    pub name: String,
    /// Model name, as the device reports it.
    pub model: String,
    /// The memory, if it has its own.
    pub memory: Option<Memory>,
    /// CUDA's compute capability.
    pub capability: Option<(u32, u32)>,
}

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that are free.
    pub free: u64,
    /// Bytes in total.
    pub total: u64,
}

/// Reason why no device of a kind can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The support was not compiled in.
    #[error("not in this build; `cargo build --release -p flowmill-cli --features {0}` makes one that has it")]
    NotBuilt(&'static str),
    /// A shared library is missing.
    #[error(
        "{file} was not found: it belongs to {part_of}, which is not installed (or its folder is not in LD_LIBRARY_PATH)"
    )]
    MissingLibrary {
        /// The missing file.
        file: &'static str,
        /// The product that contains it.
        part_of: &'static str,
    },
    /// The driver works but lists no device.
    #[error("the driver finds no device")]
    NoDevice,
    /// The driver reported an error.
    #[error("the driver reported an error: {0}")]
    Driver(String),
}

/// Returns the memory of a device that has its own; `None` for the CPU, or if the driver does not report it.
pub fn memory(device: &Device) -> Option<Memory> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            use candle_core::backend::BackendDevice;
            // Freed memory in the pool is returned only after the work on it is done.
            device.synchronize().ok()?;
            let (free, total) = device.cuda_stream().context().mem_get_info().ok()?;
            Some(Memory { free: free as u64, total: total as u64 })
        }
        _ => None,
    }
}

/// Lists all kinds of devices; the CPU comes first and can always be used.
pub fn list() -> Vec<Backend> {
    let model = std::env::consts::ARCH.to_owned();
    let cpu = Found { name: "cpu".into(), model, memory: None, capability: None };
    vec![Backend { kind: "cpu", driver: None, devices: Ok(vec![cpu]) }, cuda(), metal()]
}

/// CUDA devices, as the driver lists them.
#[cfg(feature = "cuda")]
fn cuda() -> Backend {
    let driver = installed_driver();
    Backend { kind: "cuda", driver, devices: missing_library().map_or_else(driver::devices, Err) }
}

/// CUDA devices of a build without CUDA support.
#[cfg(not(feature = "cuda"))]
fn cuda() -> Backend {
    Backend { kind: "cuda", driver: installed_driver(), devices: Err(Unusable::NotBuilt("cuda")) }
}

/// Version of NVIDIA's kernel module, independent of the build.
fn installed_driver() -> Option<String> {
    let version = std::fs::read_to_string("/sys/module/nvidia/version").ok()?;
    Some(version.trim().to_owned())
}

/// The first library that training needs and this machine lacks.
#[cfg(all(feature = "cuda", target_os = "linux", target_arch = "x86_64"))]
fn missing_library() -> Option<Unusable> {
    use crate::cuda_libraries::{CUBLAS, CURAND, DRIVER};
    let missing = [&DRIVER, &CUBLAS, &CURAND].into_iter().find(|library| !library.is_found())?;
    Some(Unusable::MissingLibrary { file: missing.files[0], part_of: missing.part_of })
}

/// Programs for other systems are linked to the libraries and do not start without them.
#[cfg(all(feature = "cuda", not(all(target_os = "linux", target_arch = "x86_64"))))]
fn missing_library() -> Option<Unusable> {
    None
}

/// Queries of the CUDA driver.
#[cfg(feature = "cuda")]
mod driver {
    use super::{Found, Memory, Unusable};
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError, sys::CUresult};

    /// All devices of the driver.
    pub(super) fn devices() -> Result<Vec<Found>, Unusable> {
        let refuse = |error: DriverError| match error.0 {
            CUresult::CUDA_ERROR_NO_DEVICE => Unusable::NoDevice,
            _ => Unusable::Driver(error.to_string()),
        };
        let count = CudaContext::device_count().map_err(refuse)?;
        let numbers = 0..usize::try_from(count).unwrap_or(0);
        let found: Vec<Found> = numbers.map(device).collect::<Result<_, _>>().map_err(refuse)?;
        if found.is_empty() { Err(Unusable::NoDevice) } else { Ok(found) }
    }

    /// Describes one device. Its context is created for the query and released with it.
    fn device(number: usize) -> Result<Found, DriverError> {
        let context = CudaContext::new(number)?;
        let (free, total) = context.mem_get_info()?;
        let (major, minor) = context.compute_capability()?;
        Ok(Found {
            name: format!("cuda:{number}"),
            model: context.name()?,
            memory: Some(Memory { free: free as u64, total: total as u64 }),
            capability: Some((major.unsigned_abs(), minor.unsigned_abs())),
        })
    }
}

/// Apple's GPU.
fn metal() -> Backend {
    let devices = if SUPPORTED.contains(&"metal") {
        let found = Found { name: "metal".into(), model: "Apple GPU".into(), memory: None, capability: None };
        match candle_core::Device::new_metal(0) {
            Ok(_) => Ok(vec![found]),
            Err(error) => Err(Unusable::Driver(error.to_string())),
        }
    } else {
        Err(Unusable::NotBuilt("metal"))
    };
    Backend { kind: "metal", driver: None, devices }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_first_and_kinds_that_are_not_built_say_how_to_get_them() {
        let backends = list();
        assert_eq!(backends.iter().map(|backend| backend.kind).collect::<Vec<_>>(), ["cpu", "cuda", "metal"]);
        assert_eq!(backends[0].devices.as_ref().map(|devices| devices[0].name.as_str()), Ok("cpu"));
        for backend in &backends[1..] {
            let built = SUPPORTED.contains(&backend.kind);
            assert_eq!(backend.devices == Err(Unusable::NotBuilt(backend.kind)), !built, "{backend:?}");
        }
    }
}
