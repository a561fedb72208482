//! Vocoders: HiFT, HiFi-GAN and Vocos.

use candle_core::Tensor;
use flowmill_audio::features::Features;
use flowmill_nn::{Value, host};

use super::lia::compare;
use super::{GoldenFile, ParityError, Report, Result, settings};
use crate::vocoders::hifigan::Hifigan;
use crate::vocoders::hift::{Hift, SourceDraws};
use crate::vocoders::vocos::{Vocos, VocosSettings};

pub(super) fn check_hifigan(file: &GoldenFile) -> Result<Report> {
    let vocoder = Hifigan::new(file.parameters(), &settings(file, &[])?, file.device())?;
    file.expect_sizes(&[("num_mels", mel_bands(&vocoder))])?;
    let mut samples = Vec::new();
    for mel in frames_first(file, "in.mel")? {
        samples.extend(vocoder.decode(&mel)?);
    }
    let mut report = Report::default();
    compare(&mut report, file, "out.wav", samples)?;
    Ok(report)
}

fn mel_bands(vocoder: &impl crate::vocoders::Vocoder) -> usize {
    vocoder.mel_form().n_mels
}

pub(super) fn check_hift(file: &GoldenFile) -> Result<Report> {
    let vocoder = Hift::new(file.parameters(), &settings(file, &[])?, file.device())?;
    file.expect_sizes(&[("in_channels", mel_bands(&vocoder))])?;
    let mels = frames_first(file, "in.mel")?;
    let inputs = ["in.phase", "in.noise_sine", "in.cache_source"].map(|name| items(file, name, mels.len()));
    let [phases, noise, caches] = inputs;
    let (phases, noise, caches) = (phases?, noise?, caches?);
    let mut found: [Vec<f32>; 6] = Default::default();
    let [pitches, sines, sources, samples, cached, continued] = &mut found;
    for (item, mel) in mels.iter().enumerate() {
        let draws = SourceDraws::Given { phases: &phases[item], noise: &noise[item] };
        let pitch = vocoder.pitch(mel)?;
        sines.extend(vocoder.source().sines(&pitch, &draws)?);
        let mut source = vocoder.source().signal(&pitch, &draws)?;
        sources.extend(&source);
        samples.extend(vocoder.decode(mel, &source)?);
        // The first samples are those of an earlier call.
        source.iter_mut().zip(&caches[item]).for_each(|(sample, cached)| *sample = *cached);
        cached.extend(&source);
        continued.extend(vocoder.decode(mel, &source)?);
        pitches.extend(pitch);
    }
    let mut report = Report::default();
    let names = ["out.f0", "out.sine", "out.source", "out.wav", "out.source_cached", "out.wav_cached"];
    for (name, found) in names.into_iter().zip(found) {
        compare(&mut report, file, name, found)?;
    }
    let mut inverse = Vec::new();
    let polar = ["in.istft_magnitude", "in.istft_phase"].map(|name| frames_first(file, name));
    let [magnitudes, angles] = polar;
    for (magnitudes, angles) in magnitudes?.iter().zip(&angles?) {
        let [magnitudes, angles] = [magnitudes, angles].map(|value| host::read(value.tensor()));
        inverse.extend(vocoder.inverse_transform(&magnitudes?, &angles?)?);
    }
    compare(&mut report, file, "out.istft_wav", inverse)?;
    Ok(report)
}

pub(super) fn check_vocos(file: &GoldenFile) -> Result<Report> {
    let settings = VocosSettings::from_config(file.config())?;
    let vocoder = Vocos::new(file.parameters(), &settings, file.device())?;
    let mut report = Report::default();
    let mut samples = Vec::new();
    for frames in values(file, "in.head_x")? {
        samples.extend(vocoder.head(&frames)?);
    }
    compare(&mut report, file, "out.head_wav", samples)?;
    match file.find("in.codes") {
        Some(_) => check_codes(file, &vocoder, &mut report)?,
        None => check_mels(file, &vocoder, &mut report)?,
    }
    Ok(report)
}

fn check_mels(file: &GoldenFile, vocoder: &Vocos, report: &mut Report) -> Result<()> {
    let mut found: [Vec<f32>; 4] = Default::default();
    let [features, copies, backbone, samples] = &mut found;
    for audio in file.floats("in.audio", 2)?.to_vec2::<f32>()? {
        let mel = vocoder.features_of_audio(&audio)?;
        copies.extend(vocoder.decode(&value(&mel)?, 0)?);
        features.extend(mel.transposed());
    }
    for mel in frames_first(file, "in.features")? {
        backbone.extend(host::read(vocoder.backbone(&mel, 0)?.tensor())?);
        samples.extend(vocoder.decode(&mel, 0)?);
    }
    let names = ["out.features", "out.wav_copy", "out.backbone", "out.wav"];
    names.into_iter().zip(found).try_for_each(|(name, found)| compare(report, file, name, found))
}

fn check_codes(file: &GoldenFile, vocoder: &Vocos, report: &mut Report) -> Result<()> {
    let all = codes(file)?;
    let few = file.size(&["feature_extractor", "codes_of_bandwidth_0"])?;
    let mut few_samples = Vec::new();
    let (mut features, mut few_features) = (Vec::new(), Vec::new());
    let expected = |prefix: &str| file.names().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect();
    let bandwidths: Vec<usize> = expected("out.wav_bandwidth_");
    let backbones: Vec<usize> = expected("out.backbone_bandwidth_");
    let mut samples: Vec<Vec<f32>> = vec![Vec::new(); bandwidths.len()];
    let mut frames: Vec<Vec<f32>> = vec![Vec::new(); backbones.len()];
    for codes in &all {
        let embedded = vocoder.features_of_codes(codes)?;
        features.extend(bands_first(&embedded)?);
        for (samples, bandwidth) in samples.iter_mut().zip(&bandwidths) {
            samples.extend(vocoder.decode(&embedded, *bandwidth)?);
        }
        for (frames, bandwidth) in frames.iter_mut().zip(&backbones) {
            frames.extend(host::read(vocoder.backbone(&embedded, *bandwidth)?.tensor())?);
        }
        let embedded = vocoder.features_of_codes(&codes[..few.min(codes.len())])?;
        few_features.extend(bands_first(&embedded)?);
        few_samples.extend(vocoder.decode(&embedded, 0)?);
    }
    compare(report, file, "out.features", features)?;
    compare(report, file, "out.features_few", few_features)?;
    compare(report, file, "out.wav_few", few_samples)?;
    for (found, bandwidth) in samples.into_iter().zip(bandwidths) {
        compare(report, file, &format!("out.wav_bandwidth_{bandwidth}"), found)?;
    }
    for (found, bandwidth) in frames.into_iter().zip(backbones) {
        compare(report, file, &format!("out.backbone_bandwidth_{bandwidth}"), found)?;
    }
    Ok(())
}

/// Returns the codes `[codebook, item, frame]`, by item and codebook.
fn codes(file: &GoldenFile) -> Result<Vec<Vec<Vec<u32>>>> {
    let tensor = file.tensor("in.codes")?;
    let &[codebooks, count, frames] = tensor.dims() else {
        return Err(ParityError::tensor("in.codes", format!("{:?}", tensor.dims()), "[codebook, item, frame]"));
    };
    let codes = file.integers("in.codes")?;
    let code = |codebook: usize, item: usize, frame: usize| {
        u32::try_from(codes[(codebook * count + item) * frames + frame]).unwrap_or(u32::MAX)
    };
    let codebook = |item: usize, codebook: usize| (0..frames).map(|frame| code(codebook, item, frame)).collect();
    Ok((0..count).map(|item| (0..codebooks).map(|book| codebook(item, book)).collect()).collect())
}

/// Returns the values of each item, which all have the same number of elements.
fn items(file: &GoldenFile, name: &str, count: usize) -> Result<Vec<Vec<f32>>> {
    let tensor = file.tensor(name)?;
    let found = tensor.dims();
    if tensor.rank() < 2 || tensor.dtype() != candle_core::DType::F32 || found[0] != count {
        return Err(ParityError::tensor(name, format!("{found:?}"), format!("floats of {count} items")));
    }
    Ok(tensor.flatten_from(1)?.to_vec2()?)
}

/// Returns each item of `[item, frame, channel]`.
fn values(file: &GoldenFile, name: &str) -> Result<Vec<Value>> {
    let tensor = file.floats(name, 3)?;
    (0..tensor.dim(0)?).map(|item| Ok(Value::plain(tensor.get(item)?)?)).collect()
}

/// Returns each item of `[item, channel, frame]`, frames first.
fn frames_first(file: &GoldenFile, name: &str) -> Result<Vec<Value>> {
    let tensor = file.floats(name, 3)?;
    (0..tensor.dim(0)?).map(|item| Ok(Value::plain(tensor.get(item)?.t()?)?)).collect()
}

/// Returns frames `[frame, channel]` with the channels first.
fn bands_first(frames: &Value) -> Result<Vec<f32>> {
    Ok(host::read(&frames.tensor().t()?)?)
}

fn value(mel: &Features) -> Result<Value> {
    let tensor: Tensor = host::tensor(mel.data.clone(), &[mel.frames, mel.bins])?;
    Ok(Value::plain(tensor)?)
}
