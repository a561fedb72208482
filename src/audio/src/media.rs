//! Names and first bytes of recordings, decodable or not, by which readers of corpora find all recordings.

/// Extensions of recordings and videos, in lower case. If one utterance has several recordings, the one whose extension
/// comes first here is used: plain samples before lossless compression before lossy compression.
pub const EXTENSIONS: [&str; 96] = [
    "wav", "wave", "rf64", "bwf", "w64", "aiff", "aif", "aifc", "caf", "au", "snd", "sph", "nist", "sf", "ircam",
    "paf", "fap", "sox", "htk", "avr", "pvf", "8svx", "svx", "sd2", "voc", "sln", "flac", "fla", "alac", "ape", "wv",
    "tta", "shn", "tak", "ofr", "mlp", "thd", "dsf", "dff", "opus", "ogg", "oga", "ogx", "spx", "m4a", "m4b", "m4r",
    "mp4", "m4v", "mov", "3gp", "3gpp", "3g2", "aac", "adts", "latm", "loas", "mp3", "mp2", "mp1", "mpga", "mka",
    "mkv", "webm", "weba", "nut", "wma", "wmv", "asf", "amr", "awb", "ac3", "eac3", "ec3", "dts", "dtshd", "mpc",
    "oma", "qcp", "gsm", "ra", "rm", "avi", "flv", "f4a", "f4v", "mpg", "mpeg", "vob", "m2ts", "g722", "vox", "ulaw",
    "alaw", "pcm", "raw",
];

/// Number of bytes of a file that [`by_content`] examines.
pub const HEAD_BYTES: usize = 4096;

/// Returns the position of an extension in [`EXTENSIONS`], ignoring case; `None` if it is not one of a recording.
pub fn rank(extension: &str) -> Option<usize> {
    EXTENSIONS.iter().position(|known| extension.eq_ignore_ascii_case(known))
}

/// A substitute for a file's content, whatever the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandIn {
    /// The name of its kind.
    pub kind: &'static str,
    /// Advice on how to get the content.
    pub advice: &'static str,
}

/// Recognizes content that is not a recording, table or archive but a substitute for one, by the first [`HEAD_BYTES`] of a file: nothing
/// at all, the pointers of Git LFS and git-annex, pages and error messages that a server sent instead.
pub fn stand_in(bytes: &[u8]) -> Option<StandIn> {
    const AGAIN: &str = "download it again (an address may have expired, or require a login)";
    let found = |kind, advice| Some(StandIn { kind, advice });
    if bytes.is_empty() {
        return found("an empty file", "copy or download it again");
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let begins = |what: &[u8]| text.get(..what.len()).is_some_and(|text| text.eq_ignore_ascii_case(what));
    let has = |what: &[u8]| text.windows(what.len()).any(|window| window == what);
    if begins(b"version https://git-lfs.github.com/spec/") {
        return found("a Git LFS pointer", "fetch the content with `git lfs pull`");
    }
    if begins(b"/annex/objects/") || begins(b"../.git/annex/") || begins(b".git/annex/") {
        return found("a git-annex pointer", "fetch the content with `git annex get`");
    }
    if begins(b"<!doctype html") || begins(b"<html") || begins(b"<head") {
        return found("a web page (HTML)", AGAIN);
    }
    if begins(b"<?xml") && has(b"<Error>") {
        return found("an error message of a server (XML)", AGAIN);
    }
    None
}

/// Returns the format of a file by its first [`HEAD_BYTES`] bytes, if they can only be those of a recording or a video.
///
/// Stricter than the decoder, which is only used for files that are said to be recordings: two sync words of MPEG audio must
/// follow each other.
pub fn by_content(bytes: &[u8]) -> Option<&'static str> {
    let at = |from: usize, what: &[u8]| bytes.get(from..).is_some_and(|rest| rest.starts_with(what));
    if at(0, b"RIFF") || at(0, b"RIFX") || at(0, b"RF64") || at(0, b"BW64") {
        return if at(8, b"WAVE") { Some("wav") } else { at(8, b"AVI ").then_some("avi") };
    }
    if at(4, b"ftyp") {
        // The same container is used for pictures.
        let picture = [b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"].iter().any(|brand| at(8, *brand));
        return (!picture).then_some("mp4");
    }
    let known: [(&[u8], &str); 24] = [
        (b"fLaC", "flac"),
        (b"OggS", "ogg"),
        (b"FORM\0", "aiff"),
        (b"caff\0", "caf"),
        (b"\x1a\x45\xdf\xa3", "mka"),
        (b"NIST_1A\n", "sph"),
        (b"#!AMR", "amr"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "wma"),
        (b".snd\0\0", "au"),
        (b"riff\x2e\x91\xcf\x11", "w64"),
        (b"MAC \x96\x0f", "ape"),
        (b"MAC \x8c\x0f", "ape"),
        (b"wvpk", "wv"),
        (b"TTA1", "tta"),
        (b"Creative Voice File", "voc"),
        (b"FLV\x01", "flv"),
        (b".RMF\0\0", "rm"),
        (b"nut/multimedia container\0", "nut"),
        (b".SoX", "sox"),
        (b"XoS.", "sox"),
        (b" paf\0\0\0", "paf"),
        (b"fap \0\0\0", "paf"),
        (b"2BIT", "avr"),
        (b"\x00\x00\x01\xba", "mpg"),
    ];
    let form = !at(0, b"FORM") || at(8, b"AIFF") || at(8, b"AIFC");
    if let Some((_, name)) = known.iter().find(|(magic, _)| at(0, magic) && form) {
        return Some(name);
    }
    if at(4, b"\xf8\x72\x6f\xba") || at(4, b"\xf8\x72\x6f\xbb") {
        return Some("thd");
    }
    if at(0, b"ID3") && bytes.get(3).is_some_and(|version| *version < 16) {
        return Some("mp3");
    }
    // Packets of an MPEG transport stream.
    if at(0, b"G") && at(188, b"G") && at(376, b"G") && at(564, b"G") {
        return Some("ts");
    }
    two_frames(bytes)
}

/// Returns MPEG audio or ADTS if a second frame of the same kind starts at the end of the first one.
fn two_frames(bytes: &[u8]) -> Option<&'static str> {
    let frame = |at: usize| adts_bytes(bytes.get(at..)?).map(|size| (size, "aac"));
    let frame = |at: usize| frame(at).or_else(|| mpeg_bytes(bytes.get(at..)?).map(|size| (size, "mp3")));
    let (size, name) = frame(0)?;
    frame(size).filter(|(_, second)| *second == name).map(|_| name)
}

/// The size of an ADTS frame.
fn adts_bytes(bytes: &[u8]) -> Option<usize> {
    let &[0xff, second, third, fourth, fifth, sixth, ..] = bytes else { return None };
    let size = usize::from(fourth & 3) << 11 | usize::from(fifth) << 3 | usize::from(sixth) >> 5;
    (second & 0xf6 == 0xf0 && third >> 2 & 0xf < 13 && size > 7).then_some(size)
}

/// The size of an MPEG audio frame.
fn mpeg_bytes(bytes: &[u8]) -> Option<usize> {
    /// Bit rates in kbit/s by their code, for MPEG-1 layers I to III and MPEG-2 layer I and layers II and III.
    const BIT_RATES: [[usize; 15]; 5] = [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let &[0xff, second, third, ..] = bytes else { return None };
    let (version, layer) = (second >> 3 & 3, 4 - (second >> 1 & 3));
    if second & 0xe0 != 0xe0 || version == 1 || layer == 4 {
        return None;
    }
    let table = match (version, layer) {
        (3, layer) => usize::from(layer) - 1,
        (_, 1) => 3,
        _ => 4,
    };
    let bit_rate = 1000 * *BIT_RATES[table].get(usize::from(third >> 4))?;
    let base = *[44_100, 48_000, 32_000].get(usize::from(third >> 2 & 3))?;
    let sample_rate = base >> [2, 0, 1, 0][usize::from(version)];
    let padding = usize::from(third >> 1 & 1);
    let size = match (layer, version) {
        (1, _) => (12 * bit_rate / sample_rate + padding) * 4,
        (3, 0 | 2) => 72 * bit_rate / sample_rate + padding,
        _ => 144 * bit_rate / sample_rate + padding,
    };
    (bit_rate > 0 && size > 4).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_of_recordings_and_of_what_only_resembles_them() {
        for (bytes, name) in [
            (b"RIFF\0\0\0\0WAVEfmt ".as_slice(), "wav"),
            (b"\0\0\0\x1cftypM4A ", "mp4"),
            (b"FORM\0\0\x10\0AIFF", "aiff"),
            (b"NIST_1A\n   1024\n", "sph"),
            (b"#!AMR-WB\n", "amr"),
            (b"ID3\x04\0\0\0\0\0\0", "mp3"),
        ] {
            assert_eq!(by_content(bytes), Some(name));
        }
        for bytes in [
            b"RIFF\0\0\0\0WEBPVP8 ".as_slice(),
            b"\0\0\0\x1cftypheic",
            b"FORM\0\0\x10\0ILBM",
            b"\xff\xfeh\0i\0",
            b"\x93NUMPY\x01\0",
            b"plain text",
            b"",
        ] {
            assert_eq!(by_content(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn what_stands_in_for_content_is_known() {
        for (bytes, kind) in [
            (b"".as_slice(), "an empty file"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer"),
            (b"/annex/objects/MD5E-s1--0.wav\n", "a git-annex pointer"),
            (b"\r\n<!DOCTYPE HTML PUBLIC>", "a web page (HTML)"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "an error message of a server (XML)"),
        ] {
            assert_eq!(stand_in(bytes).map(|found| found.kind), Some(kind));
        }
        for bytes in [b"RIFF\0\0\0\0WAVE".as_slice(), b"{}", b"<b>words</b>", b"<?xml version=\"1.0\"?><a/>"] {
            assert_eq!(stand_in(bytes), None);
        }
    }

    #[test]
    fn frames_of_mpeg_audio_count_when_two_follow_each_other() {
        // MPEG-1 layer III, 128 kbit/s, 44.1 kHz: 417 bytes.
        let mut bytes = vec![0; 1000];
        bytes[..4].copy_from_slice(&[0xff, 0xfb, 0x90, 0]);
        assert_eq!(by_content(&bytes), None);
        bytes[417..421].copy_from_slice(&[0xff, 0xfb, 0x90, 0]);
        assert_eq!(by_content(&bytes), Some("mp3"));
    }

    #[test]
    fn plain_samples_come_before_lossless_and_lossy_ones() {
        assert!(rank("WAV") < rank("flac") && rank("flac") < rank("mp3"));
        assert_eq!(rank("txt"), None);
    }
}
