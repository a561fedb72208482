//! Structural similarity and signal-to-noise ratio of images, as torchmetrics and scikit-image compute them.

use candle_core::{Device, Tensor};
use flowmill_image::measure::{Planes, SsimSettings, peak_signal_to_noise, ssim, ssim_map};
use flowmill_nn::host;

use super::{GoldenFile, Report, Result};

/// Compares everything that the file expects.
pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let [a, b] = ["in.image0", "in.image1"].map(|name| images(file, name));
    let (a, b) = (a?, b?);
    let mut report = Report::default();
    let vector = |values: Vec<f64>| {
        let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
        let count = values.len();
        Tensor::from_vec(values, count, &Device::Cpu)
    };
    let settings = [
        ("out.tm_ssim", SsimSettings::torchmetrics()),
        ("out.tm_ssim_uniform7", SsimSettings::torchmetrics_uniform(7)),
        ("out.sk_ssim", SsimSettings::scikit()),
        ("out.sk_ssim_gaussian", SsimSettings::scikit_gaussian()),
    ];
    for (name, settings) in settings {
        let found =
            a.iter().zip(&b).map(|(a, b)| ssim(a, b, &settings)).collect::<std::result::Result<Vec<f64>, _>>()?;
        if name == "out.tm_ssim" {
            let mean = found.iter().sum::<f64>() / found.len().max(1) as f64;
            report.output("out.tm_ssim_mean", &vector(vec![mean])?, file.floats("out.tm_ssim_mean", 1)?)?;
        }
        report.output(name, &vector(found)?, file.floats(name, 1)?)?;
    }
    let grey = |planes: &Planes| planes.channel(0);
    let found = a.iter().zip(&b).map(|(a, b)| ssim(&grey(a)?, &grey(b)?, &SsimSettings::scikit()));
    let found = found.collect::<std::result::Result<Vec<f64>, flowmill_image::ImageError>>()?;
    report.output("out.sk_ssim_grey", &vector(found)?, file.floats("out.sk_ssim_grey", 1)?)?;

    let expected = file.floats("out.sk_ssim_map", 3)?;
    for (a, b) in a.iter().zip(&b).take(1) {
        let map = ssim_map(a, b, &SsimSettings::scikit())?;
        let (shape, map) = (map.size().to_vec(), map.elements().iter().map(|value| *value as f32).collect::<Vec<_>>());
        report.output("out.sk_ssim_map", &Tensor::from_vec(map, shape, &Device::Cpu)?, expected)?;
    }

    let errors: Vec<f64> =
        a.iter().zip(&b).map(|(a, b)| a.mean_square_error(b)).collect::<std::result::Result<_, _>>()?;
    let whole = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    report.output(
        "out.tm_psnr_batch",
        &vector(vec![peak_signal_to_noise(whole)])?,
        file.floats("out.tm_psnr_batch", 1)?,
    )?;
    let each = errors.into_iter().map(peak_signal_to_noise).collect();
    report.output("out.psnr", &vector(each)?, file.floats("out.psnr", 1)?)?;
    Ok(report)
}

/// Returns the images of a tensor `[item, channel, height, width]`.
fn images(file: &GoldenFile, name: &str) -> Result<Vec<Planes>> {
    let batch = file.floats(name, 4)?;
    let [_, channels, height, width] = [batch.dims()[0], batch.dims()[1], batch.dims()[2], batch.dims()[3]];
    let elements = host::read(&batch.permute((0, 2, 3, 1))?.contiguous()?)?;
    let image = |elements: &[f32]| {
        let elements = elements.iter().map(|x| f64::from(*x)).collect();
        Ok(Planes::new(elements, [height, width, channels])?)
    };
    elements.chunks_exact((channels * height * width).max(1)).map(image).collect()
}
