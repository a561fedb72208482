//! The frozen networks: their folders, the check of these, and their checksum.

use std::path::{Path, PathBuf};

use flowmill_family::{Artifacts, BoxError, KeyError};
use flowmill_networks::llama::LlamaFileConfig;
use flowmill_networks::pmg::{Frozen, Pmg};
use flowmill_networks::pretrained::{Role, llama_config, map_weights};
use flowmill_nn::Parameters;

use super::config::{FrozenSettings, PmgModelConfig, way};
use super::options::{TINY, TrainOptions};
use crate::stable_diffusion::files::{DiffusionFiles, DiffusionSettings};

/// The folder of an exported model in an experiment.
const EXPORT: &str = "6-export";

/// The places of the frozen networks.
#[derive(Debug, Clone, PartialEq)]
pub struct Folders {
    /// The folder of the language model; none if it follows from a seed.
    pub llama: Option<PathBuf>,
    /// The diffusion model.
    pub diffusion: DiffusionFiles,
}

impl Folders {
    /// Returns the folders that options name, from the folder of the recipe on.
    pub fn of(options: &TrainOptions, root: &Path) -> Self {
        let llama = (options.llama != TINY).then(|| root.join(&options.llama));
        Self { llama, diffusion: DiffusionFiles::new(root.join(&options.stable_diffusion)) }
    }

    /// Returns all files that weights and settings are read from, in a fixed order.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = self.diffusion.all();
        if let Some(llama) = &self.llama {
            files.push(llama.join("config.json"));
            files.extend(flowmill_weights::files(llama));
        }
        files
    }

    /// Returns the checksum of all files, which does not depend on the place of the folders.
    ///
    /// # Errors
    /// The file that cannot be read.
    pub fn checksum(&self) -> Result<String, BoxError> {
        let mut hasher = blake3::Hasher::new();
        for path in self.files() {
            let about = |error: std::io::Error| format!("{}: {error}", path.display());
            let mut of_file = blake3::Hasher::new();
            let file = std::fs::File::open(&path).map_err(about)?;
            of_file.update_reader(file).map_err(about)?;
            hasher.update(of_file.finalize().as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Gives the parameters the weights in the folders, which stay in their files.
    ///
    /// # Errors
    /// When files are missing, damaged, of an unsupported type, or those of another network.
    pub fn map(&self, parameters: &mut Parameters) -> Result<(), BoxError> {
        self.diffusion.map_unet(parameters)?;
        if let Some(llama) = &self.llama {
            map_weights(llama, Role::Llama, parameters)?;
        }
        Ok(())
    }
}

/// Reads the settings of the frozen networks; the checksum is left empty.
fn settings(options: &TrainOptions, folders: &Folders) -> Result<FrozenSettings, KeyError> {
    let about = |key: &'static str| move |error: BoxError| KeyError::new(key, error.to_string());
    let DiffusionSettings { unet, autoencoder, schedule } =
        folders.diffusion.settings().map_err(about("train.stable_diffusion"))?;
    let llama: LlamaFileConfig = match &folders.llama {
        Some(folder) => llama_config(folder).map_err(|error| about("train.llama")(error.into()))?,
        None => options.tiny.file_config(),
    };
    llama.network().map_err(|error| about("train.llama")(error.into()))?;
    Ok(FrozenSettings {
        llama,
        llama_seed: folders.llama.is_none().then_some(options.tiny.seed),
        unet,
        autoencoder,
        schedule,
        checksum: String::new(),
        llama_folder: folders.llama.clone(),
        diffusion_folder: folders.diffusion.place().to_owned(),
        clip_folder: None,
        lpips_file: None,
    })
}

/// Checks the folders of the frozen networks: that all files are there, of a supported type, and fit each other. Only their headers
/// are read.
///
/// # Errors
/// The key of the first folder that cannot be used, with the reason.
pub fn check(config: &PmgModelConfig, options: &TrainOptions, root: &Path) -> Result<(), KeyError> {
    let folders = Folders::of(options, root);
    let known = settings(options, &folders)?;
    let unit = known.autoencoder.factor() << (known.unet.block_out_channels.len() - 1);
    if config.image_size == 0 || !config.image_size.is_multiple_of(unit) {
        let reason = format!("{} is not a multiple of {unit}, by which the networks halve images", config.image_size);
        return Err(KeyError::new("train.model.image_size", reason));
    }
    let complete = PmgModelConfig { frozen: Some(Box::new(known)), ..config.clone() };
    let wrong = |key: &str, error: BoxError| KeyError::new(key, error.to_string());
    let (_, mut parameters) = build(&complete, 0).map_err(|error| wrong("train.model", error))?;
    let diffusion = |error| wrong("train.stable_diffusion", error);
    folders.diffusion.map_unet(&mut parameters).map_err(diffusion)?;
    folders.diffusion.autoencoder(&candle_core::Device::Cpu).map_err(diffusion)?;
    if let Some(llama) = &folders.llama {
        map_weights(llama, Role::Llama, &mut parameters).map_err(|error| wrong("train.llama", error.into()))?;
    }
    Ok(())
}

/// Fills in what is known of the frozen networks.
///
/// # Errors
/// When their folders cannot be used.
pub fn complete(config: &mut PmgModelConfig, options: &TrainOptions, artifacts: &Artifacts) -> Result<(), BoxError> {
    if config.frozen.is_some() {
        return Ok(());
    }
    let folders = Folders::of(options, &artifacts.root);
    let mut known = settings(options, &folders)?;
    known.checksum = folders.checksum()?;
    let model = artifacts.packed.with_file_name(EXPORT);
    let from_model = |path: &Path| way(&model, path);
    known.llama_folder = known.llama_folder.as_deref().map(from_model);
    known.diffusion_folder = from_model(&known.diffusion_folder);
    known.clip_folder = options.clip.as_ref().map(|path| from_model(&artifacts.root.join(path)));
    known.lpips_file = options.lpips.as_ref().map(|path| from_model(&artifacts.root.join(path)));
    config.frozen = Some(Box::new(known));
    Ok(())
}

/// Creates the network. Weights of frozen networks that come from files are not loaded yet.
///
/// # Errors
/// When the settings cannot be used.
pub fn build(config: &PmgModelConfig, seed: u64) -> Result<(Pmg, Parameters), BoxError> {
    let frozen = match config.frozen()?.llama_seed {
        Some(seed) => Frozen::SeededLanguage(seed),
        None => Frozen::FromFiles,
    };
    Ok(Pmg::new(&config.network()?, frozen, seed)?)
}
