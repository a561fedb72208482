//! The EnCodec codec.

use candle_core::{Device, Tensor};
use flowmill_corpus::Array;
use flowmill_extract::Codec;
use flowmill_extract::extractors::encodec::{Checkpoint, EncodecDecoder, EncodecExtractor};

use super::dac::transposed;
use super::{GoldenFile, ParityError, Report, Result};

pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let codes = file.tensor("out.codes")?;
    let &[levels, frames] = codes.dims() else {
        return Err(ParityError::tensor("out.codes", format!("{:?}", codes.dims()), "[level, frame]"));
    };
    let checkpoint = Checkpoint::of(file.parameters(), levels)?;
    refuse_lies(file, &checkpoint)?;
    let encoder = EncodecExtractor::new(&checkpoint, file.device())?;
    let samples: Vec<f32> = file.floats("in.wav", 1)?.to_vec1()?;
    let encoded = encoder.encode(&samples)?;
    let mut report = Report::default();
    report.output("out.encoder", &transposed(&encoded)?, file.floats("out.encoder", 2)?)?;
    let found: Vec<i64> = encoder.quantize(&encoded).into_iter().flatten().map(i64::from).collect();
    let expected = file.integers("out.codes")?;
    report.exact("out.codes", &found, &expected);

    let decoder = EncodecDecoder::new(&checkpoint, file.device())?;
    let given: Vec<i32> = expected.iter().map(|code| i32::try_from(*code).unwrap_or(-1)).collect();
    let given = Array::new(vec![levels, frames], given);
    let given = given.map_err(|error| ParityError::tensor("out.codes", error.to_string(), "codes"))?;
    let decoded = decoder.decode(&given)?;
    let samples = decoded.len();
    report.output("out.decoded", &Tensor::from_vec(decoded, samples, &Device::Cpu)?, file.floats("out.decoded", 1)?)?;
    Ok(report)
}

/// Compares the configuration with the weights.
fn refuse_lies(file: &GoldenFile, checkpoint: &Checkpoint) -> Result<()> {
    let found = checkpoint.dimensions();
    file.expect_sizes(&[
        ("num_filters", found.filters),
        ("hidden_size", found.hidden),
        ("codebook_size", found.codes),
        ("codebook_dim", found.hidden),
    ])
}
