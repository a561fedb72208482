//! Ogg files: their streams of sound, which are concatenated in chained files, whatever the codec of each.

use std::borrow::Cow;

use super::ogg_pages::{Packets, Page, Pages, Scan, scan};
use super::sniff::Content;
use super::{Decoded, MAX_SAMPLES, channels, codec_names, opus, stream, vorbis_setup, within};
use crate::audio::{Audio, AudioInfo, DecodeWarning};
use crate::error::{Fault, MIXED_CHAIN};

/// Decodes the first stream of sound of every link.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Fault> {
    let (links, scan) = (links(bytes)?, scan(bytes));
    let recording = Recording::of(&links, &scan, |link| match link.codec {
        OPUS => opus::link(&link.pages, false),
        _ => link.through_symphonia(),
    })?;
    Ok(Decoded {
        audio: Audio { samples: recording.samples, sample_rate: recording.sample_rate, warnings: recording.warnings },
        codec: recording.codec,
        container: Content::Ogg.name().into(),
    })
}

/// Counts the lengths stated in the packets of Opus streams; `None` if there are streams of other codecs.
pub(super) fn count(bytes: &[u8]) -> Result<Option<AudioInfo>, Fault> {
    let links = links(bytes)?;
    if links.iter().any(|link| link.codec != OPUS) {
        return Ok(None);
    }
    let recording = Recording::of(&links, &scan(bytes), |link| opus::link(&link.pages, true))?;
    Ok(Some(AudioInfo {
        sample_rate: recording.sample_rate,
        channels: recording.channels as u32,
        frames: recording.frames,
        codec: recording.codec,
        container: Content::Ogg.name().into(),
        by_fallback: false,
        warnings: recording.warnings,
    }))
}

const OPUS: &str = "Opus";
const VORBIS: &str = "Vorbis";
/// Codecs that are decoded here.
const DECODED: [&str; 3] = [VORBIS, OPUS, "FLAC"];

/// The pages of the sound stream in one link of a chain.
struct Link<'a> {
    codec: &'static str,
    serial: u32,
    pages: Vec<Page<'a>>,
    /// True if pages have come that do not begin a stream.
    begun: bool,
}

/// Finds the links; at least one, all of codecs that are decoded here.
fn links(bytes: &[u8]) -> Result<Vec<Link<'_>>, Fault> {
    let mut links: Vec<Link<'_>> = Vec::new();
    let mut other = None;
    for page in Pages::new(bytes) {
        let codec = if page.begins_stream() { codec_names::ogg(page.body) } else { None };
        let last = links.last_mut();
        match (codec.filter(|codec| !is_video(codec)), last) {
            // The first of several streams that begin together is used, unless only another one is decoded here.
            (Some(codec), Some(last)) if !last.begun => {
                if !DECODED.contains(&last.codec) && DECODED.contains(&codec) {
                    *last = Link { codec, serial: page.serial, pages: vec![page], begun: false };
                }
            }
            (Some(codec), _) => links.push(Link { codec, serial: page.serial, pages: vec![page], begun: false }),
            (None, Some(last)) => {
                last.begun |= !page.begins_stream();
                if page.serial == last.serial && !page.begins_stream() {
                    last.pages.push(page);
                }
            }
            (None, None) => other = other.or(codec),
        }
    }
    let unsupported =
        |codec: &str| Fault::UnsupportedCodec { container: Content::Ogg.title().into(), codec: codec.into() };
    let Some(first) = links.first() else {
        return Err(match other {
            Some(video) => malformed(format!("it contains no audio stream, only {video}")),
            None => malformed("none of its complete pages begins an audio stream"),
        });
    };
    let foreign = links.iter().find(|link| !DECODED.contains(&link.codec));
    match foreign {
        None => Ok(links),
        // The fallback stops at a change of the codec in a chain.
        Some(_) if links.iter().any(|link| link.codec != first.codec) => {
            let codecs: Vec<&str> = links.iter().map(|link| link.codec).take(MOST_NAMED).collect();
            Err(unsupported(&format!("{MIXED_CHAIN} ({})", codecs.join(", then "))))
        }
        Some(foreign) => Err(unsupported(foreign.codec)),
    }
}

/// Largest number of streams that a message names.
const MOST_NAMED: usize = 5;

fn is_video(codec: &str) -> bool {
    codec.ends_with("video") || codec.ends_with("subtitles")
}

fn malformed(problem: impl Into<String>) -> Fault {
    Fault::Malformed { container: Content::Ogg.name().into(), problem: problem.into() }
}

impl Link<'_> {
    /// Returns the link as a separate file.
    fn bytes(&self) -> Cow<'_, [u8]> {
        match self.pages.as_slice() {
            [page] => Cow::Borrowed(page.bytes),
            pages => Cow::Owned(pages.iter().flat_map(|page| page.bytes).copied().collect()),
        }
    }

    /// The first packets.
    fn packets(&self, count: usize) -> Vec<Vec<u8>> {
        let (mut packets, mut found) = (Packets::default(), Vec::new());
        for page in &self.pages {
            packets.feed(page, |packet| found.push(packet.to_vec()));
            if found.len() >= count {
                break;
            }
        }
        found
    }

    fn through_symphonia(&self) -> Result<Option<Part>, Fault> {
        if self.codec == VORBIS && self.packets(3).get(2).is_some_and(|setup| !vorbis_setup::has_usable_lattices(setup))
        {
            return Err(malformed("the codebooks of its Vorbis stream are damaged"));
        }
        let decoded = stream::decode(&self.bytes(), Content::Ogg)?;
        let Decoded { audio: Audio { samples, sample_rate, warnings }, codec, .. } = decoded;
        let frames = samples.first().map_or(0, |channel| channel.len() as u64);
        Ok((frames > 0).then_some(Part { channels: samples.len(), frames, sample_rate, samples, codec, warnings }))
    }
}

/// The sound of one link.
pub(super) struct Part {
    pub(super) channels: usize,
    pub(super) frames: u64,
    pub(super) sample_rate: u32,
    /// Samples as `[channel][frame]`; empty if packets were only counted.
    pub(super) samples: Vec<Vec<f32>>,
    /// Short name of the codec.
    pub(super) codec: String,
    pub(super) warnings: Vec<DecodeWarning>,
}

/// All links as one recording.
struct Recording {
    channels: usize,
    frames: u64,
    sample_rate: u32,
    samples: Vec<Vec<f32>>,
    codec: String,
    warnings: Vec<DecodeWarning>,
}

impl Recording {
    /// Assembles the results of `part` for every link.
    fn of(
        links: &[Link<'_>],
        scan: &Scan,
        part: impl Fn(&Link<'_>) -> Result<Option<Part>, Fault>,
    ) -> Result<Self, Fault> {
        let mut whole: Option<Self> = None;
        for (index, link) in links.iter().enumerate() {
            match (part(link), &mut whole) {
                (Ok(Some(part)), Some(whole)) => whole.append(part)?,
                (Ok(Some(part)), None) => whole = Some(Self::from(part)),
                (Ok(None), _) => {}
                // The file ends before the sound of its last stream begins.
                (Err(Fault::Malformed { .. }), Some(_)) if scan.breaks_off() && index + 1 == links.len() => {}
                (Err(_), None) if scan.breaks_off() && links.len() == 1 => {
                    return Err(malformed("the file ends abruptly before its first section of audio is complete"));
                }
                (Err(fault), _) => return Err(fault),
            }
        }
        let mut whole = whole.ok_or_else(|| match scan.breaks_off() {
            true => malformed("the file ends before the first audio packet"),
            false => Fault::NoSamples,
        })?;
        whole.warnings.extend(scan.warning(whole.frames));
        Ok(whole)
    }

    fn from(part: Part) -> Self {
        let Part { channels, frames, sample_rate, samples, codec, warnings } = part;
        Self { channels, frames, sample_rate, samples, codec, warnings }
    }

    fn append(&mut self, part: Part) -> Result<(), Fault> {
        if part.sample_rate != self.sample_rate {
            return Err(malformed(format!(
                "it is a chain of streams of different sampling rates ({} at {} Hz, then {} at {} Hz); split it into one file per \
                 stream, or convert them to one rate",
                self.codec, self.sample_rate, part.codec, part.sample_rate
            )));
        }
        self.frames += part.frames;
        within("the number of samples", self.frames.saturating_mul(self.channels as u64), MAX_SAMPLES)?;
        if !part.samples.is_empty() {
            channels::append(&mut self.samples, &part.samples);
        }
        if !self.codec.split('+').any(|known| known == part.codec) {
            self.codec = format!("{}+{}", self.codec, part.codec);
        }
        part.warnings.into_iter().for_each(|warning| add_warning(&mut self.warnings, warning));
        Ok(())
    }
}

/// Merges a warning of a later link into those of earlier ones.
fn add_warning(warnings: &mut Vec<DecodeWarning>, new: DecodeWarning) {
    for old in warnings.iter_mut() {
        match (old, &new) {
            (DecodeWarning::CorruptPackets { count, .. }, DecodeWarning::CorruptPackets { count: more, .. }) => {
                *count += more;
                return;
            }
            (DecodeWarning::Gaps { places, frames }, DecodeWarning::Gaps { places: more, frames: missing }) => {
                (*places, *frames) = (*places + more, frames.saturating_add(*missing));
                return;
            }
            _ => {}
        }
    }
    warnings.push(new);
}
