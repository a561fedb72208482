//! The CAM++ speaker encoder.

use candle_core::{Device, Tensor};

use super::{GoldenFile, ParityError, Report, Result};
use flowmill_extract::extractors::campplus::Campplus;

pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let encoder = Campplus::from_state_dict(file.parameters(), file.device())?;
    expect_sizes(file, &encoder)?;
    let features = file.floats("in.feat", 3)?;
    let (items, frames, bands) = features.dims3()?;
    let dimensions = encoder.dimensions();
    if bands != dimensions.feat_dim || frames < Campplus::FEWEST_FRAMES {
        let expected = format!("[batch, {} or more, {}]", Campplus::FEWEST_FRAMES, dimensions.feat_dim);
        return Err(ParityError::tensor("in.feat", format!("{:?}", features.dims()), expected));
    }
    let recordings: Vec<Vec<f32>> = features.to_vec3::<f32>()?.iter().map(|item| item.concat()).collect();
    let recordings: Vec<&[f32]> = recordings.iter().map(Vec::as_slice).collect();
    let embeddings: Vec<f32> = encoder.embed_all(&recordings)?.into_iter().flatten().flatten().collect();
    let embeddings = Tensor::from_vec(embeddings, (items, dimensions.embedding_size), &Device::Cpu)?;
    let mut report = Report::default();
    report.output("out.embedding", &embeddings, file.floats("out.embedding", 2)?)?;
    Ok(report)
}

/// Checks that the sizes in the configuration are those of the weights.
fn expect_sizes(file: &GoldenFile, encoder: &Campplus) -> Result<()> {
    let own = encoder.dimensions();
    let sizes = [
        ("feat_dim", own.feat_dim),
        ("embedding_size", own.embedding_size),
        ("growth_rate", own.growth_rate),
        ("bn_size", own.bn_channels / own.growth_rate),
        ("init_channels", own.init_channels),
    ];
    for (name, own) in sizes {
        if file.value(&[name]).is_some() && file.size(&[name])? != own {
            return Err(ParityError::config(
                &[name],
                format!("is {}, but its weights have {own}", file.size(&[name])?),
            ));
        }
    }
    Ok(())
}
