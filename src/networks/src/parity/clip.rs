//! CLIP: states, embeddings, similarities and the contrastive loss.

use candle_core::{Device, Tensor};
use flowmill_nn::init::Builder;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Value, host};

use super::{GoldenFile, ParityError, Report, Result, settings};
use crate::clip::{Clip, ClipConfig, ImageConfig, TextConfig, cosine_similarities, normalized};
use crate::stable_diffusion::channels_last;

/// Compares everything that the file expects.
pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let text: TextConfig = settings(file, &["text"])?;
    let image: ImageConfig = settings(file, &["vision"])?;
    let config = ClipConfig { text, image, projection_dim: file.size(&["projection_dim"])? };
    refuse_lies(file, &config)?;
    let mut parameters = Parameters::new();
    let model = Clip::new(Builder::new(&mut parameters, RngKey::new(0)), &config)?;
    file.load(&mut parameters)?;
    let context = Context::inference(&parameters);
    let images = channels_last(file.floats("in.pixel_values", 4)?)?;
    let texts = texts(file)?;
    let mut report = Report::default();

    let states = model.texts().forward(&context, &texts)?;
    report.output("out.text_hidden", states.hidden.tensor(), file.floats("out.text_hidden", 3)?)?;
    let expected = file.floats("out.text_hidden_penultimate", 3)?;
    report.output("out.text_hidden_penultimate", states.penultimate.tensor(), expected)?;
    let states = model.images().forward(&context, &images)?;
    report.output("out.image_hidden", states.hidden.tensor(), file.floats("out.image_hidden", 3)?)?;

    let (of_images, of_texts) = (model.embed_images(&context, &images)?, model.embed_texts(&context, &texts)?);
    for (name, features) in [("image", &of_images), ("text", &of_texts)] {
        let (plain, unit) = (format!("out.{name}_features"), format!("out.{name}_embeds"));
        report.output(&plain, features.tensor(), file.floats(&plain, 2)?)?;
        report.output(&unit, normalized(features)?.tensor(), file.floats(&unit, 2)?)?;
    }
    let cosines = cosine_similarities(&of_images, &of_texts)?;
    report.output("out.cosine", cosines.tensor(), file.floats("out.cosine", 2)?)?;
    let logits = cosines.affine(model.scale(&context)?, 0.0)?;
    report.output("out.logits_per_image", logits.tensor(), file.floats("out.logits_per_image", 2)?)?;
    let loss = Tensor::from_vec(vec![contrastive(&logits)?], 1, &Device::Cpu)?;
    report.output("out.loss", &loss, file.floats("out.loss", 1)?)?;
    Ok(report)
}

/// Compares the sizes of the configuration with the weights.
fn refuse_lies(file: &GoldenFile, config: &ClipConfig) -> Result<()> {
    let ClipConfig { text, image, projection_dim } = config;
    let (text_width, image_width) = (text.hidden_size, image.hidden_size);
    file.expect_weight("text_model.embeddings.token_embedding.weight", &[text.vocab_size, text_width])?;
    let positions = [text.max_position_embeddings, text_width];
    file.expect_weight("text_model.embeddings.position_embedding.weight", &positions)?;
    file.expect_weight("text_model.encoder.layers.0.mlp.fc1.weight", &[text.intermediate_size, text_width])?;
    file.expect_modules("text_model.encoder.layers", text.num_hidden_layers)?;
    let patch = [image_width, image.num_channels, image.patch_size, image.patch_size];
    file.expect_weight("vision_model.embeddings.patch_embedding.weight", &patch)?;
    let across = image.image_size / image.patch_size.max(1);
    let positions = [across.saturating_mul(across).saturating_add(1), image_width];
    file.expect_weight("vision_model.embeddings.position_embedding.weight", &positions)?;
    file.expect_weight("vision_model.encoder.layers.0.mlp.fc1.weight", &[image.intermediate_size, image_width])?;
    file.expect_modules("vision_model.encoder.layers", image.num_hidden_layers)?;
    file.expect_weight("text_projection.weight", &[*projection_dim, text_width])
}

fn texts(file: &GoldenFile) -> Result<Vec<Vec<u32>>> {
    let ids = file.integers("in.input_ids")?;
    let length = file.tensor("in.input_ids")?.dims().last().copied().unwrap_or(0);
    let token = |id: &i64| {
        u32::try_from(*id).map_err(|_| ParityError::tensor("in.input_ids", format!("holding {id}"), "tokens"))
    };
    ids.chunks_exact(length.max(1)).map(|ids| ids.iter().map(token).collect()).collect()
}

/// Returns the mean of the cross entropies of rows and of columns, whose targets are on the diagonal.
fn contrastive(logits: &Value) -> Result<f32> {
    let logits = Value::plain(host::fetch(logits.tensor())?)?;
    let count = logits.rows();
    let targets: Vec<u32> = (0..count as u32).collect();
    let weights = vec![1.0 / count.max(1) as f32; count];
    let rows = logits.cross_entropy(&targets, &weights)?.scalar()?;
    let columns = logits.transpose()?.cross_entropy(&targets, &weights)?.scalar()?;
    Ok((rows + columns) / 2.0)
}
