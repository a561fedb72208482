//! Small writers of containers and of the simplest streams, for tests that need files with known samples.

/// Samples of 16 bits as bytes, the highest first or the lowest first.
pub fn pcm(samples: &[i16], big_endian: bool) -> Vec<u8> {
    samples.iter().flat_map(|sample| if big_endian { sample.to_be_bytes() } else { sample.to_le_bytes() }).collect()
}

/// Converts 16-bit samples to the values that decoding gives.
pub fn floats(samples: &[i16]) -> Vec<f32> {
    samples.iter().map(|sample| f32::from(*sample) / 32_768.0).collect()
}

/// A slow wave with a beginning that is like no other part of it.
pub fn wave(count: usize) -> Vec<i16> {
    (0..count).map(|at| (8000.0 * (at as f64 * 0.05).sin() + at as f64 % 4000.0) as i16).collect()
}

/// A page of an Ogg stream with whole packets.
pub fn ogg_page(flags: u8, granule: i64, serial: u32, number: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let lacing: Vec<u8> = packets
        .iter()
        .flat_map(|packet| std::iter::repeat_n(255, packet.len() / 255).chain([(packet.len() % 255) as u8]))
        .collect();
    let mut page = b"OggS\0".to_vec();
    page.push(flags);
    page.extend(granule.to_le_bytes());
    [serial, number, 0].iter().for_each(|field| page.extend(field.to_le_bytes()));
    page.push(lacing.len() as u8);
    page.extend(&lacing);
    packets.iter().for_each(|packet| page.extend(packet));
    let sum = page.iter().fold(0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 })
    });
    page[22..26].copy_from_slice(&sum.to_le_bytes());
    page
}

/// The packets of an Ogg file with one stream.
pub fn ogg_packets(file: &[u8]) -> Vec<Vec<u8>> {
    let (mut packets, mut unfinished, mut at) = (Vec::new(), Vec::new(), 0);
    while at < file.len() {
        let count = usize::from(file[at + 26]);
        let mut body = at + 27 + count;
        for lace in &file[at + 27..at + 27 + count] {
            let end = body + usize::from(*lace);
            unfinished.extend_from_slice(&file[body..end]);
            if *lace < 255 {
                packets.push(std::mem::take(&mut unfinished));
            }
            body = end;
        }
        at = body;
    }
    packets
}

/// Puts packets of audio, each of `frames`, into pages of ten behind one page for every header.
pub fn ogg_stream(serial: u32, headers: &[Vec<u8>], audio: &[Vec<u8>], frames: usize) -> Vec<Vec<u8>> {
    let header = |(number, packet): (usize, &Vec<u8>)| {
        ogg_page(if number == 0 { 2 } else { 0 }, 0, serial, number as u32, std::slice::from_ref(packet))
    };
    let mut pages: Vec<Vec<u8>> = headers.iter().enumerate().map(header).collect();
    let mut done = 0;
    for chunk in audio.chunks(10) {
        done += chunk.len();
        let flags = if done == audio.len() { 4 } else { 0 };
        pages.push(ogg_page(flags, (done * frames) as i64, serial, pages.len() as u32, chunk));
    }
    pages
}

/// Frames of audio in a FLAC frame of [`flac_frames`].
pub const FLAC_BLOCK: usize = 1000;

/// Mono 16-bit FLAC without compression: the STREAMINFO block, and the frames.
pub fn flac_frames(samples: &[i16], sample_rate: u32) -> (Vec<u8>, Vec<Vec<u8>>) {
    let packed = u64::from(sample_rate) << 44 | 15 << 36 | samples.len() as u64;
    let block = (FLAC_BLOCK as u16).to_be_bytes();
    let info = [&block[..], &block, &[0; 6], &packed.to_be_bytes(), &[0; 16]].concat();
    let frame = |(number, samples): (usize, &[i16])| {
        // Sixteen bits of block size behind the number; the rate is that of the stream.
        let mut frame = vec![0xff, 0xf8, 0x70, 0x08, number as u8];
        frame.extend((samples.len() as u16 - 1).to_be_bytes());
        frame.push(checksum(&frame, 8, 0x07) as u8);
        frame.push(2);
        frame.extend(pcm(samples, true));
        frame.extend((checksum(&frame, 16, 0x8005) as u16).to_be_bytes());
        frame
    };
    (info, samples.chunks(FLAC_BLOCK).enumerate().map(frame).collect())
}

/// A FLAC file of the given blocks and frames.
pub fn flac_file(info: &[u8], frames: &[Vec<u8>]) -> Vec<u8> {
    [b"fLaC\x80\0\0\x22", info, &frames.concat()].concat()
}

/// The pages of FLAC in Ogg.
pub fn flac_in_ogg(serial: u32, samples: &[i16], sample_rate: u32) -> Vec<Vec<u8>> {
    let (info, frames) = flac_frames(samples, sample_rate);
    let head = [b"\x7fFLAC\x01\0\0\x01fLaC\0\0\0\x22", &info[..]].concat();
    let comment = [b"\x84\0\0\x08".to_vec(), vec![0; 8]].concat();
    ogg_stream(serial, &[head, comment], &frames, FLAC_BLOCK)
}

fn checksum(bytes: &[u8], bits: u32, polynomial: u32) -> u32 {
    let (top, mask) = (1 << (bits - 1), ((1u64 << bits) - 1) as u32);
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << (bits - 8), |crc, _| {
            (crc << 1 ^ if crc & top == 0 { 0 } else { polynomial }) & mask
        })
    })
}

/// A box of an MP4 file.
pub fn mp4_box(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32 + 8).to_be_bytes(), &name[..], content].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A track of sound in an MP4 or QuickTime file.
pub struct Mp4Track {
    /// The brand of the file.
    pub brand: [u8; 4],
    /// The codec's four letters.
    pub codec: [u8; 4],
    pub sample_rate: u32,
    pub bits: u16,
    /// Boxes in the sample entry.
    pub extra: Vec<u8>,
    /// Frames of audio per sample of the container.
    pub duration: u32,
}

impl Mp4Track {
    fn movie(&self, tables: &[Vec<u8>], more: &[u8], duration: u32) -> Vec<u8> {
        let matrix = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];
        let header = [
            words(&[0, 0, 0, self.sample_rate, duration, 0x1_0000, 0x100_0000, 0, 0]),
            words(&matrix),
            words(&[0; 6]),
            words(&[2]),
        ];
        let track = [words(&[7, 0, 0, 1, 0, duration, 0, 0, 0, 0x100_0000]), words(&matrix), words(&[0, 0])].concat();
        let mut entry = vec![0, 0, 0, 0, 0, 0, 0, 1];
        entry.extend([0; 8]);
        [1, self.bits, 0, 0].iter().for_each(|field| entry.extend(field.to_be_bytes()));
        entry.extend((self.sample_rate << 16).to_be_bytes());
        entry.extend(&self.extra);
        let description = [words(&[0, 1]), mp4_box(&self.codec, &entry)].concat();
        let table = [mp4_box(b"stsd", &description), tables.concat()].concat();
        let handler = [words(&[0, 0]), b"soun".to_vec(), vec![0; 13]].concat();
        let data_reference = mp4_box(b"dref", &[words(&[0, 1]), mp4_box(b"url ", &words(&[1]))].concat());
        let information =
            [mp4_box(b"smhd", &[0; 8]), mp4_box(b"dinf", &data_reference), mp4_box(b"stbl", &table)].concat();
        let media = [
            mp4_box(b"mdhd", &words(&[0, 0, 0, self.sample_rate, duration, 0x55c4_0000])),
            mp4_box(b"hdlr", &handler),
            mp4_box(b"minf", &information),
        ]
        .concat();
        let track = [mp4_box(b"tkhd", &track), mp4_box(b"mdia", &media)].concat();
        mp4_box(b"moov", &[mp4_box(b"mvhd", &header.concat()), mp4_box(b"trak", &track), more.to_vec()].concat())
    }

    fn file_type(&self) -> Vec<u8> {
        mp4_box(b"ftyp", &[&self.brand[..], &[0; 4], &self.brand].concat())
    }

    /// The file with a table of samples in front of them.
    pub fn file(&self, samples: &[Vec<u8>]) -> Vec<u8> {
        let count = samples.len() as u32;
        let sizes: Vec<u32> = samples.iter().map(|sample| sample.len() as u32).collect();
        let tables = |offset: u32| {
            [
                mp4_box(b"stts", &words(&[0, 1, count, self.duration])),
                mp4_box(b"stsc", &words(&[0, 1, 1, count, 1])),
                mp4_box(b"stsz", &[words(&[0, 0, count]), words(&sizes)].concat()),
                mp4_box(b"stco", &words(&[0, 1, offset])),
            ]
        };
        let head = |offset| [self.file_type(), self.movie(&tables(offset), &[], count * self.duration)].concat();
        let offset = head(0).len() as u32 + 8;
        [head(offset), mp4_box(b"mdat", &samples.concat())].concat()
    }

    /// The beginning of a file of fragments, and the fragments, of five samples each.
    pub fn fragments(&self, samples: &[Vec<u8>]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let empty = [
            mp4_box(b"stts", &words(&[0, 0])),
            mp4_box(b"stsc", &words(&[0, 0])),
            mp4_box(b"stsz", &words(&[0, 0, 0])),
            mp4_box(b"stco", &words(&[0, 0])),
        ];
        let extends = mp4_box(b"mvex", &mp4_box(b"trex", &words(&[0, 1, 1, self.duration, 0, 0])));
        let head = [self.file_type(), self.movie(&empty, &extends, 0)].concat();
        let fragment = |(index, samples): (usize, &[Vec<u8>])| {
            let start = index as u32 * 5 * self.duration;
            let sizes: Vec<u32> = samples.iter().map(|sample| sample.len() as u32).collect();
            let of_offset = |offset: u32| {
                let run = [words(&[0x201, samples.len() as u32, offset]), words(&sizes)].concat();
                let track = [
                    mp4_box(b"tfhd", &words(&[0x2_0000, 1])),
                    mp4_box(b"tfdt", &words(&[0, start])),
                    mp4_box(b"trun", &run),
                ];
                let number = mp4_box(b"mfhd", &words(&[0, index as u32 + 1]));
                mp4_box(b"moof", &[number, mp4_box(b"traf", &track.concat())].concat())
            };
            let offset = of_offset(0).len() as u32 + 8;
            [of_offset(offset), mp4_box(b"mdat", &samples.concat())].concat()
        };
        (head, samples.chunks(5).enumerate().map(fragment).collect())
    }
}

/// A CAF file of 16-bit mono samples, the highest byte first.
pub fn caf(samples: &[i16], sample_rate: u32) -> Vec<u8> {
    let chunk = |name: &[u8; 4], content: &[u8]| [&name[..], &(content.len() as u64).to_be_bytes(), content].concat();
    let description = [&f64::from(sample_rate).to_be_bytes()[..], b"lpcm", &words(&[0, 2, 1, 1, 16])].concat();
    let data = [vec![0; 4], pcm(samples, true)].concat();
    [b"caff\0\x01\0\0".to_vec(), chunk(b"desc", &description), chunk(b"data", &data)].concat()
}

/// An AU file of 16-bit mono samples, the highest byte first.
pub fn au(samples: &[i16], sample_rate: u32) -> Vec<u8> {
    let header = words(&[24, 2 * samples.len() as u32, 3, sample_rate, 1]);
    [b".snd".to_vec(), header, pcm(samples, true)].concat()
}

/// A WAV file: the fields of its format chunk, then chunks.
pub fn wav(
    tag: u16,
    channels: u16,
    sample_rate: u32,
    align: u16,
    bits: u16,
    chunks: &[(&[u8; 4], Vec<u8>)],
) -> Vec<u8> {
    let mut body = b"WAVEfmt \x10\0\0\0".to_vec();
    [tag, channels].iter().for_each(|field| body.extend(field.to_le_bytes()));
    [sample_rate, sample_rate * u32::from(align)].iter().for_each(|field| body.extend(field.to_le_bytes()));
    [align, bits].iter().for_each(|field| body.extend(field.to_le_bytes()));
    for (name, content) in chunks {
        body.extend(*name);
        body.extend((content.len() as u32).to_le_bytes());
        body.extend(content);
    }
    [b"RIFF".to_vec(), (body.len() as u32).to_le_bytes().to_vec(), body].concat()
}
