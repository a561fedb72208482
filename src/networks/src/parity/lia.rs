//! LIA as FLOAT uses it: the encoder of appearance and motion, and the decoder.

use candle_core::Tensor;
use flowmill_extract::extractors::lia::{Checkpoint, Directions, Features, LiaDecoder, LiaEncoder};
use flowmill_nn::host;

use super::{GoldenFile, ParityError, Report, Result};

/// Compares the encoder's outputs and the directions of motion.
pub(super) fn check_encoder(file: &GoldenFile) -> Result<Report> {
    let checkpoint = checkpoint(file)?;
    let (encoder, directions) = (LiaEncoder::new(&checkpoint)?, Directions::new(&checkpoint)?);
    let (mut appearance, mut coefficients, mut motion) = (Vec::new(), Vec::new(), Vec::new());
    for picture in items(file, "in.image")? {
        let encoded = encoder.encode(&picture)?;
        motion.extend(directions.motion(&encoded.coefficients));
        appearance.extend(encoded.appearance);
        coefficients.extend(encoded.coefficients);
    }
    let mut report = Report::default();
    compare(&mut report, file, "out.Q", directions.factor().as_slice().to_vec())?;
    compare(&mut report, file, "out.appearance", appearance)?;
    compare(&mut report, file, "out.motion_coefficients", coefficients)?;
    compare(&mut report, file, "out.motion", motion)?;
    Ok(report)
}

/// Compares the encoder's features and the decoder's pictures. Gradients are not: the decoder runs forward only.
pub(super) fn check_decoder(file: &GoldenFile) -> Result<Report> {
    let checkpoint = checkpoint(file)?;
    let (encoder, directions) = (LiaEncoder::new(&checkpoint)?, Directions::new(&checkpoint)?);
    let decoder = LiaDecoder::new(&checkpoint)?;
    let mut report = Report::default();

    let (mut appearance, mut coefficients, mut motion) = (Vec::new(), Vec::new(), Vec::new());
    let levels = checkpoint.dimensions().channels.len() - 1;
    let mut features: Vec<Vec<f32>> = vec![Vec::new(); levels];
    for picture in items(file, "in.image")? {
        let encoded = encoder.encode(&picture)?;
        motion.extend(directions.motion(&encoded.coefficients));
        appearance.extend(encoded.appearance);
        coefficients.extend(encoded.coefficients);
        features.iter_mut().zip(encoded.features.elements()).for_each(|(all, found)| all.extend(found));
    }
    compare(&mut report, file, "out.s_r", appearance)?;
    compare(&mut report, file, "out.r_s_lambda", coefficients)?;
    compare(&mut report, file, "out.r_s", motion)?;
    // The inputs of the decoder are the outputs of the encoder.
    for (level, found) in features.into_iter().enumerate() {
        compare(&mut report, file, &format!("in.feats.{level}"), found)?;
    }

    let motions = |name: &str| -> Result<Vec<Vec<f32>>> {
        Ok(items(file, name)?.iter().map(|coefficients| directions.motion(coefficients)).collect())
    };
    let styles = items(file, "in.wa")?;
    let [source, start, target] = ["in.alpha_source", "in.alpha_start", "in.alpha_target"].map(motions);
    let (source, start, target) = (source?, start?, target?);
    let features = given_features(file, levels, styles.len())?;
    let decode = |style: &dyn Fn(usize, usize) -> f32| {
        let item = |item: usize| {
            let style: Vec<f32> = (0..styles[item].len()).map(|place| style(item, place)).collect();
            Ok(decoder.decode(&style, &features[item])?)
        };
        (0..styles.len()).map(item).collect::<Result<Vec<_>>>()
    };
    let plain = decode(&|item, place| styles[item][place])?;
    let pictures: Vec<f32> = plain.iter().flat_map(|decoded| &decoded.picture).copied().collect();
    compare(
        &mut report,
        file,
        "out.flow",
        plain.iter().flat_map(|decoded| decoded.flow.iter().flatten()).copied().collect(),
    )?;
    let errors = pictures.iter().zip(items(file, "in.target")?.concat()).map(|(a, b)| f64::from(a - b).powi(2));
    let loss = errors.sum::<f64>() / pictures.len().max(1) as f64;
    compare(&mut report, file, "out.loss", vec![loss as f32])?;
    compare(&mut report, file, "out.image", pictures)?;
    let moved = decode(&|item, place| styles[item][place] + target[item][place])?;
    compare(&mut report, file, "out.image_alpha", moved.into_iter().flat_map(|decoded| decoded.picture).collect())?;
    let relative =
        decode(&|item, place| styles[item][place] + (target[item][place] - start[item][place]) + source[item][place])?;
    compare(&mut report, file, "out.image_alpha3", relative.into_iter().flat_map(|decoded| decoded.picture).collect())?;
    Ok(report)
}

/// Returns the weights of the file.
fn checkpoint(file: &GoldenFile) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::of_state_dict(file.parameters())?;
    let found = checkpoint.dimensions();
    file.expect_sizes(&[("size", found.size()), ("style_dim", found.style), ("motion_dim", found.directions)])?;
    Ok(checkpoint)
}

/// Returns the elements of each item of a tensor.
fn items(file: &GoldenFile, name: &str) -> Result<Vec<Vec<f32>>> {
    let tensor = file.tensor(name)?;
    if tensor.rank() < 2 || tensor.dtype() != candle_core::DType::F32 {
        return Err(ParityError::tensor(name, format!("{:?}", tensor.dims()), "floats with an axis of items"));
    }
    Ok(tensor.flatten_from(1)?.to_vec2()?)
}

/// Returns the features of each item.
fn given_features(file: &GoldenFile, levels: usize, count: usize) -> Result<Vec<Features>> {
    let mut features: Vec<Vec<(Vec<f32>, usize)>> = vec![Vec::new(); count];
    for level in 0..levels {
        let name = format!("in.feats.{level}");
        let channels = file.floats(&name, 4)?.dims()[1];
        for (all, elements) in features.iter_mut().zip(items(file, &name)?) {
            all.push((elements, channels));
        }
    }
    features.iter().map(|levels| Ok(Features::of(levels)?)).collect()
}

/// Compares numbers with a tensor of the same number of elements.
pub(super) fn compare(report: &mut Report, file: &GoldenFile, name: &str, found: Vec<f32>) -> Result<()> {
    let expected = file.tensor(name)?;
    if found.len() != expected.elem_count() {
        return Err(ParityError::tensor(name, format!("{:?}", expected.dims()), format!("{} numbers", found.len())));
    }
    let found: Tensor = host::tensor(found, expected.dims())?;
    report.output(name, &found, expected)
}
