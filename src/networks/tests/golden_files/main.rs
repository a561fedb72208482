//! Comparison of the models with their public implementations, by the golden files in `tests/golden`.

use std::path::PathBuf;

use candle_core::Device;
use flowmill_networks::parity::{self, GoldenFile, ParityError, known_models};
use flowmill_nn::{device, testing};

fn golden_files() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    files
}

#[test]
fn every_golden_file_is_equal_to_the_public_implementation() {
    check_all(&Device::Cpu);
}

#[test]
fn every_golden_file_is_equal_to_the_public_implementation_by_composition() {
    device::by_composition(|| check_all(&Device::Cpu));
}

/// Runs only if the environment names a device.
#[test]
fn every_golden_file_is_equal_to_the_public_implementation_on_a_device() {
    if let Some(device) = testing::test_device().unwrap() {
        check_all(&device);
    }
}

fn check_all(device: &Device) {
    let mut checked = std::collections::BTreeSet::new();
    for path in golden_files() {
        let file = GoldenFile::read(&path).unwrap().on(device.clone());
        let model = file.model().to_owned();
        let report = match parity::check(&file) {
            Ok(report) => report,
            // Files for other tests.
            Err(ParityError::UnknownModel { .. }) => continue,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        for worst in report.worst() {
            println!("{model}: {} {:.1e} ({})", worst.group, worst.error, worst.name);
        }
        let failing: Vec<_> = report.0.iter().filter(|comparison| !comparison.passes()).collect();
        assert!(failing.is_empty(), "{}: {failing:?}", path.display());
        checked.insert(model);
    }
    assert_eq!(checked.into_iter().collect::<Vec<_>>(), known_models().collect::<Vec<_>>(), "a model without a file");
}

mod generated;

#[test]
fn files_of_other_dimensions_batches_lengths_and_masks_pass() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..8 {
        let path = folder.path().join(format!("{number}.safetensors"));
        generated::write(&path, number);
        let file = GoldenFile::read(&path).unwrap();
        let report = parity::check(&file).unwrap_or_else(|error| panic!("file {number}: {error}"));
        assert!(report.passes(), "file {number}: {:?}", report.worst());
        assert_eq!(report.0.len(), file.gradient_names().count() + 4, "all gradients, loss, encoder, prediction, mel");
    }
}
