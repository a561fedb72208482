//! Images of rows: each is decoded once per part, so that no later stage meets a broken one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use flowmill_audio::is_of_machine;
use flowmill_corpus::Role;
use flowmill_corpus::source::{PipeLimits, Source};
use flowmill_image::{ImageError, Limits};
use flowmill_runner::{PartWork, RejectionReason, StageError};
use rayon::prelude::*;

use crate::probe::CheckedExtra;

/// Decodes the images of rows and marks the rows whose images cannot be used; `root` is the recipe's folder.
///
/// # Errors
/// [`StageError::Interrupted`].
pub fn decode(rows: &mut BTreeMap<String, CheckedExtra>, root: &Path, work: &PartWork) -> Result<(), StageError> {
    let usable = rows.values().filter(|(_, checked)| checked.is_ok());
    let images: BTreeSet<String> =
        usable.filter_map(|(extra, _)| extra.media.get(&Role::Images)).flatten().map(|image| image.0.clone()).collect();
    let decoded = images.into_par_iter().map(|image| {
        if work.interrupted() {
            return Err(StageError::Interrupted);
        }
        Ok(decode_one(&image, root).err().map(|reason| (image, reason)))
    });
    let broken: Vec<Option<(String, RejectionReason)>> = decoded.collect::<Result<_, _>>()?;
    let broken: BTreeMap<String, RejectionReason> = broken.into_iter().flatten().collect();
    if broken.is_empty() {
        return Ok(());
    }
    for (extra, checked) in rows.values_mut().filter(|(_, checked)| checked.is_ok()) {
        let mut images = extra.media.get(&Role::Images).into_iter().flatten();
        if let Some(reason) = images.find_map(|image| broken.get(&image.0)) {
            *checked = Err(reason.clone());
        }
    }
    Ok(())
}

fn decode_one(image: &str, root: &Path) -> Result<(), RejectionReason> {
    let limits = Limits::default();
    let decoded = match Source::of(image) {
        Source::File(path) => flowmill_image::read(&root.join(path), &limits),
        source => {
            let bytes = source.read(root, &PipeLimits::default());
            let bytes = bytes.map_err(|error| {
                RejectionReason::of(format!("unreadable picture: {image}: {error}"), error.is_of_machine())
            })?;
            flowmill_image::decode(&bytes, &limits)
        }
    };
    decoded.map(drop).map_err(|error| {
        let of_machine = matches!(&error, ImageError::Unreadable(error) if is_of_machine(error));
        RejectionReason::of(format!("unreadable picture: {image}: {error}"), of_machine)
    })
}
