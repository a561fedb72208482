//! Devices that hold values, and the choice of what computes there.
//!
//! `f32` tensors on the CPU have fused kernels. Every other device and element type uses the *composition* of an operation: candle
//! operations, which are also the reference for the kernels. [`Place::of`] is the only code that chooses between the two.

use crate::{NnError, Precision, Result, Value, device_memory};
use candle_core::{DType, Device, DeviceLocation, Tensor};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

thread_local! {
    static COMPOSED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with compositions only, also for single precision on the CPU: the reference for the fused kernels.
pub fn by_composition<R>(work: impl FnOnce() -> R) -> R {
    /// Restores the choice when `work` ends, even by a panic.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            COMPOSED.set(self.0);
        }
    }
    let _restore = Restore(COMPOSED.replace(true));
    work()
}

/// Returns whether operations may use Flowmill's own kernels.
#[cfg(feature = "cuda")]
pub(crate) fn kernels_allowed() -> bool {
    !COMPOSED.get()
}

/// The implementation that computes an operation.
pub(crate) enum Place {
    /// The fused CPU kernel.
    Fused,
    /// The composition on a device, in an element type.
    Composed(Device, DType),
}

impl Place {
    /// Chooses where an operation on these values computes.
    ///
    /// Data on the CPU follow the first value on another device. The element type is double precision if any value has it; otherwise that
    /// of the tape (scalars stay in single precision); otherwise, with nothing recorded, the widest of the values.
    pub(crate) fn of(inputs: &[&Value]) -> Self {
        let tensors = || inputs.iter().map(|value| value.form());
        if tensors().all(is_fused) {
            return Self::Fused;
        }
        let device = tensors().map(Tensor::device).find(|device| !device.is_cpu());
        let has = |dtype: DType| tensors().any(|tensor| tensor.dtype() == dtype);
        // Scalars are losses or parts of them.
        let scalar = tensors().all(|tensor| tensor.dims().is_empty());
        let tape = inputs.iter().find_map(|value| value.tape());
        let recorded = tape.map(|tape| if scalar { DType::F32 } else { dtype(tape.precision()) });
        let dtype = match recorded {
            _ if has(DType::F64) => DType::F64,
            Some(dtype) => dtype,
            None if has(DType::F32) => DType::F32,
            None => inputs.first().map_or(DType::F32, |value| value.form().dtype()),
        };
        Self::Composed(device.cloned().unwrap_or(Device::Cpu), dtype)
    }
}

/// The element type of a number format on devices.
pub(crate) fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::Fp32 => DType::F32,
        Precision::Bf16 => DType::BF16,
        Precision::Fp16 => DType::F16,
    }
}

/// Returns whether the fused CPU kernels can read a tensor.
pub(crate) fn is_host_single(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32
}

/// Returns whether a device has fused kernels: the CPU does, unless [`by_composition`] is in force. Networks with constant weights call
/// this once, when they arrange their weights.
pub fn has_kernels(device: &Device) -> bool {
    device.is_cpu() && !COMPOSED.get()
}

/// Returns whether there are fused kernels for a tensor: the same choice as [`Place::of`], for computations outside of the tape such
/// as updates of parameters.
pub fn is_fused(tensor: &Tensor) -> bool {
    is_host_single(tensor) && has_kernels(tensor.device())
}

/// Returns the tensor in row-major order. A tensor without elements is created anew: candle's views of it may begin past its end.
pub(crate) fn contiguous(tensor: &Tensor) -> Result<Tensor> {
    if tensor.elem_count() == 0 {
        return Ok(Tensor::zeros(tensor.dims(), tensor.dtype(), tensor.device())?);
    }
    Ok(tensor.contiguous()?)
}

/// Converts the tensor to another element type. A tensor without elements is created anew: CUDA rejects a launch over nothing.
pub(crate) fn cast(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    if tensor.elem_count() == 0 {
        return Ok(Tensor::zeros(tensor.dims(), dtype, tensor.device())?);
    }
    Ok(tensor.to_dtype(dtype)?)
}

/// Returns the tensor in single precision or wider: the precision of sums, statistics and exponentials.
pub(crate) fn wide(tensor: &Tensor) -> Result<Tensor> {
    Ok(match tensor.dtype() {
        DType::BF16 | DType::F16 => cast(tensor, DType::F32)?,
        _ => tensor.clone(),
    })
}

/// Name of a device in recipes and commands: `auto`, `cpu`, `cuda:N` or `metal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(into = "String")]
pub enum DeviceName {
    /// A GPU that works, otherwise the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device, by its number.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl FromStr for DeviceName {
    type Err = NnError;

    fn from_str(name: &str) -> Result<Self> {
        let number = |digits: &str| digits.parse().ok().map(Self::Cuda);
        let found = match name {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "metal" => Some(Self::Metal),
            "cuda" => Some(Self::Cuda(0)),
            _ => name.strip_prefix("cuda:").and_then(number),
        };
        found.ok_or_else(|| {
            NnError::invalid("device", format!("`{name}` is not a device name; use auto, cpu, cuda:N or metal"))
        })
    }
}

/// Implemented as a visitor, so that errors in a recipe carry the line of a wrong name.
impl<'de> Deserialize<'de> for DeviceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = DeviceName;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a device: auto, cpu, cuda:N or metal")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> std::result::Result<DeviceName, E> {
                name.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Name)
    }
}

impl JsonSchema for DeviceName {
    fn schema_name() -> Cow<'static, str> {
        "Device".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A device by its name.",
            "anyOf": [
                { "const": "auto", "description": "A GPU that works, otherwise the CPU." },
                { "const": "cpu", "description": "The CPU." },
                { "const": "cuda", "description": "The first CUDA device." },
                { "type": "string", "pattern": "^cuda:\\+?[0-9]+$", "description": "A CUDA device by its number, such as `cuda:0`." },
                { "const": "metal", "description": "Apple's GPU." },
            ],
        })
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
            Self::Metal => formatter.write_str("metal"),
        }
    }
}

/// Kinds of devices that this build supports in addition to the CPU.
pub const SUPPORTED: &[&str] = &[
    #[cfg(feature = "cuda")]
    "cuda",
    #[cfg(feature = "metal")]
    "metal",
];

/// Opened GPUs. candle treats tensors of one GPU that was opened twice as tensors of different devices.
static OPENED: Mutex<Vec<(DeviceName, Device)>> = Mutex::new(Vec::new());

/// Opens a device; every call returns the same one. `auto` returns the first GPU that computes, otherwise the CPU.
///
/// # Errors
/// [`NnError::NoDevice`] when this build does not support it, or the machine does not have it.
pub fn open(name: DeviceName) -> Result<Device> {
    let new: (&str, &dyn Fn() -> candle_core::Result<Device>) = match name {
        DeviceName::Cpu => return Ok(Device::Cpu),
        DeviceName::Auto => {
            let gpus = [DeviceName::Cuda(0), DeviceName::Metal];
            return Ok(gpus.into_iter().find_map(|gpu| open(gpu).ok()).unwrap_or(Device::Cpu));
        }
        DeviceName::Cuda(number) => ("cuda", &move || Device::new_cuda_with_stream(number)),
        DeviceName::Metal => ("metal", &|| Device::new_metal(0)),
    };
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, device)) = opened.iter().find(|(known, _)| *known == name) {
        return Ok(device.clone());
    }
    let device = open_gpu(name, new.0, new.1)?;
    device_memory::keep(&device);
    opened.push((name, device.clone()));
    Ok(device)
}

/// Waits until a device has finished all queued work; does nothing on the CPU.
///
/// # Errors
/// When work on the device failed.
pub fn synchronize(device: &Device) -> Result<()> {
    Ok(device.synchronize()?)
}

/// Sets whether single-precision products on NVIDIA GPUs may round their factors to TF32 (11 significant bits; sums stay in single
/// precision). The setting applies to the whole process.
pub fn allow_tf32(allowed: bool) {
    candle_core::cuda::set_gemm_reduced_precision_f32(allowed);
}

/// The name of a device, which is never `auto`.
pub fn name_of(device: &Device) -> DeviceName {
    match device.location() {
        DeviceLocation::Cpu => DeviceName::Cpu,
        DeviceLocation::Cuda { gpu_id } => DeviceName::Cuda(gpu_id),
        DeviceLocation::Metal { .. } => DeviceName::Metal,
    }
}

/// Opens a GPU and computes on it once, because a driver that loads does not prove a working device.
fn open_gpu(name: DeviceName, kind: &str, new: impl FnOnce() -> candle_core::Result<Device>) -> Result<Device> {
    let refuse = |reason: String| NnError::NoDevice { name, reason };
    if !SUPPORTED.contains(&kind) {
        let reason = format!("this build does not support it; build with `cargo build --release --features {kind}`");
        return Err(refuse(reason));
    }
    let works = |device: Device| {
        let three = Tensor::new(&[1f32, 2.0], &device)?.sum_all()?.to_scalar::<f32>()?;
        if three == 3.0 { Ok(device) } else { candle_core::bail!("the device computes 1 + 2 = {three}") }
    };
    new().and_then(works).map_err(|error| refuse(error.to_string()))
}
