//! Kills, locks, full disks and panics: what a run leaves on disk, and how the next run continues.

mod toy;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flowmill_runner::{
    Experiment, Interrupt, ReasonKind, Reporter, RunError, RunOptions, StageError, clean, holder, read_journal, run,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use toy::{Bent, Said, Toy, interrupted, options, ran_because, tree};

/// Environment variables that make `child` run a toy: its folder, its pause in milliseconds, a limit on file sizes.
const DIR: &str = "TOY_DIR";
const PAUSE: &str = "TOY_PAUSE_MS";
const LIMIT: &str = "TOY_FILE_LIMIT";

/// The process that other tests start in order to kill it. It is not a test of its own.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut bent = Bent { pause: Duration::from_millis(number(PAUSE).unwrap_or(0)), ..Bent::default() };
    if let Some(limit) = number(LIMIT) {
        // Otherwise the signal ends the process before the error is seen.
        let seen = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGXFSZ, seen).unwrap();
        let maximum = getrlimit(Resource::Fsize).maximum;
        setrlimit(Resource::Fsize, Rlimit { current: Some(limit), maximum }).unwrap();
        bent.ballast = 1 << 20;
    }
    let recipe = flowmill_runner::Recipe::load(Path::new(&dir), &[], &toy::SECTIONS).unwrap();
    let options = RunOptions { interrupt: Interrupt::on_signals().unwrap(), ..options() };
    let experiment = Experiment::of_recipe(&recipe);
    let result = run(&toy::stages(bent), &recipe, &experiment, &options, &Reporter::new());
    if let Err(error) = result {
        eprintln!("{}: {error}", error.kind());
        std::process::exit(i32::from(error.exit_code()));
    }
}

fn start(toy: &Toy, pause: u64) -> Child {
    command(toy, pause).spawn().unwrap()
}

fn command(toy: &Toy, pause: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(DIR, toy.root.path()).env(PAUSE, pause.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Returns the outcomes of an experiment's commands, from its journal.
fn outcomes(toy: &Toy) -> Vec<String> {
    let (lines, damaged) = read_journal(&Experiment::at(toy.exp()).unwrap());
    assert_eq!(damaged, 0);
    lines.iter().map(|line| line["outcome"].as_str().unwrap().to_owned()).collect()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A small random generator for the instants of kills. Its seed is printed, and `FLOWMILL_SEED` repeats it.
struct Instants(u64);

impl Instants {
    fn new() -> Self {
        let given = std::env::var("FLOWMILL_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()) * 7919 + 1);
        println!("FLOWMILL_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn killed_at_forty_random_instants_it_ends_in_the_same_bytes() {
    let undisturbed = Toy::new(6);
    undisturbed.ran(&[]);
    let expected = tree(&undisturbed.exp());
    let began = Instant::now();
    assert!(start(&Toy::new(6), 3).wait().unwrap().success());
    let whole = u64::try_from(began.elapsed().as_micros()).unwrap();
    let mut instants = Instants::new();
    let mut kills = 0;
    while kills < 40 {
        let toy = Toy::new(6);
        loop {
            let mut child = start(&toy, 3);
            std::thread::sleep(Duration::from_micros(instants.below(whole)));
            if child.try_wait().unwrap().is_some() {
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        }
        let (result, said) = toy.run(&[]);
        result.unwrap_or_else(|error| panic!("{error}\n{said}"));
        assert_eq!(tree(&toy.exp()), expected, "after {kills} kills");
    }
}

#[test]
fn a_killed_run_keeps_what_it_finished_and_carries_on_with_what_can_be_resumed() {
    let toy = Toy::new(2);
    let mut child = start(&toy, 60);
    let checkpoint = toy.exp().join("2-learn/.staging/model/state/step-002");
    wait_until("there is a checkpoint", || checkpoint.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let (result, said) = toy.run(&[]);
    let summary = result.unwrap();
    assert_eq!(summary.stages.iter().map(|stage| stage.ran).collect::<Vec<_>>(), [0, 0, 1]);
    assert!(said.contains(&format!("process {} on ", child.id())), "who died is named: {said}");
    ran_because(&summary, "2-learn", ReasonKind::Continues, &["step "]);
    assert_eq!(outcomes(&toy), ["died", "done"]);
    let undisturbed = Toy::new(2);
    undisturbed.ran(&[]);
    assert_eq!(tree(&toy.exp()), tree(&undisturbed.exp()));
}

#[test]
fn unfinished_work_is_not_lost_to_another_fingerprint_unless_that_is_forced() {
    let toy = Toy::new(2);
    let mut child = start(&toy, 60);
    let checkpoint = toy.exp().join("2-learn/.staging/model/state/step-002");
    wait_until("there is a checkpoint", || checkpoint.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let other = ["learn.optim.learning_rate=1"];
    let before = tree(&toy.exp().join("2-learn"));
    let error = toy.run(&other).0.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let RunError::WouldLose { stage, part, finished: false, at, changes, reuse: Some(reuse), earlier: None } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((stage.as_str(), part.as_str()), ("2-learn", "model"));
    assert!(at.starts_with("step "), "{at}");
    assert_eq!(*changes, ["learn.optim.learning_rate: 0.001 → 1"]);
    let text = error.to_string();
    for value in [changes[0].as_str(), "--exp DIR", reuse, "--force --stage 2-learn"] {
        assert!(text.contains(value), "{value}: {text}");
    }
    assert_eq!(tree(&toy.exp().join("2-learn")), before, "a refusal changes nothing");
    let dry = RunOptions { dry_run: true, ..options() };
    ran_because(&toy.run_with(&other, &dry).0.unwrap(), "2-learn", ReasonKind::Refused, &["step "]);
    ran_because(&toy.run_with(&[], &dry).0.unwrap(), "2-learn", ReasonKind::Continues, &["step "]);

    // A changed input is refused like a changed setting, and restoring it makes the work continue.
    let (changed, kept) =
        (toy.path("data/file-00000.txt"), fs::read_to_string(toy.path("data/file-00000.txt")).unwrap());
    fs::write(&changed, "another text\n").unwrap();
    let error = toy.run(&[]).0.unwrap_err();
    let RunError::WouldLose { changes, .. } = &error else { panic!("{error}") };
    assert!(changes.len() == 1 && changes[0].contains("1-join/all/text.txt"), "{changes:?}");
    fs::write(&changed, kept).unwrap();

    let forced = RunOptions { force: true, ..options() };
    let summary = toy.run_with(&other, &forced).0.unwrap();
    ran_because(&summary, "2-learn", ReasonKind::DropsWork, &["step "]);
    let undisturbed = Toy::new(2);
    undisturbed.ran(&other);
    assert_eq!(tree(&toy.exp()), tree(&undisturbed.exp()));
}

#[test]
fn unfinished_work_is_kept_beside_what_was_finished_before() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    let finished = fs::read(toy.exp().join("2-learn/final/state")).unwrap();
    let slow = Bent { pause: Duration::from_millis(60), ..Bent::default() };
    let other = ["learn.optim.learning_rate=1"];
    let interrupt = Interrupt::default();
    let checkpoint = toy.exp().join("2-learn/.staging/model/state/step-002");
    std::thread::scope(|scope| {
        let recipe = toy.recipe(&other).unwrap();
        let options = RunOptions { interrupt: interrupt.clone(), ..options() };
        let experiment = Experiment::of_recipe(&recipe);
        let at_work = scope
            .spawn(move || run(&toy::stages(slow), &recipe, &experiment, &options, &Reporter::quiet()).unwrap_err());
        wait_until("there is a checkpoint", || checkpoint.exists());
        interrupt.set();
        assert_eq!(at_work.join().unwrap().exit_code(), 130);
    });
    let (ran, said) = toy.ran(&[]);
    assert!(ran.is_empty() && said.contains(": model, interrupted at step "), "what is kept is named: {said}");
    assert_eq!(fs::read(toy.exp().join("2-learn/final/state")).unwrap(), finished);
    ran_because(&toy.ran_with_summary(&other).1, "2-learn", ReasonKind::Continues, &["step "]);
    let undisturbed = Toy::new(2);
    undisturbed.ran(&other);
    assert_eq!(tree(&toy.exp()), tree(&undisturbed.exp()));

    // The remains of a folder that was being removed when the run was killed do not count as work.
    fs::create_dir_all(toy.exp().join("2-learn/.staging/%discardedmodel/state/step-002")).unwrap();
    assert!(toy.ran(&other).0.is_empty());
    assert_eq!(tree(&toy.exp()), tree(&undisturbed.exp()));
}

#[test]
fn a_second_run_says_who_holds_the_experiment_or_waits() {
    let toy = Toy::new(2);
    let mut child = start(&toy, 100);
    let experiment = Experiment::at(toy.exp()).unwrap();
    wait_until("the experiment is held", || holder(&experiment).is_some_and(|holder| holder.pid == child.id()));
    let error = toy.run(&[]).0.unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let held = |error: &RunError| matches!(error, RunError::Locked { holder: Some(by), .. } if by.pid == child.id());
    assert!(held(&error) && error.to_string().contains(&format!("process {} on ", child.id())), "{error}");
    let said = Said::default();
    let reporter = Reporter::to_writers(said.clone(), said.clone());
    let refused = clean(&toy.stages(), &experiment, &Default::default(), false, "clean", &reporter);
    assert!(held(&refused.unwrap_err()));
    let (result, said) = toy.run_with(&[], &RunOptions { wait: true, ..options() });
    assert!(result.unwrap().stages.iter().all(|stage| stage.ran == 0), "{said}");
    assert!(said.contains(&format!("process {} on ", child.id())), "whom it waits for is named: {said}");
    assert!(child.wait().unwrap().success());
    // A process that another test starts at this moment shares the descriptor of the lock until it executes its program.
    wait_until("the experiment is free", || holder(&experiment).is_none());
}

#[test]
fn one_signal_ends_a_run_in_good_order_and_the_next_run_carries_on() {
    let toy = Toy::new(2);
    let child = start(&toy, 60);
    let checkpoint = toy.exp().join("2-learn/.staging/model/state/step-001");
    wait_until("there is a checkpoint", || checkpoint.exists());
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(outcomes(&toy), ["interrupted"]);
    let (ran, summary) = toy.ran_with_summary(&[]);
    assert_eq!(ran, ["2-learn/model"]);
    ran_because(&summary, "2-learn", ReasonKind::Continues, &["step "]);
}

#[test]
fn an_interrupted_run_starts_nothing() {
    let toy = Toy::new(2);
    let error = toy.run_with(&[], &interrupted()).0.unwrap_err();
    assert_eq!(error.exit_code(), 130);
    assert!(!toy.exp().join("0-read").exists());
}

#[test]
fn a_panic_is_told_as_a_bug_with_its_part_and_the_other_parts_stay() {
    let mut toy = Toy::new(3);
    toy.bent.panic_in = Some("lines/part-00002");
    let error = toy.run(&[]).0.unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let RunError::Panic { stage, part, message } = &error else { panic!("{error}") };
    assert_eq!((stage.as_str(), part.as_str()), ("0-read", "lines/part-00002"));
    assert!(message.starts_with("the toy broke at "), "{message}");
    toy.bent.panic_in = None;
    let (ran, _) = toy.ran(&[]);
    assert_eq!(ran.iter().filter(|key| key.starts_with("0-read")).count(), 1, "{ran:?}");
}

#[test]
fn a_failing_part_fails_its_stage_and_leaves_nothing_half_written() {
    let mut toy = Toy::new(3);
    toy.bent.fail_in = Some("lines/part-00001");
    let error = toy.run(&[]).0.unwrap_err();
    let RunError::Stage { stage, part: Some(part), source: StageError::Message(words) } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (stage.as_str(), part.as_str(), words.as_str()),
        ("0-read", "lines/part-00001", "the toy was told to fail")
    );
    assert!(!toy.exp().join("0-read/.staging").exists());
    assert!(!toy.exp().join("0-read/stage.json").exists());
    assert!(toy.exp().join("0-read/lines/part-00000.txt").exists());
}

#[test]
fn rows_that_vanish_in_a_part_fail_it() {
    let mut toy = Toy::new(1);
    toy.bent.lose_rows = true;
    let error = toy.run(&[]).0.unwrap_err();
    let RunError::Stage { part: Some(part), source, .. } = &error else { panic!("{error}") };
    assert_eq!(part, "lines/part-00000");
    assert!(matches!(source, StageError::RowsLost { rows_in: 3, rows_out: 2, rejected: 0 }), "{error}");
}

#[test]
fn rejected_rows_are_kept_with_their_reasons_until_there_are_too_many() {
    let toy = Toy::new(3);
    let (_, summary) = toy.ran_with_summary(&["read.min_length=2"]);
    let read = &summary.stages[0];
    assert_eq!((read.rows_in, read.rows_out, read.rejected), (9, 6, 3));
    let expected = [
        ("file-00000.txt:3", "too short: 1 characters", "lines/part-00000"),
        ("file-00001.txt:3", "too short: 1 characters", "lines/part-00001"),
        ("file-00002.txt:3", "too short: 1 characters", "lines/part-00002"),
    ];
    assert_eq!(rejected(&toy.exp().join("0-read/rejected.parquet")), expected.map(owned));
    let (result, said) = toy.run(&["read.min_length=2", "max_rejected=0.3"]);
    let error = result.unwrap_err();
    assert!(said.is_empty(), "nothing had to run: {said}");
    let RunError::TooManyRejected { stage, rejected: 3, rows_in: 9, sources: 0, allowed: 0.3, kinds, file } =
        cause(&error)
    else {
        panic!("{error}")
    };
    assert_eq!((stage.as_str(), kinds.len(), kinds[0].reason.as_str(), kinds[0].rows), ("0-read", 1, "too short", 3));
    assert_eq!(kinds[0].examples, ["file-00000.txt:3", "file-00001.txt:3", "file-00002.txt:3"]);
    assert_eq!(*file, toy.exp().join("0-read/rejected.parquet"));
    let text = error.to_string();
    let values = ["33.3 %", "30.0 %", &kinds[0].reason, &kinds[0].examples[1], "0-read/rejected.parquet"];
    assert!(values.iter().all(|value| text.contains(value)), "{text}");
    let error = toy.run(&["read.min_length=2", "max_rejected=0"]).0.unwrap_err();
    assert!(matches!(cause(&error), RunError::TooManyRejected { allowed: 0.0, .. }), "{error}");
    toy.ran(&[]);
    assert!(!toy.exp().join("0-read/rejected.parquet").exists(), "none is rejected any more");
}

/// The error of a stage whose last good result is kept.
fn cause(error: &RunError) -> &RunError {
    match error {
        RunError::Kept { source, .. } => source,
        other => other,
    }
}

fn owned((id, reason, part): (&str, &str, &str)) -> (String, String, String) {
    (id.to_owned(), reason.to_owned(), part.to_owned())
}

fn rejected(path: &Path) -> Vec<(String, String, String)> {
    use arrow::array::AsArray;
    let file = fs::File::open(path).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 1024).unwrap();
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let column = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
        let (ids, reasons, parts) = (column("id"), column("reason"), column("part"));
        rows.extend((0..batch.num_rows()).map(|at| owned((ids.value(at), reasons.value(at), parts.value(at)))));
    }
    rows
}

#[test]
fn a_limit_on_file_sizes_is_a_clear_error_and_nothing_half_written_counts() {
    let toy = Toy::new(2);
    let output = command(&toy, 0).env(LIMIT, (1 << 19).to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("disk-full: 0-read/lines/part-0000"), "{said}");
    assert!(!toy.exp().join("0-read/.staging").exists());
    toy.ran(&[]);
    let undisturbed = Toy::new(2);
    undisturbed.ran(&[]);
    assert_eq!(tree(&toy.exp()), tree(&undisturbed.exp()));
}

/// Unmounts the small disk in any case.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_a_clear_error_and_nothing_half_written_counts() {
    let mut toy = Toy::new(3);
    let exp = toy.path("exp");
    fs::create_dir(&exp).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&exp).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        println!("skipped: only root may mount a small disk");
        return;
    }
    let _mounted = Mounted(&exp);
    toy.bent.ballast = 900_000;
    let error = toy.run(&[]).0.unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), ("disk-full", 1), "{error}");
    assert!(error.to_string().contains("MB free"), "the free space is named: {error}");
    toy.bent.ballast = 1000;
    let (ran, _) = toy.ran(&[]);
    // Which of the three parts found the disk full depends on which came last.
    assert!(ran.iter().any(|part| part.starts_with("0-read/lines/part-")), "{ran:?}");
}
