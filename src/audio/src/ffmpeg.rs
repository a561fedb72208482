//! The `ffmpeg` program as the decoder of formats that this crate does not decode.
//!
//! The recording is passed on the program's standard input, as an unnamed file in which it can seek, so that nothing of a corpus
//! appears on the command line. The program may open that file only, reads containers of sound only (no playlists, which refer to other
//! files), and returns a WAV file of 32-bit float samples at the recording's own rate and channels.

use std::io::{Seek, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::audio::{Audio, DecodeWarning};
use crate::decode::{Decoded, MAX_SAMPLES, decode_named};
use crate::error::Fault;
use crate::program::{self, ProgramError, ProgramLimits};

/// The program's name, searched on `PATH`.
pub const PROGRAM: &str = "ffmpeg";

/// The longest one recording may take, in seconds.
const MAX_SECONDS: u64 = 600;

/// Containers of sound that the program may detect; no playlists, scripts, pictures or devices.
const FORMATS: &str = "3dostr,4xm,aa,aac,aax,ac3,acm,act,adf,adp,ads,adx,aea,afc,aiff,aix,alp,amr,amrnb,amrwb,ape,apm,aptx,aptx_hd,\
    asf,ast,au,avi,avr,bfstm,bonk,brstm,caf,codec2,dsf,dss,dts,dtshd,eac3,epaf,evc,flac,flv,fsb,fwse,g722,g723_1,g729,gsm,hca,hcom,\
    iff,ilbc,ircam,iss,kvag,laf,latm,lc3,loas,loxm,lvf,matroska,webm,mlp,mmf,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,\
    msf,mtaf,musx,nistsphere,nsp,nut,oga,ogg,oma,osq,paf,pmp,pp_bnk,pvf,qcp,qoa,rka,rl2,rm,rso,sbc,sds,sdr2,shn,sln,smjpeg,sol,sox,\
    spdif,svag,svs,swf,tak,truehd,tta,voc,vpk,vqf,w64,wady,wav,wavarc,wsaud,wsd,wsvqa,wtv,wv,wve,xa,xvag,xwma";

/// Returns the version of the installed program, as it prints it; `None` if there is none that answers.
pub fn version() -> Option<String> {
    let limits = ProgramLimits { time: Duration::from_secs(20), bytes: 1 << 16 };
    let output = program::run(command().arg("-version"), &limits).ok()?;
    let text = String::from_utf8_lossy(&output.bytes);
    let line = text.lines().next()?.trim();
    let version = line.strip_prefix("ffmpeg version ").map_or(line, |rest| rest.split(' ').next().unwrap_or(rest));
    let printable = version.chars().filter(|c| !c.is_control()).take(100).collect::<String>();
    (!printable.is_empty()).then_some(printable)
}

/// Returns the program in an environment that does not influence it, without arguments.
pub fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    command.stdin(Stdio::null()).env_remove("FFREPORT").env("AV_LOG_FORCE_NOCOLOR", "1");
    command
}

/// Decodes the first audio track of a recording that was rejected with `refusal`, which names codec and container.
pub(crate) fn decode(bytes: &[u8], refusal: &Fault) -> Result<Decoded, Fault> {
    let (codec, container) = match refusal {
        Fault::UnsupportedCodec { container, codec } => (codec.clone(), container.clone()),
        _ => ("an unknown codec".to_owned(), "an unknown container".to_owned()),
    };
    let mut input = tempfile::tempfile()?;
    input.write_all(bytes)?;
    input.rewind()?;
    let limits = ProgramLimits { time: Duration::from_secs(MAX_SECONDS), bytes: MAX_SAMPLES * 4 + (1 << 16) };
    let output = program::run(command().stdin(input).args(arguments()), &limits).map_err(|error| match error {
        ProgramError::Missing => Fault::FallbackMissing { codec: codec.clone(), container: container.clone() },
        ProgramError::Io(error) => Fault::Io(error),
        error => {
            let problem = plain(&error.to_string()).join("; ");
            Fault::FallbackFailed { codec: codec.clone(), container: container.clone(), problem }
        }
    })?;
    let Decoded { audio, .. } = decode_named(&output.bytes, "").map_err(|fault| Fault::FallbackFailed {
        codec: codec.clone(),
        container: container.clone(),
        problem: format!("wrote output that cannot be read: {fault}"),
    })?;
    let mut warnings: Vec<DecodeWarning> =
        audio.warnings.into_iter().filter(|warning| !matches!(warning, DecodeWarning::StreamedSize)).collect();
    let complaint = plain(&output.complaint);
    if let Some(first) = complaint.first() {
        warnings.push(DecodeWarning::FallbackComplaint { lines: complaint.len() as u64, first: first.clone() });
    }
    Ok(Decoded { audio: Audio { warnings, ..audio }, codec, container })
}

/// Returns the lines of a complaint without the parts that differ from run to run: the program adds memory addresses to names.
pub fn plain(complaint: &str) -> Vec<String> {
    let without_address = |line: &str| match line.split_once(" @ 0x") {
        Some((name, rest)) => format!("{name}{}", rest.trim_start_matches(|c: char| c.is_ascii_hexdigit())),
        None => line.to_owned(),
    };
    let lines = complaint.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| without_address(&line.replace("file:/dev/stdin: ", ""))).collect()
}

/// Returns the arguments by which the program reads its standard input and nothing else, without its own messages.
pub fn input_arguments() -> Vec<&'static str> {
    let global = ["-nostdin", "-hide_banner", "-nostats", "-loglevel", "error"];
    let input = [
        "-protocol_whitelist",
        "file",
        "-format_whitelist",
        FORMATS,
        "-flags",
        "+bitexact",
        "-threads",
        "1",
        "-i",
        "file:/dev/stdin",
    ];
    global.into_iter().chain(input).collect()
}

/// The program's arguments, the same for every recording.
fn arguments() -> Vec<&'static str> {
    let output = [
        "-map",
        "0:a:0",
        "-map_metadata",
        "-1",
        "-map_chapters",
        "-1",
        "-flags",
        "+bitexact",
        "-fflags",
        "+bitexact",
        "-threads",
        "1",
        "-c:a",
        "pcm_f32le",
        "-f",
        "wav",
        "pipe:1",
    ];
    input_arguments().into_iter().chain(output).collect()
}
