//! Measures of generated images: structural similarity, and where weights are given LPIPS and CLIP.

use std::path::Path;

use candle_core::Device;
use flowmill_family::BoxError;
use flowmill_image::measure::{Planes, SsimSettings, ssim};
use flowmill_image::{Filter, Raster};
use flowmill_networks::clip::{Clip, ClipConfig, cosine_similarities};
use flowmill_networks::extractors::clip_images;
use flowmill_networks::lpips::{Lpips, Trunk};
use flowmill_networks::pretrained::{self, Role, map_weights};
use flowmill_nn::init::Builder;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Value, host};

/// The smallest height and width of images that LPIPS compares; smaller ones are enlarged.
const LEAST_LPIPS: u32 = 64;

/// Returns the structural similarity of two images, in the form of torchmetrics.
///
/// # Errors
/// When the sizes differ.
pub fn structural(a: &Raster, b: &Raster) -> Result<f64, BoxError> {
    let planes = |image: &Raster| {
        let elements = image.pixels().iter().map(|byte| f64::from(*byte) / 255.0).collect();
        Planes::new(elements, [image.height() as usize, image.width() as usize, 3])
    };
    Ok(ssim(&planes(a)?, &planes(b)?, &SsimSettings::torchmetrics())?)
}

/// The networks that compare images.
#[derive(Default)]
pub struct Judges {
    lpips: Option<(Lpips, Parameters)>,
    clip: Option<(Clip, Parameters)>,
}

impl Judges {
    /// Opens the networks whose weights are given: a file of the package lpips, and the folder of a CLIP.
    ///
    /// # Errors
    /// When weights are missing or those of another network.
    pub fn open(lpips: Option<&Path>, clip: Option<&Path>, device: &Device) -> Result<Self, BoxError> {
        let lpips = lpips.map(|path| open_lpips(path, device)).transpose()?;
        Ok(Self { lpips, clip: clip.map(|path| open_clip(path, device)).transpose()? })
    }

    /// Returns the LPIPS distance of two images, if there are weights.
    ///
    /// # Errors
    /// When the sizes differ.
    pub fn perceptual(&self, a: &Raster, b: &Raster) -> Result<Option<f64>, BoxError> {
        let Some((network, parameters)) = &self.lpips else { return Ok(None) };
        let value = |image: &Raster| -> Result<Value, BoxError> {
            let size = LEAST_LPIPS.max(image.width().min(image.height()));
            let image = image.resize_shorter(size, Filter::Bilinear)?;
            let shape = [1, image.height() as usize, image.width() as usize, 3];
            Ok(Value::from_vec(image.to_signed(), &shape)?)
        };
        let distances = network.distances(&Context::inference(parameters), &value(a)?, &value(b)?)?;
        Ok(distances.total.first().map(|distance| f64::from(*distance)))
    }

    /// Returns the mean cosine of an image's CLIP embedding with those of others, if there are weights and others.
    ///
    /// # Errors
    /// When an image cannot be resized.
    pub fn similarity(&self, image: &Raster, others: &[Raster]) -> Result<Option<f64>, BoxError> {
        let Some((network, parameters)) = self.clip.as_ref().filter(|_| !others.is_empty()) else { return Ok(None) };
        let size = network.images().config().image_size;
        let embed = |images: &[Raster]| -> Result<Value, BoxError> {
            let mut values = Vec::new();
            for image in images {
                values.extend(clip_images::input(image, size)?);
            }
            let images = Value::from_vec(values, &[images.len(), size, size, 3])?;
            Ok(network.embed_images(&Context::inference(parameters), &images)?)
        };
        let cosines = host::read(cosine_similarities(&embed(std::slice::from_ref(image))?, &embed(others)?)?.tensor())?;
        Ok(Some(cosines.iter().map(|cosine| f64::from(*cosine)).sum::<f64>() / cosines.len().max(1) as f64))
    }
}

fn open_lpips(path: &Path, device: &Device) -> Result<(Lpips, Parameters), BoxError> {
    let mut parameters = Parameters::new();
    let network = Lpips::new(Builder::new(&mut parameters, RngKey::new(0)), Trunk::Alex)?;
    let report = parameters.load(&flowmill_weights::read(path)?.tensors)?;
    // The package's file also has the constants of its input.
    if !report.missing.is_empty() || !report.mismatched.is_empty() {
        return Err(format!(
            "train.lpips: {}: these are not the weights of LPIPS with AlexNet: {report}",
            path.display()
        )
        .into());
    }
    parameters.to_device(device)?;
    Ok((network, parameters))
}

fn open_clip(folder: &Path, device: &Device) -> Result<(Clip, Parameters), BoxError> {
    let config: ClipConfig = pretrained::clip_config(folder)?;
    let mut parameters = Parameters::new();
    let mut builder = Builder::new(&mut parameters, RngKey::new(0)).without_values();
    let network = Clip::new(builder.scope("clip"), &config)?;
    map_weights(folder, Role::Clip, &mut parameters)?;
    parameters.to_device(device)?;
    Ok((network, parameters))
}

/// Returns the mean of images of one size, pixel by pixel.
///
/// # Errors
/// When there is none, or the sizes differ.
pub fn mean_image(images: &[Raster]) -> Result<Raster, BoxError> {
    let first = images.first().ok_or("the mean of no image")?;
    let mut sums = vec![0u32; first.pixels().len()];
    for image in images {
        if (image.width(), image.height()) != (first.width(), first.height()) {
            return Err("the mean of images of different sizes".into());
        }
        sums.iter_mut().zip(image.pixels()).for_each(|(sum, byte)| *sum += u32::from(*byte));
    }
    let count = images.len() as u32;
    let mean = sums.into_iter().map(|sum| ((sum + count / 2) / count) as u8).collect();
    Ok(Raster::new(first.width(), first.height(), mean)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_image_is_the_mean_of_every_byte() {
        let image = |value: u8| Raster::new(16, 16, vec![value; 768]).unwrap();
        assert_eq!(mean_image(&[image(10), image(20), image(21)]).unwrap(), image(17));
        assert!(mean_image(&[]).is_err() && mean_image(&[image(1), Raster::new(1, 1, vec![0; 3]).unwrap()]).is_err());
        assert!((structural(&image(10), &image(10)).unwrap() - 1.0).abs() < 1e-12);
        let none = Judges::default();
        assert_eq!(none.perceptual(&image(1), &image(2)).unwrap(), None);
        assert_eq!(none.similarity(&image(1), &[image(2)]).unwrap(), None);
    }
}
