//! The phase before reading, if tar files of the data are compressed: each is decompressed once, because rows name their recordings by
//! positions.
//!
//! The tar files are results of the stage, `unpacked/SOURCE/SHARD/NAME.tar`, and need as much disk as the recordings.

use std::collections::BTreeMap;
use std::path::Path;

use flowmill_corpus::{Reading, Rejection, webdataset};
use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, StageError};

use crate::{Format, PrepConfig};

/// The folder of the tar files, in the folder of the stage.
pub const FOLDER: &str = "unpacked";

/// The tar files of compressed shards, by the shards' paths as the source names them.
pub type Unpacked = BTreeMap<String, String>;

/// A compressed shard.
struct Compressed {
    /// The shard's path, as the source names it.
    shard: String,
    /// The place of the tar file, relative to the stage's folder.
    output: String,
}

/// Returns the compressed shards of the data. A source that cannot be listed has none: reading rejects it.
fn compressed(config: &PrepConfig, root: &Path) -> Vec<Compressed> {
    let mut found = Vec::new();
    for (number, source) in config.data.iter().enumerate() {
        if config.format_of(source) != Format::Webdataset {
            continue;
        }
        let shards = webdataset::shards(root, &source.dir).unwrap_or_default().into_iter().enumerate();
        found.extend(shards.filter(|(_, shard)| webdataset::is_compressed(shard)).map(|(at, shard)| {
            let output = format!("{FOLDER}/{number}/{at:05}/{}", webdataset::unpacked_name(&shard));
            Compressed { shard, output }
        }));
    }
    found
}

/// Returns the places of the tar files, relative to the recipe's folder where they are below it.
pub fn unpacked(config: &PrepConfig, context: &PlanContext) -> Unpacked {
    let (root, stage) = (context.recipe_dir(), context.stage_dir(0));
    let place = |output: &str| {
        let path = stage.join(output);
        path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned()
    };
    compressed(config, root).into_iter().map(|Compressed { shard, output }| (shard, place(&output))).collect()
}

/// Plans the decompression, a part per shard.
pub fn phase(config: &PrepConfig, context: &PlanContext) -> Phase {
    let part = |Compressed { shard, output }: Compressed| {
        let from = context.resolve(&shard);
        // A key has no characters that file systems mind.
        let key = output.rsplit_once('/').map_or(output.as_str(), |(folder, _)| folder).to_owned();
        Part::new(key).input(from.clone()).work(move |work| unpack(work, &from, &shard, &output))
    };
    Phase::new("decompressing", compressed(config, context.recipe_dir()).into_iter().map(part).collect())
}

fn unpack(work: &PartWork, from: &Path, shard: &str, output: &str) -> Result<PartReport, StageError> {
    let to = work.output(output)?;
    let damage = webdataset::unpack(from, &to, &|| !work.interrupted()).map_err(StageError::other)?;
    if work.interrupted() {
        return Err(StageError::Interrupted);
    }
    if let Some(problem) = damage {
        let note = work.output(&damage_of(output))?;
        std::fs::write(&note, format!("{shard} {problem}")).map_err(|error| StageError::file(&note, error))?;
    }
    Ok(PartReport::summary())
}

/// Returns the file that says where the content of a tar file ends because its compressed form is damaged.
fn damage_of(tar: &str) -> String {
    format!("{tar}.damage")
}

/// Adds a rejection for each compressed shard that is damaged. If its tar file ends inside a member, that is the same damage.
pub fn reject_damaged(reading: &mut Reading, unpacked: &[(&String, &String)], root: &Path) {
    for (shard, tar) in unpacked {
        let Ok(problem) = std::fs::read_to_string(root.join(damage_of(tar))) else { continue };
        let reason = format!("damaged tar: {problem}; nothing after that was read");
        let rejection = Rejection { id: (*shard).clone(), reason };
        match reading.rejected.iter_mut().find(|rejected| rejected.id == **tar) {
            Some(rejected) => *rejected = rejection,
            None => {
                reading.rejected.push(rejection);
                reading.lines += 1;
            }
        }
    }
}
