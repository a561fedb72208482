//! MP4 with its index first, so that it plays while it is loaded.

use mp4_atom::{
    Avc1, Avcc, Codec, Dinf, Dops, Dref, DrefEntry, Edts, Elst, ElstEntry, Encode, FourCC, Ftyp, Hdlr, Matrix, Mdhd,
    Mdia, Minf, Moov, Mvhd, Opus, Smhd, Stbl, Stco, Stsc, StscEntry, Stsd, Stss, Stsz, StszSamples, Stts, SttsEntry,
    Tkhd, Trak, Url, Visual, Vmhd,
};

use super::failed;
use super::h264::Picture;
use super::opus::{PACKET, RATE, Sound};
use crate::error::VideoError;

/// Ticks per second of the movie.
const MOVIE_TICKS: u32 = 1000;
/// Length of a chunk in seconds; chunks of picture and sound alternate.
const CHUNK_SECONDS: f64 = 0.5;
const IDENTITY: Matrix = Matrix { a: 0x1_0000, b: 0, u: 0, c: 0, d: 0x1_0000, v: 0, x: 0, y: 0, w: 0x4000_0000 };

/// Writes the tracks.
pub(super) fn mux(picture: &Picture, sound: Option<&Sound>, fps: f64) -> Result<Vec<u8>, VideoError> {
    let (ticks, per_frame) = frame_ticks(fps);
    let mut tracks = vec![picture_track(picture, ticks, per_frame)?];
    tracks.extend(sound.map(sound_track));

    let frames_per_chunk = ((CHUNK_SECONDS * fps) as usize).max(1);
    let packets_per_chunk = ((CHUNK_SECONDS * f64::from(RATE)) as usize / PACKET as usize).max(1);
    let mut chunks: Vec<(f64, usize, Vec<&[u8]>)> = Vec::new();
    for (at, group) in picture.frames.chunks(frames_per_chunk).enumerate() {
        let time = (at * frames_per_chunk) as f64 / fps;
        chunks.push((time, 0, group.iter().map(|frame| frame.bytes.as_slice()).collect()));
    }
    for (at, group) in sound.into_iter().flat_map(|sound| sound.packets.chunks(packets_per_chunk).enumerate()) {
        let time = (at * packets_per_chunk * PACKET as usize) as f64 / f64::from(RATE);
        chunks.push((time, 1, group.iter().map(Vec::as_slice).collect()));
    }
    chunks.sort_by(|(a, first, _), (b, second, _)| a.total_cmp(b).then(first.cmp(second)));

    let duration = tracks.iter().map(|track| track.tkhd.duration).max().unwrap_or(0);
    let header = Mvhd {
        creation_time: 0,
        modification_time: 0,
        timescale: MOVIE_TICKS,
        duration,
        rate: 1.into(),
        volume: 1.into(),
        matrix: IDENTITY,
        next_track_id: tracks.len() as u32 + 1,
    };
    let mut movie = Moov { mvhd: header, meta: None, mvex: None, trak: tracks, udta: None, ainf: None };
    for (track, per_chunk) in movie.trak.iter_mut().zip([frames_per_chunk, packets_per_chunk]) {
        track.mdia.minf.stbl.stsc = runs(&track.mdia.minf.stbl.stsz, per_chunk);
    }
    // The size of the index does not depend on the positions in it.
    place(&mut movie, &chunks, 0)?;
    let kind = Ftyp {
        major_brand: FourCC::new(b"isom"),
        minor_version: 512,
        compatible_brands: [b"isom", b"iso2", b"avc1", b"mp41"].map(FourCC::new).to_vec(),
    };
    let mut bytes = Vec::new();
    kind.encode(&mut bytes).map_err(failed)?;
    let before = bytes.len();
    movie.encode(&mut bytes).map_err(failed)?;
    let data_start = bytes.len() as u64 + 8;
    place(&mut movie, &chunks, data_start)?;
    bytes.truncate(before);
    movie.encode(&mut bytes).map_err(failed)?;

    let size: u64 = 8 + chunks.iter().flat_map(|(.., parts)| parts).map(|part| part.len() as u64).sum::<u64>();
    let size = u32::try_from(size).map_err(|_| failed("more than 4 GiB"))?;
    bytes.extend_from_slice(&size.to_be_bytes());
    bytes.extend_from_slice(b"mdat");
    chunks.iter().flat_map(|(.., parts)| parts).for_each(|part| bytes.extend_from_slice(part));
    Ok(bytes)
}

/// Returns ticks per second and ticks per frame; rates such as 30000/1001 are exact.
fn frame_ticks(fps: f64) -> (u32, u32) {
    for per_frame in [1000u32, 1001] {
        let ticks = fps * f64::from(per_frame);
        if (ticks - ticks.round()).abs() < 1e-6 {
            return (ticks.round() as u32, per_frame);
        }
    }
    ((fps * 1000.0).round() as u32, 1000)
}

/// Enters the positions of the chunks, the first of which is at `start`.
fn place(movie: &mut Moov, chunks: &[(f64, usize, Vec<&[u8]>)], start: u64) -> Result<(), VideoError> {
    let mut at = start;
    let mut positions = vec![Vec::new(); movie.trak.len()];
    for (_, track, parts) in chunks {
        let position = u32::try_from(at).map_err(|_| failed("more than 4 GiB"))?;
        positions.get_mut(*track).into_iter().for_each(|track| track.push(position));
        at += parts.iter().map(|part| part.len() as u64).sum::<u64>();
    }
    for (track, entries) in movie.trak.iter_mut().zip(positions) {
        track.mdia.minf.stbl.stco = Some(Stco { entries });
    }
    Ok(())
}

/// Describes chunks of a constant number of samples, the last of which may have fewer.
fn runs(sizes: &Stsz, per_chunk: usize) -> Stsc {
    let StszSamples::Different { sizes } = &sizes.samples else { return Stsc::default() };
    let entry = |first_chunk: usize, samples: usize| StscEntry {
        first_chunk: first_chunk as u32 + 1,
        samples_per_chunk: samples as u32,
        sample_description_index: 1,
    };
    let (whole, rest) = (sizes.len() / per_chunk, sizes.len() % per_chunk);
    let mut entries = Vec::new();
    if whole > 0 {
        entries.push(entry(0, per_chunk));
    }
    if rest > 0 {
        entries.push(entry(whole, rest));
    }
    Stsc { entries }
}

fn picture_track(picture: &Picture, ticks: u32, per_frame: u32) -> Result<Trak, VideoError> {
    let count = picture.frames.len() as u32;
    let length = u64::from(count) * u64::from(per_frame);
    let (Ok(width), Ok(height)) = (u16::try_from(picture.width), u16::try_from(picture.height)) else {
        return Err(failed("frames of more than 65,535 pixels in a row or column"));
    };
    let visual = Visual {
        data_reference_index: 1,
        width,
        height,
        horizresolution: 0x48.into(),
        vertresolution: 0x48.into(),
        frame_count: 1,
        compressor: "".into(),
        depth: 24,
    };
    let avcc = Avcc::new(&picture.parameters[0], &picture.parameters[1]).map_err(failed)?;
    let keys = picture.frames.iter().enumerate().filter(|(_, frame)| frame.is_key);
    let table = Stbl {
        stsd: Stsd { codecs: vec![Codec::Avc1(Avc1 { visual, avcc, ..Avc1::default() })] },
        stts: Stts { entries: vec![SttsEntry { sample_count: count, sample_delta: per_frame }] },
        stss: Some(Stss { entries: keys.map(|(at, _)| at as u32 + 1).collect() }),
        stsz: sizes(picture.frames.iter().map(|frame| frame.bytes.len())),
        ..Stbl::default()
    };
    let minf = Minf { vmhd: Some(Vmhd::default()), dinf: in_this_file(), stbl: table, ..Minf::default() };
    let mut track = track(1, b"vide", ticks, length, minf);
    track.tkhd.width = width.into();
    track.tkhd.height = height.into();
    Ok(track)
}

fn sound_track(sound: &Sound) -> Trak {
    let count = sound.packets.len() as u32;
    let audio = mp4_atom::Audio {
        data_reference_index: 1,
        channel_count: u16::from(sound.channels),
        sample_size: 16,
        sample_rate: (RATE as u16).into(),
    };
    let dops = Dops {
        output_channel_count: sound.channels,
        pre_skip: sound.pre_skip,
        input_sample_rate: sound.input_rate,
        output_gain: 0,
        channel_mapping: None,
    };
    // The last packet lasts as long as there is sound.
    let whole = u64::from(count.saturating_sub(1)) * u64::from(PACKET);
    let length = sound.samples + u64::from(sound.pre_skip);
    let last = length.saturating_sub(whole).clamp(1, u64::from(PACKET)) as u32;
    let mut entries = vec![SttsEntry { sample_count: count.saturating_sub(1), sample_delta: PACKET }];
    entries.push(SttsEntry { sample_count: 1, sample_delta: last });
    entries.retain(|entry| entry.sample_count > 0);
    let table = Stbl {
        stsd: Stsd { codecs: vec![Codec::Opus(Opus { audio, dops, btrt: None })] },
        stts: Stts { entries },
        stsz: sizes(sound.packets.iter().map(Vec::len)),
        ..Stbl::default()
    };
    let minf = Minf { smhd: Some(Smhd::default()), dinf: in_this_file(), stbl: table, ..Minf::default() };
    let mut track = track(2, b"soun", RATE, length, minf);
    track.tkhd.volume = 1.into();
    let shown = sound.samples * u64::from(MOVIE_TICKS) / u64::from(RATE);
    track.tkhd.duration = shown;
    let entry =
        ElstEntry { segment_duration: shown, media_time: Some(u64::from(sound.pre_skip)), media_rate: 1.into() };
    track.edts = Some(Edts { elst: Some(Elst { entries: vec![entry] }) });
    track
}

fn sizes(sizes: impl Iterator<Item = usize>) -> Stsz {
    Stsz { samples: StszSamples::Different { sizes: sizes.map(|size| size as u32).collect() } }
}

/// The reference of a track to data in the same file.
fn in_this_file() -> Dinf {
    Dinf { dref: Dref { entries: vec![DrefEntry::Url(Url { location: String::new() })] } }
}

fn track(id: u32, handler: &[u8; 4], ticks: u32, length: u64, minf: Minf) -> Trak {
    Trak {
        tkhd: Tkhd {
            track_id: id,
            duration: length * u64::from(MOVIE_TICKS) / u64::from(ticks.max(1)),
            enabled: true,
            in_movie: true,
            matrix: IDENTITY,
            ..Tkhd::default()
        },
        mdia: Mdia {
            mdhd: Mdhd { timescale: ticks, duration: length, language: "und".to_owned(), ..Mdhd::default() },
            hdlr: Hdlr { handler: FourCC::new(handler), name: String::new() },
            minf,
        },
        ..Trak::default()
    }
}
