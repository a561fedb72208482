//! Codecs that Flowmill does not decode are rejected by name, or decoded by the `ffmpeg` program where the recipe says so.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::flowmill::command;
use crate::support::mini::repository;
use crate::support::parquet;

/// A speech recording of 1.95 s.
fn speech() -> PathBuf {
    repository().join("tests/data/formats/good/mono_16k_s16.wav").canonicalize().unwrap()
}

/// A data directory with the given files and a recipe over it.
struct Corpus(TempDir);

impl Corpus {
    fn new(files: &[(&str, Vec<u8>)], fallback: &str) -> Self {
        let corpus = Self(tempfile::tempdir().unwrap());
        let data = corpus.path().join("data");
        fs::create_dir(&data).unwrap();
        let mut names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        files.iter().for_each(|(name, bytes)| fs::write(data.join(name), bytes).unwrap());
        let table = |value: &dyn Fn(&str) -> String| -> String {
            names.iter().map(|name| format!("{name} {}\n", value(name))).collect()
        };
        fs::write(data.join("wav.scp"), table(&str::to_owned)).unwrap();
        fs::write(data.join("text"), table(&|_| "Die Burg lag auf einem Berggrat.".into())).unwrap();
        fs::write(data.join("utt2spk"), table(&|_| "kerstin".into())).unwrap();
        corpus.write_recipe(fallback);
        corpus
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write_recipe(&self, fallback: &str) {
        let recipe = format!(
            "name: codecs\nmax_rejected: 1.0\n\
            prep: {{data: data, fallback: {fallback}, split: {{by: fraction, fractions: {{}}}}}}\n\
            embed: {{extractor: {{kind: statistics, n_mels: 8}}}}\n\
            tokens: {{extractor: {{kind: kmeans, k: 4, iterations: 2}}}}\n"
        );
        fs::write(self.path().join("recipe.yaml"), recipe).unwrap();
    }

    /// A program called ffmpeg that answers with the speech recording, whatever it is given, and notes its arguments.
    fn stand_in(&self, version: &str) {
        let folder = self.path().join("bin");
        fs::create_dir_all(&folder).unwrap();
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = -version ]; then echo 'ffmpeg version {version} Copyright'; exit 0; fi\n\
            echo \"$@\" >> '{}/calls'\nexec cat '{}'\n",
            self.path().display(),
            speech().display()
        );
        fs::write(folder.join("ffmpeg"), script).unwrap();
        fs::set_permissions(folder.join("ffmpeg"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs up to a stage with the stand-in, if there is one, and without any other ffmpeg.
    fn run(&self, stop: &str) -> (bool, String) {
        let tools = self.path().join("tools");
        fs::create_dir_all(&tools).unwrap();
        for tool in ["sh", "cat"] {
            let places = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(tool));
            let place = places.iter().find(|path| path.exists()).unwrap();
            if !tools.join(tool).exists() {
                std::os::unix::fs::symlink(place, tools.join(tool)).unwrap();
            }
        }
        let path = format!("{}:{}", self.path().join("bin").display(), tools.display());
        let output = command(self.path(), &["run", ".", "--stop-stage", stop]).env("PATH", path).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(!text.contains("panicked at"), "{text}");
        (output.status.success(), text)
    }

    /// The table of stage 0.
    fn table(&self) -> PathBuf {
        self.exp("0-prep/train/part-00000.parquet")
    }

    fn exp(&self, relative: &str) -> PathBuf {
        self.path().join("exp/codecs").join(relative)
    }

    /// The reason of every rejected row, by its id.
    fn reasons(&self) -> Vec<(String, String)> {
        let table = self.exp("0-prep/rejected.parquet");
        parquet::texts(&table, "id").into_iter().zip(parquet::texts(&table, "reason")).collect()
    }
}

/// Returns bytes that begin like a file of a format that only the fallback decodes.
fn beginning(signature: &[u8]) -> Vec<u8> {
    [signature, &[0; 2000]].concat()
}

/// An ADTS frame of AAC at 22.05 kHz in mono: one silent channel, and a fill element of the given extension.
fn adts_frame(extension: Option<u32>) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    let mut push = |value: u32, count: u32| bits.extend((0..count).rev().map(|at| value >> at & 1 == 1));
    // A single channel with tag 0; a gain of 0; a long window without bands or prediction; no pulses, noise shaping, gain control.
    [7, 8, 4, 7, 3].into_iter().for_each(|count| push(0, count));
    if let Some(extension) = extension {
        push(6, 3);
        push(2, 4);
        push(extension, 4);
        push(0, 12);
    }
    push(7, 3);
    let byte = |bits: &[bool]| (0..8).fold(0u8, |all, at| all << 1 | u8::from(bits.get(at).is_some_and(|bit| *bit)));
    let payload: Vec<u8> = bits.chunks(8).map(byte).collect();
    let length = payload.len() + 7;
    let header = [0xff, 0xf1, 0x5c, 0x40, (length >> 3) as u8, (length << 5) as u8 | 0x1f, 0xfc];
    [header.as_slice(), &payload].concat()
}

fn adts(extension: Option<u32>) -> Vec<u8> {
    std::iter::repeat_n(adts_frame(extension), 40).flatten().collect()
}

/// A NIST SPHERE file at 8 kHz in mono.
fn sphere(fields: &str, samples: &[u8]) -> Vec<u8> {
    let mut file =
        format!("NIST_1A\n   1024\nsample_rate -i 8000\nchannel_count -i 1\n{fields}end_head\n").into_bytes();
    file.resize(1024, b' ');
    file.extend_from_slice(samples);
    file
}

#[test]
fn what_is_not_decoded_is_rejected_by_codec_container_and_setting() {
    let shorten = "sample_n_bytes -i 2\nsample_coding -s26 pcm,embedded-shorten-v2.00\n";
    let files = [
        ("a.amr", beginning(b"#!AMR-WB\n"), "AMR-WB"),
        ("b.aac", adts(Some(0xd)), "HE-AAC (AAC with SBR) in ADTS"),
        ("c.wv", beginning(b"wvpk"), "WavPack"),
        ("d.sph", sphere(shorten, &[0; 2000]), "Shorten in NIST SPHERE"),
    ];
    let corpus = Corpus::new(&files.clone().map(|(name, bytes, _)| (name, bytes)), "none");
    corpus.run("prep");
    let reasons = corpus.reasons();
    assert_eq!(reasons.len(), files.len(), "{reasons:?}");
    for (id, _, words) in files {
        let reason = &reasons.iter().find(|(name, _)| name == id).unwrap().1;
        assert!(reason.contains(words) && reason.contains("prep.fallback: ffmpeg"), "{id}: {reason}");
    }
}

#[test]
fn fill_elements_of_aac_are_told_from_sbr_data() {
    // Padding, padding with a pattern, a data element, and dynamic range control.
    for extension in [None, Some(0x0), Some(0x1), Some(0x2), Some(0xb)] {
        let corpus = Corpus::new(&[("lc.aac", adts(extension))], "none");
        let (_, text) = corpus.run("prep");
        assert!(corpus.table().exists(), "{extension:?}: {text}");
        let seconds = parquet::numbers(&corpus.table(), "duration")[0];
        assert!((seconds - 40.0 * 1024.0 / 22_050.0).abs() < 0.05, "{extension:?}: {seconds}");
    }
    // SBR data with a checksum.
    let corpus = Corpus::new(&[("he.aac", adts(Some(0xe)))], "none");
    corpus.run("prep");
    assert!(corpus.reasons()[0].1.contains("SBR"));
}

#[test]
fn sphere_samples_of_either_byte_order_are_read() {
    let ramp: Vec<i16> = (0..8000).map(|at| (at % 200) * 100 - 10_000).collect();
    let fields = |order: &str| format!("sample_count -i 8000\nsample_n_bytes -i 2\nsample_byte_format -s2 {order}\n");
    let little: Vec<u8> = ramp.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let big: Vec<u8> = ramp.iter().flat_map(|sample| sample.to_be_bytes()).collect();
    let expected: Vec<f32> = ramp.iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
    for (order, samples) in [("01", little), ("10", big)] {
        let audio = flowmill_audio::decode_bytes(&sphere(&fields(order), &samples), "x.sph").unwrap();
        assert_eq!((&audio.samples[0], audio.sample_rate), (&expected, 8000), "{order}");
    }
}

#[test]
fn the_fallback_serves_all_stages_and_its_absence_is_no_result() {
    let names = ["-i.amr", "x.amr", "y.amr", "z.amr"];
    let corpus = Corpus::new(&names.map(|name| (name, beginning(b"#!AMR\n"))), "ffmpeg");
    corpus.run("prep");
    let reasons = corpus.reasons();
    assert_eq!(reasons.len(), names.len());
    assert!(reasons.iter().all(|(_, reason)| reason.contains("not installed")), "{reasons:?}");
    // Installed, the same command decodes.
    corpus.stand_in("9.9-test");
    let (good, text) = corpus.run("pack");
    assert!(good, "{text}");
    assert_eq!(parquet::texts(&corpus.table(), "decoder"), vec!["ffmpeg 9.9-test"; names.len()]);
    assert!(parquet::numbers(&corpus.table(), "duration").iter().all(|seconds| (seconds - 1.95).abs() < 1e-9));
    let receipt = fs::read_to_string(corpus.exp("0-prep/receipts/train/part-00000.json")).unwrap();
    assert!(receipt.contains("ffmpeg 9.9-test"), "{receipt}");
    // No name of a file reaches the command line.
    let calls = fs::read_to_string(corpus.path().join("calls")).unwrap();
    assert!(!calls.contains(".amr") && calls.contains("-nostdin") && calls.contains("file:/dev/stdin"), "{calls}");
    // Gone again, what was good stays.
    fs::remove_file(corpus.path().join("bin/ffmpeg")).unwrap();
    let (good, text) = corpus.run("pack");
    assert!(good, "{text}");
    assert_eq!(parquet::texts(&corpus.table(), "decoder").len(), names.len());
}

#[test]
fn turning_the_fallback_on_tries_rejected_rows_again() {
    let corpus = Corpus::new(&[("a.wv", beginning(b"wvpk"))], "none");
    corpus.stand_in("9.9-test");
    corpus.run("prep");
    assert_eq!(corpus.reasons().len(), 1);
    corpus.write_recipe("ffmpeg");
    let (good, text) = corpus.run("prep");
    assert!(good, "{text}");
    assert_eq!(parquet::texts(&corpus.table(), "utt"), ["a.wv"]);
}

#[test]
fn the_real_ffmpeg_gives_the_samples_of_a_lossless_file() {
    if !Command::new("ffmpeg").arg("-version").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: ffmpeg is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("speech.tta");
    let mut encoder = Command::new("ffmpeg");
    assert!(encoder.args(["-nostdin", "-v", "error", "-i"]).arg(speech()).arg(&file).status().unwrap().success());
    let bytes = fs::read(&file).unwrap();
    let original = flowmill_audio::decode_file(speech()).unwrap();
    assert!(flowmill_audio::decode_bytes(&bytes, "speech.tta").is_err());
    let decoded = flowmill_audio::Decoder::with_ffmpeg().decode(&bytes, "speech.tta").unwrap();
    assert_eq!((decoded.samples, decoded.sample_rate), (original.samples, original.sample_rate));
}

#[test]
fn doctor_tells_which_ffmpeg_there_is() {
    let corpus = Corpus::new(&[("a.amr", beginning(b"#!AMR\n"))], "ffmpeg");
    let doctor = |corpus: &Corpus| {
        let path = corpus.path().join("bin");
        let output = command(corpus.path(), &["doctor", "."]).env("PATH", path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find(|line| line.contains("ffmpeg")).unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    assert!(doctor(&corpus).contains("not installed"));
    corpus.stand_in("9.9-test");
    assert!(doctor(&corpus).contains("9.9-test"));
}

#[test]
fn the_fallback_decodes_members_of_tar_files() {
    let corpus = Corpus::new(&[], "ffmpeg");
    corpus.stand_in("9.9-test");
    let member = |name: &str, content: &[u8]| {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
        [&header[..], content, &padding].concat()
    };
    let tar = [
        member("a.amr", &beginning(b"#!AMR\n")),
        member("a.txt", b"Die Burg lag auf einem Berggrat."),
        member("b.wav", &fs::read(speech()).unwrap()),
        member("b.txt", b"Die Burg lag auf einem Berggrat."),
        vec![0; 1024],
    ]
    .concat();
    fs::remove_dir_all(corpus.path().join("data")).unwrap();
    fs::create_dir(corpus.path().join("data")).unwrap();
    fs::write(corpus.path().join("data/shard.tar"), tar).unwrap();
    let recipe = fs::read_to_string(corpus.path().join("recipe.yaml")).unwrap();
    fs::write(corpus.path().join("recipe.yaml"), recipe.replace("data: data", "data: data, format: webdataset"))
        .unwrap();
    let (good, text) = corpus.run("pack");
    assert!(good, "{text}");
    // Only the row that needs it names the program.
    assert_eq!(parquet::texts(&corpus.table(), "decoder"), ["ffmpeg 9.9-test", ""]);
    assert!(parquet::numbers(&corpus.table(), "duration").iter().all(|seconds| (seconds - 1.95).abs() < 1e-9));
}

#[test]
fn the_fallback_decodes_segments_of_recordings() {
    let corpus = Corpus::new(&[("r.amr", beginning(b"#!AMR\n"))], "ffmpeg");
    corpus.stand_in("9.9-test");
    let data = corpus.path().join("data");
    fs::write(data.join("segments"), "u0 r.amr 0.0 0.9\nu1 r.amr 0.9 1.8\n").unwrap();
    fs::write(data.join("text"), "u0 Die Burg\nu1 lag auf\n").unwrap();
    fs::write(data.join("utt2spk"), "u0 kerstin\nu1 kerstin\n").unwrap();
    let (good, text) = corpus.run("pack");
    assert!(good, "{text}");
    assert_eq!(parquet::texts(&corpus.table(), "decoder"), ["ffmpeg 9.9-test"; 2]);
    assert!(parquet::numbers(&corpus.table(), "duration").iter().all(|seconds| (seconds - 0.9).abs() < 1e-9));
}
