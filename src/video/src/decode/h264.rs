//! Frames of an H.264 track in the order in which they are shown.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rust_h264::decoder::{ChromaFormat, Frame as Planes, OrderedDecoder};
use rust_h264::error::DecodeError;
use rust_h264::nal::{NalUnit, NalUnitType, parse_annex_b};
use rusty_h264_decoder::DecodeError as PlainError;

use super::color::Matrix;
use super::parameters::{self, Sequence};
use crate::container::{Codec, Movie, Sample};
use crate::error::Fault;

/// Most frames that wait for one that is shown earlier; the format allows 16.
const MAX_HELD: usize = 24;

/// Start of a unit in a stream of bytes (ITU-T H.264, annex B).
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// A decoder of a track.
pub(crate) struct H264<'a> {
    movie: Movie<'a>,
    decoder: Decoder,
    length_size: usize,
    max_pixels: u64,
    matrix: Matrix,
    /// The next sample to decode, in the order of the file.
    next: usize,
    /// Place of each sample in the order of showing.
    ranks: Vec<usize>,
    /// Times in seconds in the order of showing.
    times: Vec<f64>,
    /// Frames that wait for their turn, by their place.
    held: BTreeMap<usize, Planes>,
    /// Place of the frame that is due.
    due: usize,
    flushed: bool,
}

/// The decoder for what a stream uses.
enum Decoder {
    /// Progressive pictures of one slice, 8 bits and 4:2:0 chroma: more than twice as fast as the other one.
    Plain(Box<rusty_h264_decoder::Decoder>),
    /// Everything: fields, other chroma, 10 bits, monochrome.
    Full(Box<OrderedDecoder<usize>>),
}

impl<'a> H264<'a> {
    /// Opens a track at the last frame from which `from` (seconds) can be reached.
    pub(crate) fn new(movie: Movie<'a>, from: f64, max_pixels: u64) -> Result<Self, Fault> {
        let Codec::H264(config) = &movie.codec else {
            return Err(Fault::UnsupportedCodec { container: movie.container, codec: movie.codec.name().to_owned() });
        };
        let problem = "the description of its H.264 stream ends too early".to_owned();
        let (length_size, sets) =
            description(config).ok_or(Fault::Malformed { container: movie.container, problem })?;
        let mut order: Vec<usize> = (0..movie.samples.len()).collect();
        order.sort_by(|a, b| movie.samples[*a].time.total_cmp(&movie.samples[*b].time));
        let mut ranks = vec![0; order.len()];
        order.iter().enumerate().for_each(|(rank, at)| ranks[*at] = rank);
        let times = order.iter().map(|at| movie.samples[*at].time).collect();
        let reaches = |at: &usize| movie.samples[*at].is_key && movie.samples[*at].time <= from;
        let next = (0..movie.samples.len()).rev().find(reaches).unwrap_or(0);

        let mut matrix = Matrix::of(None, false);
        let mut is_plain = true;
        for set in parameter_sets(&sets) {
            match set.nal_unit_type {
                NalUnitType::Sps => {
                    let sequence = Sequence::read(&set.rbsp, movie.container, max_pixels)?;
                    matrix = sequence.matrix;
                    is_plain &= sequence.is_plain;
                }
                _ => is_plain &= parameters::is_plain_picture(&set.rbsp),
            }
        }
        // A stream can bring more sets among its pictures. A damaged one is an error at its place.
        is_plain &= movie.samples[next..].iter().all(|sample| {
            let units: Vec<&[u8]> = units(bytes_of(&movie, sample), length_size).collect();
            let has_one_slice = units.iter().filter(|unit| is_slice(unit)).count() < 2;
            has_one_slice
                && parameter_sets(&units).iter().all(|set| match set.nal_unit_type {
                    NalUnitType::Sps => {
                        Sequence::read(&set.rbsp, movie.container, u64::MAX).is_ok_and(|set| set.is_plain)
                    }
                    _ => parameters::is_plain_picture(&set.rbsp),
                })
        });
        let mut decoder = match is_plain {
            true => Decoder::Plain(Box::default()),
            false => Decoder::Full(Box::new(OrderedDecoder::with_max_depth(1))),
        };
        // Parameter sets give no frames.
        decoder.decode(&sets, 0).map_err(|failure| failure.at(movie.container, 0))?;
        let due = ranks.get(next).copied().unwrap_or(0);
        let held = BTreeMap::new();
        Ok(Self { movie, decoder, length_size, max_pixels, matrix, next, ranks, times, held, due, flushed: false })
    }

    /// The colors of the stream.
    pub(crate) fn matrix(&self) -> Matrix {
        self.matrix
    }

    /// Returns the next frame with its time in seconds; `None` at the end.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(f64, Planes)>, Fault> {
        loop {
            // Frames that were skipped by the decoder must not hold up all others.
            let is_due = self
                .held
                .first_key_value()
                .is_some_and(|(rank, _)| *rank <= self.due || self.flushed || self.held.len() > MAX_HELD);
            if is_due && let Some((rank, frame)) = self.held.pop_first() {
                self.due = rank + 1;
                return Ok(Some((self.times.get(rank).copied().unwrap_or_default(), frame)));
            }
            if self.flushed {
                return Ok(None);
            }
            self.decode_sample()?;
        }
    }

    /// Decodes the next sample, or takes what the decoder still holds.
    fn decode_sample(&mut self) -> Result<(), Fault> {
        let Some(sample) = self.movie.samples.get(self.next) else {
            self.flushed = true;
            self.held.extend(self.decoder.rest().into_iter().map(|(frame, rank)| (rank, frame)));
            return Ok(());
        };
        let units: Vec<&[u8]> = units(bytes_of(&self.movie, sample), self.length_size).collect();
        let rank = self.ranks.get(self.next).copied().unwrap_or_default();
        for set in parameter_sets(&units) {
            if set.nal_unit_type == NalUnitType::Sps {
                self.matrix = Sequence::read(&set.rbsp, self.movie.container, self.max_pixels)?.matrix;
            }
        }
        let frames =
            self.decoder.decode(&units, rank).map_err(|failure| failure.at(self.movie.container, self.next))?;
        self.held.extend(frames.into_iter().map(|(frame, rank)| (rank, frame)));
        self.next += 1;
        Ok(())
    }
}

impl Decoder {
    /// Decodes units and returns the frames that are complete with their ranks, of which `rank` is that of these units.
    ///
    /// It is third-party code: if it panics on damaged input, that video is rejected and the program continues. After an error it is not used again.
    fn decode(&mut self, units: &[&[u8]], rank: usize) -> Result<Vec<(Planes, usize)>, Failure> {
        let bytes = stream(units);
        catch_unwind(AssertUnwindSafe(|| match self {
            Self::Plain(decoder) => {
                let frame = decoder.decode(&bytes)?;
                if frame.is_none() && units.iter().any(|unit| is_slice(unit)) {
                    return Err(Failure::Damage("a part of the picture is missing".to_owned()));
                }
                let planes = frame.map(|frame| Planes {
                    width: u32::try_from(frame.width).unwrap_or(0),
                    height: u32::try_from(frame.height).unwrap_or(0),
                    y: frame.y,
                    u: frame.u,
                    v: frame.v,
                    pic_order_cnt: 0,
                    chroma_format: ChromaFormat::Yuv420,
                    bit_depth: 8,
                });
                Ok(planes.into_iter().map(|planes| (planes, rank)).collect())
            }
            Self::Full(decoder) => {
                let mut frames = Vec::new();
                for unit in parse_annex_b(&bytes) {
                    frames.extend(decoder.decode_nal_with_meta(&unit, rank)?);
                }
                Ok(frames)
            }
        }))
        .unwrap_or_else(|_| Err(Failure::Damage("the decoder failed on the damaged data".to_owned())))
    }

    /// Returns the frames that are still held.
    fn rest(&mut self) -> Vec<(Planes, usize)> {
        match self {
            Self::Plain(_) => Vec::new(),
            Self::Full(decoder) => catch_unwind(AssertUnwindSafe(|| decoder.flush_with_meta())).unwrap_or_default(),
        }
    }
}

/// The reason why a decoder gave no frame.
enum Failure {
    Unsupported(String),
    Damage(String),
}

impl Failure {
    fn at(self, container: &'static str, frame: usize) -> Fault {
        match self {
            Self::Unsupported(feature) => Fault::UnsupportedCodec { container, codec: format!("H.264 ({feature})") },
            Self::Damage(problem) => Fault::Corrupt { frame, problem },
        }
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Unsupported(feature) => Self::Unsupported(feature.to_string()),
            error => Self::Damage(error.to_string()),
        }
    }
}

impl From<PlainError> for Failure {
    /// The parameter sets allow nothing that the decoder does not know, so what it does not know is damage.
    fn from(error: PlainError) -> Self {
        match error {
            PlainError::Unsupported(what) => Self::Damage(what.to_owned()),
            error => Self::Damage(error.to_string()),
        }
    }
}

/// Reads the size of length fields and the parameter sets of a description (ISO/IEC 14496-15, 5.3.3.1).
fn description(config: &[u8]) -> Option<(usize, Vec<&[u8]>)> {
    let (head, mut rest) = config.split_at_checked(5)?;
    let mut sets = Vec::new();
    for mask in [0x1f, 0xff] {
        let (count, after) = rest.split_first()?;
        rest = after;
        for _ in 0..count & mask {
            let (length, after) = rest.split_first_chunk()?;
            let (set, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            sets.push(set);
            rest = after;
        }
    }
    (head[0] == 1).then_some((usize::from(head[4] & 3) + 1, sets))
}

/// The bytes of a sample. Its position was checked against the data.
fn bytes_of<'m>(movie: &'m Movie<'_>, sample: &Sample) -> &'m [u8] {
    let from = usize::try_from(sample.offset).unwrap_or(usize::MAX);
    movie.data.get(from..from.saturating_add(sample.size as usize)).unwrap_or_default()
}

/// The units of a sample, each after its length of `length_size` bytes. The first one that is cut off ends them.
fn units(mut bytes: &[u8], length_size: usize) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_at_checked(length_size)?;
        let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let (unit, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some(unit)
    })
}

/// Returns units as a stream of bytes.
fn stream(units: &[&[u8]]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&START_CODE, *unit]).collect::<Vec<_>>().concat()
}

/// Returns the sequence and picture parameter sets among units.
fn parameter_sets(units: &[&[u8]]) -> Vec<NalUnit<'static>> {
    let sets: Vec<&[u8]> = units.iter().copied().filter(|unit| matches!(kind(unit), 7 | 8)).collect();
    let owned = |unit: NalUnit<'_>| NalUnit { rbsp: Cow::Owned(unit.rbsp.into_owned()), ..unit };
    parse_annex_b(&stream(&sets)).into_iter().map(owned).collect()
}

/// The type of a unit (ITU-T H.264, table 7-1).
fn kind(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |head| head & 0x1f)
}

fn is_slice(unit: &[u8]) -> bool {
    matches!(kind(unit), 1 | 5)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::container;

    /// Whether a file goes to the plain decoder, its frames, and those of the full decoder.
    fn decoded(path: &Path) -> (bool, Vec<Planes>, Vec<Planes>) {
        let bytes = std::fs::read(path).unwrap();
        let open = || {
            let movie = container::open(&bytes, container::content(&bytes).unwrap()).unwrap();
            H264::new(movie, 0.0, u64::MAX).unwrap()
        };
        let frames = |mut decoder: H264<'_>| {
            std::iter::from_fn(|| decoder.next_frame().unwrap()).map(|(_, planes)| planes).collect()
        };
        let (plain, mut full) = (open(), open());
        let Codec::H264(config) = full.movie.codec.clone() else { panic!("{}", path.display()) };
        full.decoder = Decoder::Full(Box::new(OrderedDecoder::with_max_depth(1)));
        assert!(full.decoder.decode(&description(&config).unwrap().1, 0).is_ok());
        (matches!(plain.decoder, Decoder::Plain(_)), frames(plain), frames(full))
    }

    #[test]
    fn both_decoders_give_the_same_bytes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let plain = ["tests/data/fps25.mp4", "tests/data/weights.mp4", "tests/data/remuxed.mkv"];
        let clips = ["../../data/grid11/clips/bbaf2n.mp4", "../../data/grid11/clips/swiz3n.mp4"];
        for name in plain.iter().chain(&clips) {
            let (is_plain, frames, expected) = decoded(&root.join(name));
            assert!(is_plain && frames.len() > 10, "{name}: {}", frames.len());
            assert_eq!(frames.len(), expected.len(), "{name}");
            for (at, (frame, expected)) in frames.iter().zip(&expected).enumerate() {
                assert_eq!((frame.width, frame.height), (expected.width, expected.height), "{name}, frame {at}");
                let same = frame.y == expected.y && frame.u == expected.u && frame.v == expected.v;
                assert!(same, "{name}, frame {at}");
            }
        }
    }

    #[test]
    fn what_the_plain_decoder_does_not_know_goes_to_the_full_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        for name in ["constrained_intra", "slices", "interlaced", "deep", "chroma422"] {
            assert!(!decoded(&folder.join(name).with_extension("mp4")).0, "{name}");
        }
    }
}
