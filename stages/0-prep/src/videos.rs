//! Videos of rows: their container is read and their first frame decoded, so that later stages meet no surprise in them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use flowmill_audio::Decoder;
use flowmill_corpus::source::PipeLimits;
use flowmill_corpus::{MediaRef, Role, Utterance};
use flowmill_runner::{PartWork, RejectionReason, StageError};
use flowmill_video::info::{self, VideoInfo};
use rayon::prelude::*;

use crate::columns::Media;

/// The facts of a video, or the reason why it cannot be used.
pub type Opened = Arc<Result<VideoInfo, RejectionReason>>;

/// Opens every video of these rows once, in parallel; the result is by the name in the rows.
///
/// # Errors
/// When the work is interrupted.
pub fn open<'m>(
    media: impl Iterator<Item = &'m Media>,
    root: &Path,
    decoder: Decoder,
    work: &PartWork,
) -> Result<BTreeMap<String, Opened>, StageError> {
    let mut names: Vec<&MediaRef> = media.filter_map(|media| media.get(&Role::Video)).flatten().collect();
    names.sort_unstable();
    names.dedup();
    let opened = names.into_par_iter().map(|video| {
        if work.interrupted() {
            return Err(StageError::Interrupted);
        }
        Ok((video.0.clone(), Arc::new(open_one(video, root, decoder))))
    });
    opened.collect()
}

fn open_one(video: &MediaRef, root: &Path, decoder: Decoder) -> Result<VideoInfo, RejectionReason> {
    let bytes = video.source().read(root, &PipeLimits::default()).map_err(|error| {
        RejectionReason::of(format!("unreadable video: {}: {error}", video.0), error.is_of_machine())
    })?;
    info::check(&bytes, &video.0, decoder)
        .map_err(|error| RejectionReason::of(format!("unreadable video: {error}"), error.is_of_machine()))
}

/// Adds the facts of its video to a row: a video without sound is no recording; the length of a row without a recording is that of its
/// video. `program` is the fallback, which becomes the row's decoder if its frames need it.
///
/// # Errors
/// Why the row cannot be used.
pub fn complete(
    row: &mut Utterance,
    video: &MediaRef,
    opened: &Opened,
    program: Option<&str>,
) -> Result<(), RejectionReason> {
    let info = (**opened).as_ref().map_err(Clone::clone)?;
    if row.wav == video.0 && info.has_no_sound() {
        row.wav.clear();
    }
    if info.needs_fallback {
        row.decoder = program.map(str::to_owned);
    }
    // The length of a foreign container shows only when it is decoded.
    let Some(seconds) = info.seconds else { return Ok(()) };
    let (start, end) = (row.start.unwrap_or(0.0), row.end.unwrap_or(seconds));
    if start >= seconds || end > seconds + crate::probe::MAX_OVERSHOOT {
        return Err(format!("segment outside its video: {start} s to {end} s of {seconds:.3} s").into());
    }
    if row.end.is_some() {
        row.end = Some(end.min(seconds));
    }
    if row.wav.is_empty() {
        row.duration = Some(end.min(seconds) - start);
    }
    Ok(())
}
