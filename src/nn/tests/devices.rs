//! Devices: opening and listing them, and candle's operations on the one that `FLOWMILL_TEST_DEVICE` names.

use candle_core::{DType, Device, Tensor};
use flowmill_nn::device::{DeviceName, open};
use flowmill_nn::random::RngKey;
use flowmill_nn::{NnError, devices, testing};

/// The device to test, unless it is the CPU.
fn tested() -> Option<(String, Device)> {
    let name = std::env::var(testing::DEVICE).ok()?;
    let device = open(name.parse().unwrap()).unwrap();
    assert!(!device.is_cpu());
    Some((name, device))
}

/// A matrix of normal draws on the CPU.
fn matrix(purpose: &str, rows: usize, columns: usize) -> Tensor {
    let draws = RngKey::new(5).purpose(purpose).normals(rows * columns);
    Tensor::from_vec(draws, (rows, columns), &Device::Cpu).unwrap()
}

/// All elements in double precision.
fn elements(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    for name in [DeviceName::Cuda(0), DeviceName::Cuda(63), DeviceName::Metal] {
        match open(name) {
            Ok(device) => assert!(!device.is_cpu(), "{name}"),
            Err(error) => assert!(matches!(error, NnError::NoDevice { .. }), "{error}"),
        }
    }
    assert!(open(DeviceName::Cuda(63)).is_err());
    open(DeviceName::Auto).unwrap();
}

#[test]
fn the_tested_device_is_listed_with_its_memory() {
    let Some((name, _)) = tested() else { return };
    let found = devices::list().into_iter().filter_map(|backend| backend.devices.ok()).flatten();
    let device = found.into_iter().find(|device| device.name == name).unwrap();
    if let Some(memory) = device.memory {
        assert!(0 < memory.free && memory.free <= memory.total, "{memory:?}");
    }
}

#[test]
fn a_product_and_a_softmax_equal_those_of_the_cpu_in_every_type() {
    let Some((_, device)) = tested() else { return };
    let (a, b) = (matrix("a", 37, 65), matrix("b", 65, 29));
    let compute = |device: &Device, dtype: DType| {
        let on = |tensor: &Tensor| tensor.to_dtype(dtype).unwrap().to_device(device).unwrap();
        let product = on(&a).matmul(&on(&b)).unwrap();
        let exponentials = product.broadcast_sub(&product.max_keepdim(1).unwrap()).unwrap().exp().unwrap();
        elements(&exponentials.broadcast_div(&exponentials.sum_keepdim(1).unwrap()).unwrap())
    };
    let expected = compute(&Device::Cpu, DType::F64);
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5), (DType::BF16, 0.1), (DType::F16, 2e-2)] {
        let apart = testing::worst(&compute(&device, dtype), &expected);
        assert!(apart < tolerance, "{dtype:?}: {apart:e}");
    }
}

#[test]
fn memory_that_a_device_does_not_have_is_an_error() {
    let Some((_, device)) = tested() else { return };
    assert!(Tensor::zeros(1 << 45, DType::F32, &device).is_err());
    // The device still works.
    assert_eq!(Tensor::ones(1000, DType::F32, &device).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 1000.0);
}
