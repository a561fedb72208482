//! Names of codecs for messages, by the ids that containers use. The decoders, not these names, determine what is
//! decoded.

/// The codec of a RIFF format tag (WAV, AVI, ASF, Matroska's `A_MS/ACM`).
pub(super) fn riff(tag: u16) -> String {
    let name = match tag {
        0x0001 => "PCM",
        0x0002 => "MS ADPCM",
        0x0003 => "floating-point PCM",
        0x0006 => "A-law",
        0x0007 => "mu-law",
        0x0008 | 0x2001 => "DTS",
        0x000a => "WMA Voice",
        0x0010 => "OKI ADPCM",
        0x0011 => "IMA ADPCM",
        0x0014 => "G.723 ADPCM",
        0x0015 => "DIGISTD ADPCM",
        0x0017 => "Dialogic ADPCM",
        0x0020 => "Yamaha ADPCM",
        0x0022 => "TrueSpeech",
        0x0031 | 0x0032 | 0x1500 => "GSM 06.10",
        0x0040 => "G.721 ADPCM",
        0x0042 | 0x0111 => "G.723.1",
        0x0045 | 0x0064 => "G.726 ADPCM",
        0x0050 => "MP2",
        0x0055 => "MP3",
        0x0057 => "AMR-NB",
        0x0058 => "AMR-WB",
        0x0059..=0x0065 => "ADPCM",
        0x0069 => "IMA ADPCM (Xbox)",
        0x0070..=0x0079 => "VoxWare",
        0x0083 => "G.729",
        0x00ff | 0x1600 | 0x1601 | 0x706d | 0x4143 | 0xa106 => "AAC",
        0x1602 => "AAC (LATM)",
        0x1610 => "HE-AAC",
        0x0092 | 0x2000 => "AC-3",
        0x0160 => "WMA 1",
        0x0161 => "WMA 2",
        0x0162 => "WMA Pro",
        0x0163 => "WMA Lossless",
        0x0200 => "Creative ADPCM",
        0x0270 => "ATRAC3",
        0x028f => "G.722",
        0x0401 => "IMC",
        0x0402 => "Indeo audio",
        0x566f | 0x674f..=0x6751 | 0x676f..=0x6771 => "Vorbis",
        0x704f => "Opus",
        0xa109 => "Speex",
        0xf1ac => "FLAC",
        0xfffe => "a codec that only its GUID names",
        _ => return format!("a codec with the RIFF format tag {tag:#06x}"),
    };
    name.to_owned()
}

/// The codec of a sample entry of MP4 and QuickTime.
pub(super) fn sample_entry(id: [u8; 4]) -> String {
    let name = match &id {
        b"samr" => "AMR-NB",
        b"sawb" => "AMR-WB",
        b"sawp" => "AMR-WB+",
        b"ac-3" | b"sac3" => "AC-3",
        b"ec-3" => "E-AC-3",
        b"ac-4" => "AC-4",
        b"mlpa" => "TrueHD",
        b"dtsc" | b"dtse" | b"dtsh" | b"dtsl" | b"dtsx" => "DTS",
        b"Opus" => "Opus",
        b"fLaC" => "FLAC",
        b"alac" => "ALAC",
        b"mp4a" => "MPEG-4 audio",
        b".mp3" => "MP3",
        b".mp2" => "MP2",
        b"QDM2" | b"QDMC" => "QDesign Music",
        b"Qclp" | b"qclp" | b"sqcp" => "QCELP",
        b"sevc" => "EVRC",
        b"ssmv" => "SMV",
        b"ima4" => "IMA ADPCM",
        b"MAC3" => "MACE 3:1",
        b"MAC6" => "MACE 6:1",
        b"agsm" => "GSM 06.10",
        b"alaw" => "A-law",
        b"ulaw" => "mu-law",
        b"spex" | b"SPXN" => "Speex",
        b"mha1" | b"mha2" | b"mhm1" | b"mhm2" => "MPEG-H audio",
        b"wma " | b"owma" => "WMA",
        b"enca" => "encrypted audio",
        b"drms" | b"aavd" => "AAC with copy protection",
        b"ipcm" | b"fpcm" | b"lpcm" | b"sowt" | b"twos" | b"in24" | b"in32" | b"fl32" | b"fl64" | b"raw " | b"NONE" => {
            "PCM"
        }
        [b'm', b's', high, low] => return riff(u16::from_be_bytes([*high, *low])),
        _ => return format!("a codec with the id {}", four_characters(id)),
    };
    name.to_owned()
}

/// The codec of an object type indication of MP4; `None` for MPEG-4 audio, whose configuration says more.
pub(super) fn object_type_indication(indication: u8) -> Option<String> {
    let name = match indication {
        0x40 | 0x67 => return None,
        0x66 => "AAC Main",
        0x68 => "AAC SSR",
        0x69 | 0x6b => "MP3",
        0xa5 => "AC-3",
        0xa6 => "E-AC-3",
        0xa9..=0xac => "DTS",
        0xad => "Opus",
        0xa0 => "EVRC",
        0xa1 => "SMV",
        0xdd => "Vorbis",
        0xe1 => "QCELP",
        _ => return Some(format!("a codec with the MP4 object type {indication:#04x}")),
    };
    Some(name.to_owned())
}

/// The codec of a Matroska codec id.
pub(super) fn matroska(id: &str) -> String {
    let name = match id {
        "A_AAC" => "AAC",
        "A_OPUS" => "Opus",
        "A_VORBIS" => "Vorbis",
        "A_FLAC" => "FLAC",
        "A_ALAC" => "ALAC",
        "A_MPEG/L1" => "MP1",
        "A_MPEG/L2" => "MP2",
        "A_MPEG/L3" => "MP3",
        "A_EAC3" => "E-AC-3",
        "A_TRUEHD" => "TrueHD",
        "A_MLP" => "MLP",
        "A_MPC" => "Musepack",
        "A_TTA1" => "TTA",
        "A_WAVPACK4" => "WavPack",
        "A_ATRAC/AT1" => "ATRAC1",
        "A_QUICKTIME/QDMC" | "A_QUICKTIME/QDM2" => "QDesign Music",
        _ if id.contains("/SBR") => "HE-AAC (AAC with SBR)",
        _ if id.starts_with("A_AAC/") => "AAC",
        _ if id.starts_with("A_AC3") => "AC-3",
        _ if id.starts_with("A_DTS") => "DTS",
        _ if id.starts_with("A_REAL/") => "RealAudio",
        _ if id.starts_with("A_PCM/") => "PCM",
        _ => return format!("the codec {}", id.chars().filter(|c| c.is_ascii_graphic()).take(40).collect::<String>()),
    };
    name.to_owned()
}

/// The codec of a CAF format id.
pub(super) fn caf(id: [u8; 4]) -> String {
    let name = match &id {
        b"aac " => "AAC",
        b"aach" => "HE-AAC (AAC with SBR)",
        b"aacp" => "HE-AAC v2 (AAC with SBR and PS)",
        b"aacl" => "AAC-LD",
        b"aace" | b"aacf" | b"aacg" => "AAC-ELD",
        b"usac" => "xHE-AAC (USAC)",
        b"flac" => "FLAC",
        b"opus" => "Opus",
        b"ilbc" => "iLBC",
        b".mp1" => "MP1",
        b"AMRW" => "AMR-WB",
        _ => return sample_entry(id),
    };
    name.to_owned()
}

/// The codec of an AIFF-C compression type.
pub(super) fn aiff(id: [u8; 4]) -> String {
    let name = match &id {
        b"G722" => "G.722",
        b"G726" => "G.726 ADPCM",
        b"G728" => "G.728",
        b"GSM " => "GSM 06.10",
        b"ACE2" | b"ACE8" => "ACE",
        b"ADP4" => "ADPCM",
        b"ALAW" => "A-law",
        b"ULAW" => "mu-law",
        b"DWVW" => "DWVW",
        b"sdx2" => "SDX2 DPCM",
        _ => return sample_entry(id),
    };
    name.to_owned()
}

/// The codec that the first packet of an Ogg stream names; `None` if it is unknown.
pub(super) fn ogg(packet: &[u8]) -> Option<&'static str> {
    let table: [(&[u8], &str); 12] = [
        (b"\x01vorbis", "Vorbis"),
        (b"OpusHead", "Opus"),
        (b"\x7fFLAC", "FLAC"),
        (b"fLaC", "FLAC"),
        (b"Speex   ", "Speex"),
        (b"CELT    ", "CELT"),
        (b"PCM     ", "PCM"),
        (b"\x80theora", "Theora video"),
        (b"BBCD\0", "Dirac video"),
        (b"OVP80", "VP8 video"),
        (b"\x01video", "OGM video"),
        (b"\x80kate", "Kate subtitles"),
    ];
    table.into_iter().find(|(beginning, _)| packet.starts_with(beginning)).map(|(_, name)| name)
}

/// Formats four characters, if they are printable.
fn four_characters(id: [u8; 4]) -> String {
    let printable = id.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    if printable { format!("{:?}", String::from_utf8_lossy(&id)) } else { format!("{:#010x}", u32::from_be_bytes(id)) }
}
