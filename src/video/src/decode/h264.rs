//! Frames of an H.264 track in the order in which they are shown.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rust_h264::decoder::{Frame as Planes, OrderedDecoder};
use rust_h264::error::DecodeError;
use rust_h264::nal::{NalUnit, NalUnitType, parse_avcc, parse_avcc_config};

use super::color::Matrix;
use super::parameters;
use crate::container::{Codec, Movie};
use crate::error::Fault;

/// Most frames that wait for one that is shown earlier; the format allows 16.
const MAX_HELD: usize = 24;

/// A decoder of a track.
pub(crate) struct H264<'a> {
    movie: Movie<'a>,
    decoder: OrderedDecoder<usize>,
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

impl<'a> H264<'a> {
    /// Opens a track at the last frame from which `from` (seconds) can be reached.
    pub(crate) fn new(movie: Movie<'a>, from: f64, max_pixels: u64) -> Result<Self, Fault> {
        let Codec::H264(config) = &movie.codec else {
            return Err(Fault::UnsupportedCodec { container: movie.container, codec: movie.codec.name().to_owned() });
        };
        let malformed = |problem: &str| Fault::Malformed { container: movie.container, problem: problem.to_owned() };
        let config = parse_avcc_config(config).map_err(malformed)?;
        let mut order: Vec<usize> = (0..movie.samples.len()).collect();
        order.sort_by(|a, b| movie.samples[*a].time.total_cmp(&movie.samples[*b].time));
        let mut ranks = vec![0; order.len()];
        order.iter().enumerate().for_each(|(rank, at)| ranks[*at] = rank);
        let times = order.iter().map(|at| movie.samples[*at].time).collect();
        let reaches = |at: &usize| movie.samples[*at].is_key && movie.samples[*at].time <= from;
        let next = (0..movie.samples.len()).rev().find(reaches).unwrap_or(0);

        let mut decoder = OrderedDecoder::with_max_depth(1);
        let mut matrix = Matrix::of(None, false);
        for nal in config.sps_nals.iter().chain(&config.pps_nals) {
            if nal.nal_unit_type == NalUnitType::Sps {
                matrix = parameters::read(&nal.rbsp, movie.container, max_pixels)?;
            }
            // Parameter sets give no frames.
            decode(&mut decoder, nal, 0).map_err(|error| fault(error, movie.container, 0))?;
        }
        let length_size = config.length_size;
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
            let decoder = &mut self.decoder;
            let rest = catch_unwind(AssertUnwindSafe(|| decoder.flush_with_meta()));
            self.held.extend(rest.unwrap_or_default().into_iter().map(|(frame, rank)| (rank, frame)));
            return Ok(());
        };
        // Positions were checked against the data.
        let from = usize::try_from(sample.offset).unwrap_or(usize::MAX);
        let bytes = self.movie.data.get(from..from.saturating_add(sample.size as usize)).unwrap_or_default();
        let rank = self.ranks.get(self.next).copied().unwrap_or_default();
        for nal in parse_avcc(bytes, self.length_size) {
            if nal.nal_unit_type == NalUnitType::Sps {
                self.matrix = parameters::read(&nal.rbsp, self.movie.container, self.max_pixels)?;
            }
            let frames = decode(&mut self.decoder, &nal, rank);
            let frames = frames.map_err(|error| fault(error, self.movie.container, self.next))?;
            self.held.extend(frames.into_iter().map(|(frame, rank)| (rank, frame)));
        }
        self.next += 1;
        Ok(())
    }
}

/// Passes a unit to the decoder. It is third-party code: if it panics on damaged input, that video is rejected and the program
/// continues.
fn decode(
    decoder: &mut OrderedDecoder<usize>,
    nal: &NalUnit<'_>,
    rank: usize,
) -> Result<Vec<(Planes, usize)>, DecodeError> {
    // After an error the decoder is not used again.
    catch_unwind(AssertUnwindSafe(|| decoder.decode_nal_with_meta(nal, rank)))
        .unwrap_or(Err(DecodeError::InvalidSyntax("the decoder failed on the damaged data")))
}

fn fault(error: DecodeError, container: &'static str, frame: usize) -> Fault {
    match error {
        DecodeError::Unsupported(feature) => Fault::UnsupportedCodec { container, codec: format!("H.264 ({feature})") },
        error => Fault::Corrupt { frame, problem: error.to_string() },
    }
}
