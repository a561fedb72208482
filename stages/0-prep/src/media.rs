//! Checks of videos and pictures: that they exist, can be read, and begin like their kind. Nothing is decoded.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use flowmill_audio::is_of_machine;
use flowmill_audio::media::{HEAD_BYTES, StandIn, stand_in};
use flowmill_corpus::codes::is_codes;
use flowmill_corpus::source::{MAX_MEMBER_BYTES, Source};
use flowmill_corpus::{MediaRef, Role};
use flowmill_runner::RejectionReason;

use crate::columns::Media;

/// Checks the media of a row; `root` is the recipe's folder.
///
/// # Errors
/// Returns the reason why the row cannot be used.
pub fn check(media: &Media, root: &Path) -> Result<(), RejectionReason> {
    media.iter().try_for_each(|(role, media)| media.iter().try_for_each(|medium| check_one(*role, medium, root)))
}

fn check_one(role: Role, medium: &MediaRef, root: &Path) -> Result<(), RejectionReason> {
    let what = match role {
        Role::Audio => "recording",
        Role::Video => "video",
        Role::Images => "picture",
        Role::Codes => "file of codes",
    };
    let name = &medium.0;
    let unreadable =
        |error: io::Error| RejectionReason::of(format!("unreadable {what}: {name}: {error}"), is_of_machine(&error));
    let (head, size) = head(&medium.source(), root).map_err(unreadable)?;
    if let Some(found) = stand_in(&head) {
        return Err(instead(found, what, name).into());
    }
    if size > MAX_MEMBER_BYTES {
        return Err(
            format!("unusable {what}: {name} has {size} bytes, but at most {MAX_MEMBER_BYTES} are supported").into()
        );
    }
    let (is_known, kinds) = match role {
        Role::Audio => (true, ""),
        Role::Video => (is_video(&head), "MP4, MOV, Matroska, WebM, AVI or MPEG"),
        Role::Images => (is_picture(&head), "PNG, JPEG, WebP, GIF, BMP or TIFF"),
        Role::Codes => (is_codes(&head) || is_tensors(&head), "NumPy, HDF5 or PyTorch"),
    };
    if is_known { Ok(()) } else { Err(format!("unusable {what}: {name} does not begin like {kinds}").into()) }
}

/// Describes other content in the place of a medium.
pub fn instead(found: StandIn, what: &str, name: &str) -> String {
    let kind = found.kind.trim_start_matches("an ").trim_start_matches("a ");
    format!("{kind} instead of a {what}: {name}; {}", found.advice)
}

/// Returns the first bytes of a medium, and its size.
fn head(source: &Source<'_>, root: &Path) -> io::Result<(Vec<u8>, u64)> {
    let (path, offset, length) = match source {
        Source::File(path) => (root.join(path), 0, None),
        Source::Member(member) => (root.join(member.archive), member.offset, Some(member.length)),
        // One utterance of many: the size of the file says nothing of it.
        Source::Cell(cell) => (root.join(cell.file), 0, Some(HEAD_BYTES as u64)),
        Source::Group(group) => (root.join(group.file), 0, Some(HEAD_BYTES as u64)),
        Source::Pipe(_) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "a command gives no file")),
    };
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a file"));
    }
    let there = metadata.len().saturating_sub(offset);
    let size = length.unwrap_or(there);
    if size > there && matches!(source, Source::Member(_)) {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the tar file ends before it"));
    }
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.take(size.min(HEAD_BYTES as u64)).read_to_end(&mut head)?;
    Ok((head, size))
}

/// Returns whether a file with these first bytes may be one of PyTorch, a zip or a pickle.
fn is_tensors(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"\x80")
}

/// Returns whether a file with these first bytes is a picture.
fn is_picture(head: &[u8]) -> bool {
    let begins: [&[u8]; 7] = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*"];
    begins.iter().any(|begin| head.starts_with(begin)) || is_riff(head, b"WEBP")
}

/// Returns whether a file with these first bytes is a video.
fn is_video(head: &[u8]) -> bool {
    let begins: [&[u8]; 3] = [b"\x1a\x45\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3"];
    let boxes: [&[u8]; 4] = [b"ftyp", b"moov", b"mdat", b"wide"];
    begins.iter().any(|begin| head.starts_with(begin))
        || is_riff(head, b"AVI ")
        || head.get(4..8).is_some_and(|kind| boxes.contains(&kind))
}

fn is_riff(head: &[u8], kind: &[u8]) -> bool {
    head.starts_with(b"RIFF") && head.get(8..12) == Some(kind)
}
