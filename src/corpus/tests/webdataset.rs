//! WebDataset tar files as a source: good, unusual and hostile ones.

mod support;
#[path = "../../../tests/support/tar.rs"]
mod tar_support;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use flowmill_corpus::source::{PipeLimits, Source};
use flowmill_corpus::tar::{MemberKind, Members, TarFault};
use flowmill_corpus::webdataset::read;
use flowmill_corpus::{CorpusError, Ids, ReadOptions, Reading};
use support::{expect_rejected, ids, reason};
use tar_support::Tar;

fn pair(mut tar: Tar, key: &str) -> Tar {
    let json = format!("{{\"text\": \"words of {key}\", \"speaker\": \"anna\"}}");
    tar.file(&format!("{key}.flac"), key).file(&format!("{key}.json"), json);
    tar
}

/// Returns a NumPy file of one second of silence at 8 kHz.
fn silence() -> Vec<u8> {
    let header = format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (8000,), }");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + 4 * 8000, 0);
    bytes
}

#[test]
fn members_have_the_names_that_the_recipe_gives() {
    let mut tar = Tar::new();
    tar.file("a.clean.flac", "clean")
        .file("a.noisy.flac", "noisy")
        .file("a.caption.txt", "Words")
        .file("a.cls", "17\n");
    tar.file("b.wav.npy", silence()).file("b.txt", "Array").file("b.meta.json", r#"{"sample_rate": 8000, "snr": 3}"#);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("train-0.tar"), tar.done()).unwrap();
    let renames = [("audio", "clean.flac"), ("text", "caption.txt"), ("speaker", "cls")];
    let renames = renames.map(|(to, from)| (to.to_owned(), from.to_owned()));
    let columns = [
        flowmill_corpus::ColumnSpec::parse("snr", "f64 (optional)").unwrap(),
        flowmill_corpus::ColumnSpec::parse("cls", "i64 (optional)").unwrap(),
    ];
    let options = ReadOptions { renames: &renames, columns: &columns, ..ReadOptions::default() };
    let reading = read(dir.path(), "train-0.tar", &options).unwrap();
    assert_eq!(ids(&reading), ["a", "b"], "{:?}", reading.rejected);
    let (a, b) = (reading.utterances.row(0), reading.utterances.row(1));
    assert_eq!((a.spk, a.text, a.split), ("17", "Words", Some("train")));
    assert_eq!(bytes_of(dir.path(), a.wav), b"clean");
    assert_eq!(a.extra.unwrap().columns["cls"], flowmill_corpus::Array::scalar(17i64));
    assert_eq!((b.text, b.extra.unwrap().columns["snr"].clone()), ("Array", flowmill_corpus::Array::scalar(3.0f64)));
    assert!(b.wav.contains("#b.wav.npy~8000@"), "{}", b.wav);
    assert_eq!(flowmill_audio::probe_bytes(&bytes_of(dir.path(), b.wav), "b.wav").unwrap().seconds(), 1.0);
    // A list of tar files, as WeNet writes it.
    fs::create_dir_all(dir.path().join("lists")).unwrap();
    fs::write(dir.path().join("lists/data.list"), "../train-0.tar\n").unwrap();
    assert_eq!(flowmill_corpus::detect::detect(&dir.path().join("lists/data.list")).unwrap().format, "webdataset");
    assert_eq!(ids(&read(dir.path(), "lists/data.list", &options).unwrap()), ["a", "b"]);
    // Without the rate.
    let mut tar = Tar::new();
    tar.file("c.npy", silence()).file("c.txt", "Array");
    fs::write(dir.path().join("c.tar"), tar.done()).unwrap();
    expect_rejected(&read(dir.path(), "c.tar", &ReadOptions::default()).unwrap(), "c", "no sampling rate", &["c.npy"]);
    let rate = ReadOptions { sample_rate: Some(8000), ..ReadOptions::default() };
    assert_eq!(ids(&read(dir.path(), "c.tar", &rate).unwrap()), ["c"]);
}

fn read_one(bytes: &[u8]) -> Reading {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.tar"), bytes).unwrap();
    let reading = read(dir.path(), "s.tar", &ReadOptions::default()).unwrap();
    assert_eq!(reading.lines as usize, reading.utterances.len() + reading.rejected.len());
    reading
}

/// Returns the bytes of a row's recording.
fn bytes_of(root: &Path, wav: &str) -> Vec<u8> {
    Source::of(wav).read(root, &PipeLimits::default()).unwrap()
}

#[test]
fn rows_of_a_folder_a_pattern_and_a_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("data/more")).unwrap();
    fs::write(dir.path().join("data/s-00.tar"), pair(pair(Tar::new(), "b"), "a").done()).unwrap();
    let mut text = Tar::new();
    text.file("./deep/c.wav", b"C").file("./deep/c.txt", b"\xEF\xBB\xBFone\r\ntwo \n").file("x.npy", b"1");
    fs::write(dir.path().join("data/s-01.tar"), text.done()).unwrap();
    fs::write(dir.path().join("data/more/z.tar"), pair(Tar::new(), "z").done()).unwrap();
    let options = ReadOptions { speaker: Some("eve"), ..ReadOptions::default() };
    let reading = read(dir.path(), "data", &options).unwrap();
    assert_eq!(ids(&reading), ["a", "b", "deep-c", "z"]);
    assert_eq!(reading.files.len(), 3);
    let row = reading.utterances.row(2);
    assert_eq!((row.spk, row.text), ("eve", "one two"));
    assert!(row.wav.starts_with("data/s-01.tar#deep/c.wav@512+1"), "{}", row.wav);
    for row in reading.utterances.iter().filter(|row| row.spk == "anna") {
        assert_eq!(bytes_of(dir.path(), row.wav), row.utt.as_bytes());
        assert_eq!(row.text, format!("words of {}", row.utt));
    }
    assert!(reading.warnings.iter().any(|warning| warning.contains("1 .npy")), "{:?}", reading.warnings);
    assert_eq!(ids(&read(dir.path(), "data/s-{00..01}.tar", &options).unwrap()), ["a", "b", "deep-c"]);
    assert_eq!(ids(&read(dir.path(), "data/s-00.tar", &options).unwrap()), ["a", "b"]);
    // The end of the path that is to blame, and what is said of it.
    let problem = |data: &str| match read(dir.path(), data, &options).unwrap_err() {
        CorpusError::Structure { path, problem } if path.ends_with(data) => problem,
        other => panic!("{other}"),
    };
    let missing = problem("data/s-{00..04}.tar");
    assert!(["3 of its 5", "data/s-02.tar"].iter().all(|value| missing.contains(value)), "{missing}");
    assert!(problem("data/s-00.zip").contains("`.tar`"));
    problem("nothing.tar");
}

#[test]
fn shards_that_count_from_zero_need_their_name_in_the_ids() {
    let dir = tempfile::tempdir().unwrap();
    for shard in ["zh_0", "zh_1"] {
        fs::write(dir.path().join(format!("{shard}.tar")), pair(Tar::new(), "000000").done()).unwrap();
    }
    let plain = read(dir.path(), "zh_{0..1}.tar", &ReadOptions::default()).unwrap();
    assert_eq!(ids(&plain), ["000000"]);
    expect_rejected(&plain, "000000", "repeated id", &["zh_1.tar: 000000.flac", "zh_0.tar", "ids: shard"]);
    let named = read(dir.path(), "zh_{0..1}.tar", &ReadOptions { ids: Ids::Shard, ..ReadOptions::default() }).unwrap();
    assert_eq!((ids(&named), named.rejected.len()), (vec!["zh_0-000000", "zh_1-000000"], 0));
}

#[test]
fn compressed_files_are_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.tar"), b"\x1f\x8b\x08\0\0\0\0\0").unwrap();
    let error = read(dir.path(), "a.tar", &ReadOptions::default()).unwrap_err();
    assert!(matches!(&error, CorpusError::Structure { path, .. } if path.ends_with("a.tar")), "{error}");
    assert!(["(gzip)", "`gunzip`"].iter().all(|value| error.to_string().contains(value)), "{error}");
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/b.tar.xz"), b"").unwrap();
    let error = read(dir.path(), "d", &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("b.tar.xz") && error.contains("unxz"), "{error}");
}

#[test]
fn long_names_of_every_kind_are_those_that_the_tar_crate_reads() {
    let deep = format!("{}/{}", "d".repeat(140), "n".repeat(90));
    let longest = format!("{}.flac", "ü".repeat(300));
    let mut tar = Tar::new();
    tar.file(&format!("{deep}.flac"), b"gnu").file(&longest, b"longer");
    let mut header = tar::Header::new_ustar();
    header.set_path(format!("{deep}.json")).unwrap();
    header.set_size(3);
    header.set_cksum();
    tar.0.append(&header, b"{ }".as_slice()).unwrap();
    tar.0.append_pax_extensions([("path", "short.flac".as_bytes()), ("mtime", b"1.5")]).unwrap();
    let bytes = tar.raw(b"other.flac", b'0', 700, &[7; 700]).raw(b"dir/", b'5', 0, b"").done();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.tar"), &bytes).unwrap();
    let file = File::open(dir.path().join("s.tar")).unwrap();
    let ours: Vec<(Vec<u8>, Vec<u8>)> = Members::of(&file)
        .unwrap()
        .map(Result::unwrap)
        .filter(|member| member.kind == MemberKind::File)
        .map(|member| {
            let from = member.offset as usize;
            (member.name, bytes[from..from + member.size as usize].to_vec())
        })
        .collect();
    let mut theirs = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if entry.header().entry_type() == tar::EntryType::Regular {
            theirs.push((entry.path_bytes().into_owned(), content));
        }
    }
    assert_eq!(ours.len(), 4);
    assert_eq!(ours, theirs);
    assert_eq!(ours[3].0, b"short.flac");
}

#[test]
fn hostile_and_broken_members_are_rejected_by_name_and_the_others_stay() {
    let mut tar = pair(Tar::new(), "good");
    tar.raw(b"/etc/passwd.flac", b'0', 1, b"x")
        .raw(b"a/../../up.flac", b'0', 1, b"x")
        .raw(b"..", b'0', 1, b"x")
        .raw(b"link.flac", b'2', 0, b"")
        .raw(b"hard.flac", b'1', 0, b"")
        .raw(b"dev.flac", b'4', 0, b"")
        .raw(b"pipe.flac", b'6', 0, b"")
        .raw(b"sparse.flac", b'S', 1, b"x")
        .raw(b"caf\xE9.flac", b'0', 1, b"x")
        .raw(b"bell\x07.flac", b'0', 1, b"x")
        .raw(b"a//b.flac", b'0', 1, b"x")
        .file("mute.flac", b"x")
        .file("lonely.json", b"{\"text\": \"t\"}")
        .file("cut.flac", b"x")
        .file("cut.json", b"{\"text\": ")
        .file("wordless.flac", b"x")
        .file("wordless.json", b"{\"speaker\": \"s\"}")
        .file("odd.flac", b"x")
        .file("odd.txt", b"caf\xE9")
        .file("huge.flac", b"x")
        .file("huge.txt", vec![b'w'; (1 << 20) + 1])
        .file("two.flac", b"x")
        .file("two.wav", b"x")
        .file("two.txt", b"t")
        .file("name.flac", b"x")
        .file("name.json", b"{\"id\": \"a\\u0000b\", \"text\": \"t\"}")
        .file("good.flac", b"again");
    let reading = read_one(&tar.done());
    assert_eq!(ids(&reading), ["good", "two"]);
    let two = reading.utterances.row(1);
    assert!(two.wav.starts_with("s.tar#two.wav@"), "{}", two.wav);
    let warnings = reading.warnings.join("\n");
    assert!(warnings.contains("two.flac (taken: s.tar: two.wav)"), "{warnings}");
    for (id, kind, value) in [
        ("/etc/passwd.flac", "bad member", "`/etc/passwd.flac`"),
        ("a/../../up.flac", "bad member", "`..`"),
        ("..", "bad member", "`..`"),
        ("link.flac", "bad member", "a symbolic link"),
        ("hard.flac", "bad member", "a hard link"),
        ("dev.flac", "bad member", "a device"),
        ("pipe.flac", "bad member", "a named pipe"),
        ("sparse.flac", "bad member", "a sparse file"),
        ("caf\u{fffd}.flac", "bad member", "UTF-8"),
        ("bell\u{fffd}.flac", "bad member", "`bell\u{fffd}.flac`"),
        ("a//b.flac", "bad member", "`a//b.flac`"),
        ("mute", "no transcript", "mute.flac"),
        ("lonely", "no recording", "lonely.json"),
        ("cut", "bad transcript", "cut.json"),
        ("wordless", "no transcript", "wordless.json"),
        ("odd", "transcript not UTF-8", "odd.txt:1"),
        ("huge", "bad transcript", "1048577 bytes"),
        ("name", "bad id", "U+0000"),
        ("good", "repeated member", "good.flac at byte"),
    ] {
        expect_rejected(&reading, id, kind, &["s.tar", value]);
    }
    assert_eq!(reading.rejected.len(), 19);
}

/// Returns the error that ends the reading of a tar file.
#[track_caller]
fn fault(bytes: &[u8]) -> TarFault {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.tar"), bytes).unwrap();
    let file = File::open(dir.path().join("s.tar")).unwrap();
    Members::of(&file).unwrap().find_map(Result::err).expect("a damaged file").problem
}

/// Returns the rows read from a damaged tar file, whose damage is a rejection and a warning.
#[track_caller]
fn damaged(bytes: &[u8]) -> Reading {
    let reading = read_one(bytes);
    expect_rejected(&reading, "s.tar", "damaged tar", &["s.tar: at byte "]);
    assert!(
        reading.warnings.iter().any(|warning| warning.contains(reason(&reading, "s.tar"))),
        "{:?}",
        reading.warnings
    );
    reading
}

#[test]
fn damaged_archives_keep_what_is_before_the_damage() {
    let zeros = |tar: &mut Tar| [tar.cut(), vec![0; 1024]].concat();
    let claims = |size: u64| pair(Tar::new(), "a").raw(b"big.flac", b'0', size, b"").done();
    let mut flipped = pair(pair(Tar::new(), "a"), "b").done();
    flipped[4 * 512 + 10] ^= 1;
    let pax = |record: &[u8]| {
        let mut tar = pair(Tar::new(), "a");
        tar.raw(b"p", b'x', record.len() as u64, record);
        tar
    };
    let whole = pair(Tar::new(), "a").done();
    let cut = |there| TarFault::CutMember { name: "big.flac".into(), size: 1 << 30, there };
    let content = |size| TarFault::ContentOfNoFile { name: "link".into(), size };
    let end = pair(Tar::new(), "a").cut().len() as u64;
    for (bytes, fault) in [
        (claims(1 << 30), cut(1024)),
        (flipped, TarFault::Checksum),
        (
            pair(Tar::new(), "a").raw(b"l", b'L', 1 << 33, b"").done(),
            TarFault::LongExtension { size: 1 << 33, limit: 1 << 20 },
        ),
        (pair(Tar::new(), "a").raw(b"l", b'L', 5000, b"").done(), TarFault::CutExtension),
        (zeros(pair(Tar::new(), "a").raw(b"l", b'L', 3, b"abc")), TarFault::NoMember),
        (zeros(&mut pax(b"99 path=x\n")), TarFault::Record),
        (zeros(pax(b"9 size=x\n").file("c.flac", b"x")), TarFault::ExtendedSize),
        (zeros(pax(b"11 path=/x\n").raw(b"l", b'L', 3, b"abc").file("c.flac", b"x")), TarFault::NamesDiffer),
        (zeros(pax(b"10 path=x\n").raw(b"p", b'x', 10, b"10 path=y\n").file("c.flac", b"x")), TarFault::TwoExtensions),
        (zeros(Tar::new().raw(b"g", b'g', 10, b"10 path=x\n").file("c.flac", b"x")), TarFault::Global),
        (zeros(pair(Tar::new(), "a").raw(b"link", b'2', 512, &[b'x'; 512])), content(512)),
        (zeros(pax(b"12 size=100\n").raw(b"link", b'2', 0, b"")), content(100)),
        ([pair(Tar::new(), "a").done(), pair(Tar::new(), "b").done()].concat(), TarFault::BehindEnd { at: end + 1024 }),
    ] {
        assert_eq!(self::fault(&bytes), fault);
        let reading = damaged(&bytes);
        let kept = ids(&reading);
        let first = reading.rejected.iter().any(|rejection| rejection.id == "a");
        assert!(kept == ["a"] || first || fault == TarFault::Global, "{fault}: {kept:?} {:?}", reading.rejected);
    }
    for bytes in [whole[..whole.len() - 1024 - 700].to_vec(), claims(u64::MAX >> 1)] {
        let fault = fault(&bytes);
        assert!(matches!(fault, TarFault::CutHeader { .. } | TarFault::CutMember { .. }), "{fault}");
        damaged(&bytes);
    }
    let unfinished = read_one(&pair(Tar::new(), "a").cut());
    assert_eq!((ids(&unfinished), unfinished.rejected.len()), (vec!["a"], 0));
    assert_eq!(unfinished.warnings.len(), 1, "no mark of the end: {:?}", unfinished.warnings);
    assert_eq!(fault(b"no tar at all"), TarFault::CutHeader { there: 13 });
    expect_rejected(&read_one(b"no tar at all"), "s.tar", "damaged tar", &[]);
    let empty = read_one(b"");
    assert_eq!((empty.lines, empty.rejected.len()), (1, 1), "an empty file is no tar");
}

#[test]
fn the_size_in_an_extended_header_holds() {
    // The bytes that the plain header hides, between two sizes, are content and not a member.
    let hidden = pair(Tar::new(), "hidden").cut();
    let record = format!("13 size={}\n", hidden.len());
    assert_eq!((hidden.len(), record.len()), (2048, 13));
    let mut tar = Tar::new();
    tar.raw(b"p", b'x', 13, record.as_bytes()).raw(b"outer.flac", b'0', 0, b"");
    let bytes = [tar.cut(), hidden.clone(), pair(Tar::new(), "last").done()].concat();
    let reading = read_one(&bytes);
    assert_eq!(ids(&reading), ["last"]);
    expect_rejected(&reading, "outer", "no transcript", &[]);
}

#[test]
fn no_damage_panics_or_leads_outside_the_file() {
    let mut tar = pair(pair(Tar::new(), "a"), &"k".repeat(150));
    tar.0.append_pax_extensions([("path", "p.flac".as_bytes()), ("size", b"2")]).unwrap();
    let whole = tar.raw(b"p.flac", b'0', 2, b"pp").done();
    let dir = tempfile::tempdir().unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..800 {
        let mut bytes = whole.clone();
        for _ in 0..1 + next(4) {
            let at = next(bytes.len());
            bytes[at] = [0, b'0', b'7', 0x80, 0xff, b'x'][next(6)];
        }
        if round % 3 == 0 {
            bytes.truncate(next(bytes.len()));
        }
        if round % 2 == 0 && bytes.len() > 512 {
            // A correct checksum, so that the rest of the header is used.
            let mut block: [u8; 512] = bytes[..512].try_into().unwrap();
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        fs::write(dir.path().join("s.tar"), &bytes).unwrap();
        let Ok(reading) = read(dir.path(), "s.tar", &ReadOptions::default()) else { continue };
        assert_eq!(reading.lines as usize, reading.utterances.len() + reading.rejected.len());
        for row in reading.utterances.iter() {
            bytes_of(dir.path(), row.wav);
        }
    }
}
