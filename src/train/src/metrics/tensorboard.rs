//! TensorBoard event files, encoded by hand: TFRecord framing around `tensorflow.Event` protocol buffers.
//!
//! A record is its length (u64, little endian), the masked CRC-32C of those eight bytes, the event, and the event's masked
//! CRC-32C. Without `wall_clock`, the wall time of an event is its step in seconds since 1970, so that two runs write the same bytes;
//! TensorBoard's step axis is right, its relative axis counts steps.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use crc::{CRC_32_ISCSI, Crc, Table};
use flowmill_weights::protobuf::Message;

use super::histogram::Histogram;
use crate::samples::{Media, Sample};

/// Bytes before the samples of a WAV file.
const WAV_HEADER: usize = 44;

/// A tag's value at one step.
pub(crate) enum Datum<'a> {
    /// A number.
    Scalar(f32),
    /// A histogram.
    Histogram(&'a Histogram),
    /// An audio or image sample.
    Sample(&'a Sample),
}

/// The first record of every file, written at a time in seconds since 1970.
pub fn version_record(time: f64) -> Vec<u8> {
    record(&Message::default().double(1, time).text(3, "brain.Event:2"))
}

/// A record that says that a process continues after `step`: TensorBoard drops later steps of an earlier process.
pub fn start_record(time: f64, step: u64) -> Vec<u8> {
    const START: u64 = 1;
    let session = Message::default().varint(1, START);
    record(&Message::default().double(1, time).varint(2, step + 1).message(7, &session))
}

/// A record of numbers at one step, at a time in seconds since 1970.
pub fn scalars_record(time: f64, step: u64, scalars: impl IntoIterator<Item = (String, f64)>) -> Vec<u8> {
    summary_record(time, step, scalars.into_iter().map(|(tag, value)| (tag, Datum::Scalar(value as f32))))
}

/// A record of what tags have at one step, at a time in seconds since 1970; media that are none are left out.
pub(crate) fn summary_record<'a>(time: f64, step: u64, data: impl IntoIterator<Item = (String, Datum<'a>)>) -> Vec<u8> {
    let mut summary = Message::default();
    for (tag, datum) in data {
        let entry = Message::default().text(1, &tag);
        let entry = match datum {
            Datum::Scalar(value) => Some(entry.float(2, value)),
            Datum::Histogram(histogram) => Some(entry.message(5, &histogram_message(histogram))),
            Datum::Sample(sample) => match sample.media {
                Media::Png => image(&sample.bytes).map(|image| entry.message(4, &image)),
                Media::Wav => audio(&sample.bytes).map(|audio| entry.message(6, &audio)),
                // TensorBoard shows no videos.
                Media::Mp4 => None,
            },
        };
        if let Some(entry) = entry {
            summary = summary.message(1, &entry);
        }
    }
    record(&Message::default().double(1, time).varint(2, step).message(5, &summary))
}

fn histogram_message(histogram: &Histogram) -> Message {
    let Histogram { min, max, count, sum, sum_squares, limits, counts } = histogram;
    let message = Message::default().double(1, *min).double(2, *max).double(3, *count as f64).double(4, *sum);
    message.double(5, *sum_squares).doubles(6, limits).doubles(7, counts)
}

/// Reads height, width and colors of an image from its first chunk.
fn image(png: &[u8]) -> Option<Message> {
    const COLORS: u64 = 3;
    let size = |at: usize| Some(u64::from(u32::from_be_bytes(png.get(at..at + 4)?.try_into().ok()?)));
    Some(Message::default().varint(1, size(20)?).varint(2, size(16)?).varint(3, COLORS).bytes(4, png))
}

fn audio(wav: &[u8]) -> Option<Message> {
    let rate = u32::from_le_bytes(wav.get(24..28)?.try_into().ok()?);
    let frames = wav.len().checked_sub(WAV_HEADER)? / 2;
    let message = Message::default().float(1, rate as f32).varint(2, 1).varint(3, frames as u64);
    Some(message.bytes(4, wav).text(5, "audio/wav"))
}

fn record(event: &Message) -> Vec<u8> {
    let event = &event.0;
    let length = (event.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(event.len() + 16);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&masked_crc32c(&length).to_le_bytes());
    bytes.extend_from_slice(event);
    bytes.extend_from_slice(&masked_crc32c(event).to_le_bytes());
    bytes
}

/// Bytes before the event, and after it.
const AROUND: (u64, u64) = (12, 4);

/// Returns the length of the event that follows these bytes, if it matches its checksum.
fn event_length(head: &[u8; AROUND.0 as usize]) -> Option<u64> {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *head;
    let size = [a, b, c, d, e, f, g, h];
    (masked_crc32c(&size) == u32::from_le_bytes([i, j, k, l])).then(|| u64::from_le_bytes(size))
}

/// Returns whether a file that begins with these bytes is an event file, by the checksum of its first record's length.
pub fn begins_events(head: &[u8]) -> bool {
    head.first_chunk().is_some_and(|head| event_length(head).is_some())
}

/// Returns the end of the last whole record within the first `length` bytes, using lengths that match their checksums.
pub(crate) fn whole_records(file: &mut File, length: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(file);
    let (mut end, mut head) = (0, [0; AROUND.0 as usize]);
    while length - end >= AROUND.0 + AROUND.1 {
        reader.read_exact(&mut head)?;
        let rest = event_length(&head).and_then(|size| size.checked_add(AROUND.1));
        let Some(rest) = rest.filter(|rest| *rest <= length - end - AROUND.0) else { return Ok(end) };
        // The value is at most the length of a file.
        reader.seek_relative(rest as i64)?;
        end += AROUND.0 + rest;
    }
    Ok(end)
}

/// The events of a file, one after the other, as encoded messages. Both checksums of every record are verified.
pub(crate) struct Records<R> {
    reader: R,
    /// Length of the file.
    length: u64,
    /// The end of the last record that was read.
    pub(crate) end: u64,
}

impl<R: Read> Records<R> {
    /// Reads the records of a file of `length` bytes from its beginning.
    pub(crate) fn new(reader: R, length: u64) -> Self {
        Self { reader, length, end: 0 }
    }

    /// Returns the next event; `None` at the end. The problem of a damaged record is the inner error.
    pub(crate) fn next(&mut self) -> io::Result<Result<Option<Vec<u8>>, &'static str>> {
        let there = self.length - self.end;
        if there == 0 {
            return Ok(Ok(None));
        }
        if there < AROUND.0 + AROUND.1 {
            return Ok(Err("the last record is incomplete"));
        }
        let (mut head, mut checksum) = ([0; AROUND.0 as usize], [0; AROUND.1 as usize]);
        self.reader.read_exact(&mut head)?;
        let Some(size) = event_length(&head) else {
            return Ok(Err("the length of a record does not match its checksum"));
        };
        if size > there - AROUND.0 - AROUND.1 {
            return Ok(Err("the last record is incomplete"));
        }
        let mut event = Vec::new();
        // The size is at most that of the file.
        self.reader.by_ref().take(size).read_to_end(&mut event)?;
        self.reader.read_exact(&mut checksum)?;
        if masked_crc32c(&event) != u32::from_le_bytes(checksum) {
            return Ok(Err("a record does not match its checksum"));
        }
        self.end += AROUND.0 + size + AROUND.1;
        Ok(Ok(Some(event)))
    }
}

/// CRC-32C, rotated and offset as TFRecord wants it.
pub fn masked_crc32c(bytes: &[u8]) -> u32 {
    static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
    CRC.checksum(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_masked() {
        // The check value of CRC-32C in the catalog of CRCs, masked.
        assert_eq!(masked_crc32c(b"123456789"), 0xE306_9283u32.rotate_right(15).wrapping_add(0xA282_EAD8));
    }

    #[test]
    fn whole_records_are_found_in_what_is_left_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let records = [version_record(0.0), summary_record(1.0, 1, [("a".to_owned(), Datum::Scalar(1.0))])];
        let first = records[0].len() as u64;
        let all = records.concat();
        std::fs::write(&path, &all).unwrap();
        let whole = |length: u64| whole_records(&mut File::open(&path).unwrap(), length).unwrap();
        assert_eq!(whole(all.len() as u64), all.len() as u64);
        assert_eq!((whole(all.len() as u64 - 1), whole(first), whole(first - 1), whole(0)), (first, first, 0, 0));
        std::fs::write(&path, vec![b'x'; all.len()]).unwrap();
        assert_eq!(whole_records(&mut File::open(&path).unwrap(), all.len() as u64).unwrap(), 0);
    }

    #[test]
    fn what_is_neither_picture_nor_sound_is_left_out() {
        for media in [Media::Png, Media::Wav] {
            let broken = Sample { name: "a".to_owned(), media, bytes: vec![0; 10] };
            let empty = summary_record(3.0, 3, []);
            assert_eq!(summary_record(3.0, 3, [("a".to_owned(), Datum::Sample(&broken))]), empty);
        }
    }
}
