//! The options of `flowmill synth` about its vocoder.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flowmill_networks::vocoders::VocoderKind;
use flowmill_runner::from_yaml;
use serde_json::{Value, json};

use crate::args::{SynthArgs, VocoderName};
use crate::failure::Failure;

/// The largest configuration that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// Returns the model's option `vocoder`; `None` for Griffin-Lim.
///
/// # Errors
/// Returns an error if files are missing or belong to no vocoder, or the configuration cannot be read.
pub fn options(arguments: &SynthArgs) -> Result<Option<Value>, Failure> {
    let Some(kind) = kind(arguments.vocoder) else {
        let files = [("weights", &arguments.vocoder_weights), ("config", &arguments.vocoder_config)];
        return match files.into_iter().find(|(_, file)| file.is_some()) {
            Some((what, _)) => Err(Failure::usage(format!(
                "--vocoder-{what} needs --vocoder hift, --vocoder hifigan or --vocoder vocos"
            ))),
            None => Ok(None),
        };
    };
    let Some(weights) = &arguments.vocoder_weights else {
        let name = kind.name();
        return Err(Failure::usage(format!("--vocoder {name} needs --vocoder-weights FILE, its public weights")));
    };
    let config = match arguments.vocoder_config.clone().or_else(|| beside(weights, kind)) {
        Some(file) => read(&file).map_err(Failure::Failed)?,
        None => Value::Null,
    };
    let weights =
        serde_json::to_value(weights).map_err(|error| Failure::usage(format!("--vocoder-weights: {error}")))?;
    Ok(Some(json!({"kind": kind, "weights": weights, "config": config})))
}

fn kind(name: VocoderName) -> Option<VocoderKind> {
    match name {
        VocoderName::GriffinLim => None,
        VocoderName::Hift => Some(VocoderKind::Hift),
        VocoderName::Hifigan => Some(VocoderKind::Hifigan),
        VocoderName::Vocos => Some(VocoderKind::Vocos),
    }
}

/// Returns the public configuration next to the weights, if there is one.
fn beside(weights: &Path, kind: VocoderKind) -> Option<PathBuf> {
    Some(weights.with_file_name(kind.config_file()?)).filter(|file| file.is_file())
}

/// Reads JSON or YAML; JSON is YAML.
fn read(path: &Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(LARGEST + 1).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() as u64 > LARGEST {
        anyhow::bail!("{}: larger than {LARGEST} bytes, so this is no configuration", path.display());
    }
    Ok(from_yaml(&text, &path.display().to_string())?)
}
