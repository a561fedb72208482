//! `run`: runs the stages in order, phase by phase, and only those that are not up to date.

use std::time::{Duration, Instant};

use crate::assess::{Planned, Verdict, orphans};
use crate::executor::Executor;
use crate::journal::{self, Outcome};
use crate::layout::{REJECTED, StageDir};
use crate::lockfile::{Lock, Patience};
use crate::prior_work::{self, PriorWork};
use crate::reason::{Reason, ReasonCount, ReasonKind, summarize, tally};
use crate::receipt::{PartDone, StageSummary};
use crate::report::seconds;
use crate::session::{Session, StageRange, in_order, select};
use crate::stage::folder_name;
use crate::staging::Publisher;
use crate::totals::Totals;
use crate::{
    Experiment, Holder, Interrupt, Phase, Recipe, Reporter, RunError, Stage, StageError, checksummed_json, dry_run,
    file_system_limits, files, foresight, rejects, remedy, slurm,
};

/// The options of a run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The stages to run.
    pub stages: StageRange,
    /// Runs every part of them, up to date or not.
    pub force: bool,
    /// Only reports what would run and why.
    pub dry_run: bool,
    /// The number of threads that work, at least one.
    pub jobs: usize,
    /// Hashes every file again instead of relying on sizes and times.
    pub verify: bool,
    /// Waits for another run of the experiment instead of failing.
    pub wait: bool,
    /// The command line, for the journal and for other processes that find the experiment locked.
    pub command: String,
    /// The program's version, for the journal.
    pub version: String,
    /// The flag that stops the run.
    pub interrupt: Interrupt,
}

impl Default for RunOptions {
    /// Returns options that run all stages that are not up to date, on all processors.
    fn default() -> Self {
        Self {
            stages: StageRange::default(),
            force: false,
            dry_run: false,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            verify: false,
            wait: false,
            command: String::new(),
            version: String::new(),
            interrupt: Interrupt::default(),
        }
    }
}

/// The result of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunSummary {
    /// The selected stages in order.
    pub stages: Vec<StageOutcome>,
}

/// The result of a run for one stage.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StageOutcome {
    /// The folder: `0-prep`.
    pub stage: String,
    /// The number of its parts.
    pub parts: usize,
    /// The number of parts that ran (or would run, in a dry run).
    pub ran: usize,
    /// The keys of the parts that ran, sorted.
    pub ran_keys: Vec<String>,
    /// The reasons why they ran, the commonest first.
    pub reasons: Vec<ReasonCount>,
    /// Rows that came in.
    pub rows_in: u64,
    /// The number of rows that went out.
    pub rows_out: u64,
    /// The number of rejected rows.
    pub rejected: u64,
    /// The duration in seconds.
    pub seconds: f64,
}

/// Runs the selected stages of a recipe, or reports what would run.
///
/// # Errors
/// See [`RunError`]. Finished parts are kept, whatever the error.
pub fn run(
    stages: &[Box<dyn Stage>],
    recipe: &Recipe,
    experiment: &Experiment,
    options: &RunOptions,
    reporter: &Reporter,
) -> Result<RunSummary, RunError> {
    let ordered = in_order(stages);
    let selected = select(&ordered, &options.stages)?;
    check_recipe(stages, &selected, recipe, experiment, options, reporter)?;
    if options.dry_run {
        let session = Session::new(stages, recipe, experiment, options);
        return dry_run::dry_run(&session, selected, options.force, reporter);
    }
    let me = Holder::this(&options.command);
    let patience = Patience { wait: options.wait, interrupt: &options.interrupt, reporter };
    let lock = Lock::take(experiment, &me, patience)?;
    let session = Session::new(stages, recipe, experiment, options);
    Run { session: &session, options, reporter }.under(&lock, &me, |run| run.stages(selected))
}

/// Checks the recipe for the stages that are to run, and gives the warnings of those that are not finished.
pub(crate) fn check_recipe(
    stages: &[Box<dyn Stage>],
    selected: &std::ops::Range<usize>,
    recipe: &Recipe,
    experiment: &Experiment,
    options: &RunOptions,
    reporter: &Reporter,
) -> Result<(), RunError> {
    slurm::check_slurm(recipe, stages)?;
    let mut warnings = Vec::new();
    for (at, stage) in in_order(stages).iter().enumerate() {
        // What does not parse is wrong for every command; what is only not there may be missing to this stage alone.
        stage.show(recipe)?;
        if !selected.contains(&at) {
            continue;
        }
        // Contents are checked only if no run follows, because a run reads them anyway and leaves its table of
        // rejected rows.
        let contents = || if options.dry_run { stage.check_contents(recipe) } else { Ok(()) };
        let checked = stage.check(recipe).and_then(|()| stage.check_files(recipe)).and_then(|()| contents());
        checked.or_else(|error| {
            let session = Session::new(stages, recipe, experiment, options);
            // The inputs of a finished stage may be gone.
            let found = (!options.force && stage.check(recipe).is_ok())
                .then(|| dry_run::look(&session, *stage, false, &Reporter::quiet()).ok());
            if let Some(found) = found.flatten() {
                let goes_on = found.prior.as_ref().is_some_and(|prior| prior.changes.is_empty());
                if found.up_to_date || (goes_on && stage.check_files_to_go_on(recipe).is_ok()) {
                    return Ok(());
                }
            }
            Err(remedy::with_remedy(&session, at, error.into()))
        })?;
        let finished = StageDir::new(experiment.dir(), folder_name(*stage)).summary().exists();
        if options.force || !finished {
            warnings.extend(stage.warnings(recipe)?);
        }
    }
    warnings.iter().for_each(|warning| reporter.note(format!("WARNING: {warning}")));
    Ok(())
}

/// The journal is for people: a run does not fail because it cannot be written (for example if the disk is full).
fn note_in_journal(reporter: &Reporter, appended: Result<(), StageError>) {
    if let Err(error) = appended {
        reporter.note(format!("the journal could not be written: {error}"));
    }
}

/// A command that does work in an experiment.
pub(crate) struct Run<'a> {
    pub session: &'a Session<'a>,
    pub options: &'a RunOptions,
    pub reporter: &'a Reporter,
}

impl Run<'_> {
    /// Does work under a lock. Owners of the lock that died are noted before it; the cache and the journal are written after it.
    pub fn under<T>(
        &self,
        lock: &Lock,
        me: &Holder,
        work: impl FnOnce(&Self) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let Self { session, options, reporter } = self;
        file_system_limits::tell(reporter);
        let started = Instant::now();
        let journal = |holder: &Holder, took, outcome, error| {
            let appended = journal::append(session.experiment, holder, &options.version, took, outcome, error);
            note_in_journal(reporter, appended);
        };
        for dead in &lock.dead_owners {
            reporter.note(format!("the last run died ({dead}); carrying on from what it finished"));
            journal(dead, None, Outcome::Died, None);
        }
        let result = work(self);
        file_system_limits::tell(reporter);
        if let Err(error) = session.cache.save(&session.experiment.cache_file()) {
            reporter
                .note(format!("the short-cut for unchanged files could not be saved, which only costs time: {error}"));
        }
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            Err(RunError::Interrupted) => Outcome::Interrupted,
            Err(_) => Outcome::Failed,
        };
        let error = result.as_ref().err().map(ToString::to_string);
        journal(me, Some(started.elapsed()), outcome, error.as_deref());
        result
    }

    fn stages(&self, selected: std::ops::Range<usize>) -> Result<RunSummary, RunError> {
        self.check_earlier(selected.start)?;
        self.look_ahead(&selected, selected.start, &[])?;
        let started = Instant::now();
        let mut summary = RunSummary::default();
        for at in selected.clone() {
            summary.stages.push(self.stage(at, &selected)?);
        }
        self.close(&summary, started.elapsed());
        Ok(summary)
    }

    /// Brings one of the selected stages up to date.
    pub fn stage(&self, at: usize, selected: &std::ops::Range<usize>) -> Result<StageOutcome, RunError> {
        if self.options.interrupt.is_set() {
            return Err(RunError::Interrupted);
        }
        let dir = self.session.dir(self.session.stages[at]);
        let name = dir.name.clone();
        let publisher = Publisher::new(&dir, &self.session.cache);
        let outcome = StageRun::new(self, at, &dir, publisher).all(selected).inspect_err(|_| {
            // Only what cannot be resumed is gone from it; an empty folder goes too.
            let _not_empty = std::fs::remove_dir(dir.staging_root());
        });
        file_system_limits::tell(self.reporter);
        outcome.map_err(|e| remedy::with_remedy(self.session, at, name_stage(e, &name)))
    }

    /// Returns an error for changes that a later stage would refuse, before the stages from `from` on are made again.
    /// `because` are the changes for which the stage before was made again.
    pub fn look_ahead(
        &self,
        selected: &std::ops::Range<usize>,
        from: usize,
        because: &[Reason],
    ) -> Result<(), RunError> {
        if self.options.force {
            return Ok(());
        }
        foresight::refuse_to_lose_later(self.session, selected, from, because)
    }

    /// Fails unless the stages before the selected ones are finished and whole. What a killed run was replacing is put back.
    pub fn check_earlier(&self, first: usize) -> Result<(), RunError> {
        for earlier in &self.session.stages[..first] {
            let dir = self.session.dir(*earlier);
            let name = dir.name.clone();
            let mut publisher = Publisher::new(&dir, &self.session.cache);
            publisher.resume_replacement().map_err(|e| RunError::stage(&name, e))?;
            if publisher.put_back().map_err(|e| RunError::stage(&name, e))? {
                self.reporter
                    .note(format!("{name}: a run died while making it again; its last good result was put back"));
            }
        }
        self.require_earlier(first)
    }

    /// Fails unless the stages before one are finished and whole.
    pub fn require_earlier(&self, first: usize) -> Result<(), RunError> {
        for earlier in &self.session.stages[..first] {
            let name = self.session.dir(*earlier).name;
            let unusable = self.session.unusable(*earlier).map_err(|e| RunError::stage(&name, e))?;
            if let Some(why) = unusable {
                let stage = self.session.dir(self.session.stages[first]).name;
                return Err(RunError::NotFinished { stage, missing: name, why, number: earlier.number() });
            }
        }
        Ok(())
    }

    /// Prints the last line of a run.
    pub fn close(&self, summary: &RunSummary, took: Duration) {
        let ran = summary.stages.iter().filter(|stage| stage.ran > 0).count();
        let all = summary.stages.len();
        let took = seconds(took.as_secs_f64());
        match ran {
            0 => self.reporter.line(format!("nothing to do: all {all} stages are up to date ({took})")),
            _ => self.reporter.line(format!("done: {ran} of {all} stages ran, {took}")),
        }
    }
}

pub(crate) fn name_stage(error: RunError, name: &str) -> RunError {
    match error {
        RunError::Experiment(source) => RunError::stage(name, source),
        other => other,
    }
}

/// One stage of a run.
pub(crate) struct StageRun<'a> {
    run: &'a Run<'a>,
    stage: &'a dyn Stage,
    /// The place in the order.
    at: usize,
    dir: &'a StageDir,
    pub publisher: Publisher<'a>,
    started: Instant,
    /// True once the title line was printed.
    titled: bool,
}

/// The progress of a stage so far.
#[derive(Default)]
pub(crate) struct Progressed {
    pub totals: Totals,
    pub phases: Vec<Vec<String>>,
    pub parts: Vec<PartDone>,
    pub ran: Vec<String>,
    /// The number of parts that an earlier run finished and left in their staging folders.
    pub adopted: usize,
    /// The changes of settings and inputs for which parts ran, of the first phase that has any.
    because: Vec<Reason>,
    /// The reasons why parts ran, phase by phase.
    reasons: Vec<Reason>,
    /// Up-to-date parts of which unfinished work under other conditions is kept.
    kept: Vec<String>,
}

impl<'a> StageRun<'a> {
    /// The stage at a place in the order.
    pub fn new(run: &'a Run<'a>, at: usize, dir: &'a StageDir, publisher: Publisher<'a>) -> Self {
        let stage = run.session.stages[at];
        Self { run, stage, at, dir, publisher, started: Instant::now(), titled: false }
    }

    /// Brings the stage, one of the selected ones, up to date. When that fails, its last whole result is put back.
    fn all(mut self, selected: &std::ops::Range<usize>) -> Result<StageOutcome, RunError> {
        self.publisher.resume_replacement().map_err(RunError::experiment)?;
        let result = self.phases(selected);
        if result.is_err()
            && let Err(error) = self.publisher.put_back()
        {
            let name = &self.dir.name;
            let kept = format!("{name}: its last good result is kept, and the next run will put it back: {error}");
            self.run.reporter.note(kept);
        }
        result
    }

    fn phases(&mut self, selected: &std::ops::Range<usize>) -> Result<StageOutcome, RunError> {
        let mut so_far = Progressed::default();
        loop {
            let keys = so_far.phases.concat();
            let planned = self.run.session.plan(self.stage, so_far.phases.len(), &keys);
            let Some(phase) = planned.map_err(RunError::experiment)? else {
                break;
            };
            let (stage, parts) = (&self.dir.name, phase.parts.len());
            tracing::info!(stage, phase = so_far.phases.len(), title = phase.title, parts, "planned");
            self.phase(phase, &mut so_far)?;
            self.check_rejected(&so_far)?;
        }
        self.retire_orphans(&so_far)?;
        self.summarize(&so_far).map_err(RunError::experiment)?;
        if self.publisher.replaces() {
            self.run.look_ahead(selected, self.at + 1, &so_far.because)?;
        }
        self.finish(&so_far).map_err(RunError::experiment)?;
        Ok(self.close(so_far))
    }

    /// Brings one phase up to date.
    pub fn phase(&mut self, phase: Phase, so_far: &mut Progressed) -> Result<(), RunError> {
        let keys: Vec<String> = phase.parts.iter().map(|part| part.key.clone()).collect();
        let assessor = self.run.session.assessor(self.stage, self.dir, self.run.options.force);
        let mut done = Vec::new();
        let mut differ = Vec::new();
        for verdict in assessor.assess(phase.parts, self.run.reporter).map_err(RunError::experiment)? {
            match verdict {
                Verdict::UpToDate(part) => {
                    tracing::debug!(stage = self.dir.name, part = part.done.key, "up to date");
                    self.keep(&part.done.key, part.unfinished, so_far);
                    if let Some(why) = &part.stays {
                        self.run.reporter.line(format!("{}: {why}", self.dir.name));
                    }
                    self.tell_logs(&part.logs);
                    done.push(part.done);
                }
                Verdict::Run(planned, why) => {
                    let (stage, part) = (&self.dir.name, &planned.part.key);
                    // Called only when the line is logged.
                    let reasons = || why.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                    tracing::info!(stage, part, start = planned.start.name(), reasons = reasons(), "to run");
                    differ.push((planned, why));
                }
            }
        }
        if !self.run.options.force {
            self.refuse_to_lose(&differ)?;
        }
        for part in &done {
            self.publisher.claim(&part.key, &part.outputs).map_err(RunError::experiment)?;
        }
        if !differ.is_empty() {
            self.publisher.begin_replacement().map_err(RunError::experiment)?;
        }
        let mut to_run = Vec::new();
        let mut reasons = Vec::new();
        for (planned, why) in differ {
            let warning = planned.prior.as_ref().filter(|_| !self.run.options.force).and_then(PriorWork::warning);
            let adopted = if self.run.options.force { Ok(None) } else { self.publisher.adopt(&assessor, &planned) };
            match adopted.map_err(RunError::experiment)? {
                Some(part) => {
                    tracing::info!(stage = self.dir.name, part = part.key, "taken over from an earlier run's staging");
                    so_far.adopted += 1;
                    done.push(part);
                }
                None => {
                    if let Some(warning) = warning {
                        self.run.reporter.note(format!("WARNING: {}/{}: {warning}", self.dir.name, planned.part.key));
                    }
                    to_run.push(planned);
                    reasons.extend(why);
                }
            }
        }
        if !to_run.is_empty() {
            if so_far.because.is_empty() {
                so_far.because = crate::reason::changes(&reasons);
            }
            self.say_title(&phase.title, to_run.len(), keys.len(), &reasons);
            so_far.reasons.extend(reasons);
            so_far.ran.extend(to_run.iter().map(|planned| planned.part.key.clone()));
            let rows: u64 = to_run.iter().map(|planned| planned.part.rows).sum();
            let (unit, total) = if rows > 0 { (phase.unit, rows) } else { ("parts", to_run.len() as u64) };
            let progress = self.run.reporter.phase(&format!("{}: {}", self.dir.name, phase.title), unit, total);
            let executor = Executor {
                dir: self.dir,
                version: self.stage.version(),
                cache: &self.run.session.cache,
                publisher: &self.publisher,
                progress: &progress,
                counts_rows: rows > 0,
                interrupt: &self.run.options.interrupt,
                jobs: self.run.session.jobs,
                fresh: self.run.options.force,
            };
            done.extend(executor.run(to_run)?);
        }
        let place: std::collections::HashMap<&str, usize> =
            keys.iter().enumerate().map(|(at, key)| (key.as_str(), at)).collect();
        done.sort_by_key(|part| place.get(part.key.as_str()).copied());
        so_far.totals.add_phase(&done).map_err(RunError::experiment)?;
        so_far.parts.extend(done);
        so_far.phases.push(keys);
        Ok(())
    }

    /// Keeps work that an earlier run started under other conditions, next to a part that is up to date.
    fn keep(&self, key: &str, left: Option<PriorWork>, so_far: &mut Progressed) {
        let Some(left) = left.filter(|left| !left.changes.is_empty() || left.further.is_some()) else {
            return;
        };
        let (name, at, why) = (&self.dir.name, left.at(), left.told().into_iter().chain(left.further.clone()));
        let why = why.collect::<Vec<_>>().join("; ");
        self.run.reporter.line(format!("{name}: unfinished work kept next to the result: {key}, {at} ({why})"));
        so_far.kept.push(key.to_owned());
    }

    /// Warns about logs that changed since the part was done.
    fn tell_logs(&self, logs: &[Reason]) {
        let Some(first) = logs.first() else { return };
        let more = if logs.len() > 1 { format!(" and {} more", logs.len() - 1) } else { String::new() };
        let name = &self.dir.name;
        self.run.reporter.line(format!("{name}: WARNING: {first}{more}: this is only a log, so nothing is run again"));
    }

    /// Returns an error if the run would lose earlier work, or would replace good parts by fewer rows because their
    /// inputs are gone.
    fn refuse_to_lose(&self, differ: &[(Planned, Vec<Reason>)]) -> Result<(), RunError> {
        let gone: std::collections::BTreeSet<String> =
            differ.iter().flat_map(|(planned, _)| planned.gone.iter().cloned()).collect();
        if !gone.is_empty() {
            let (stage, number) = (self.dir.name.clone(), self.stage.number());
            return Err(RunError::InputsGone { stage, number, gone: gone.into_iter().collect() });
        }
        prior_work::refuse_to_lose(&self.dir.name, differ.iter().map(|(planned, _)| planned))
    }

    fn say_title(&mut self, phase: &str, to_run: usize, parts: usize, reasons: &[Reason]) {
        let name = &self.dir.name;
        let counts = tally(reasons);
        let never = counts.len() == 1 && counts[0].kind == ReasonKind::NeverRun;
        if !std::mem::replace(&mut self.titled, true) {
            self.run.reporter.line(format!("{name}: {}", self.stage.title()));
        }
        let many = if to_run == parts { count(parts, "part") } else { format!("{to_run} of {}", count(parts, "part")) };
        let why = if never { String::new() } else { format!(", because {}", summarize(&counts, 3)) };
        self.run.reporter.line(format!("  {phase}: {many}{why}"));
    }

    /// Fails when a whole source cannot be used, or more rows were rejected than the recipe allows, or all of them. The table of rejected
    /// rows is written in any case.
    pub fn check_rejected(&self, so_far: &Progressed) -> Result<(), RunError> {
        let allowed = self.run.session.recipe.max_rejected();
        let Totals { rows_in, rows_out, rejected, .. } = so_far.totals;
        let none_left = rejected > 0 && rows_out == 0;
        let sources = so_far.parts.iter().flat_map(|part| &part.rejected).filter(|row| row.of_source).count();
        if sources == 0 && rejected as f64 <= allowed * rows_in as f64 + 1e-9 && !none_left {
            return Ok(());
        }
        // A good result that is put back keeps its own table.
        let file = if self.publisher.replaces() { self.dir.rejected_of_attempt() } else { self.dir.rejected() };
        self.write_rejected(&so_far.parts, &file).map_err(RunError::experiment)?;
        Err(RunError::TooManyRejected {
            stage: self.dir.name.clone(),
            rejected,
            rows_in,
            sources,
            allowed,
            kinds: rejects::kinds(&so_far.parts),
            file,
        })
    }

    fn retire_orphans(&mut self, so_far: &Progressed) -> Result<(), RunError> {
        let orphans = orphans(self.dir, &so_far.phases.concat()).map_err(RunError::experiment)?;
        let Some(first) = orphans.first().cloned() else {
            return Ok(());
        };
        self.publisher.begin_replacement().map_err(RunError::experiment)?;
        for key in &orphans {
            self.publisher.retire(key).map_err(RunError::experiment)?;
        }
        let more = if orphans.len() > 1 { format!(" and {} more", orphans.len() - 1) } else { String::new() };
        let removed = count(orphans.len(), "part");
        self.run.reporter.line(format!("{}: removed {removed} no longer planned: {first}{more}", self.dir.name));
        Ok(())
    }

    /// Writes the summary of the whole stage if it has changed.
    fn summarize(&mut self, so_far: &Progressed) -> Result<(), StageError> {
        self.write_rejected(&so_far.parts, &self.dir.rejected())?;
        let totals = &so_far.totals;
        let summary = StageSummary {
            stage: self.dir.name.clone(),
            version: self.stage.version(),
            phases: so_far.phases.clone(),
            rows_in: totals.rows_in,
            rows_out: totals.rows_out,
            rejected: totals.rejected,
            carries_rows: totals.carries_rows,
            facts: totals.facts.clone(),
        };
        let bytes = checksummed_json::seal(&summary).map_err(StageError::other)?;
        self.publisher.sync_names()?;
        self.write_if_other(&self.dir.summary(), &bytes)
    }

    /// Removes everything that is no longer needed once the stage is complete.
    fn finish(&mut self, so_far: &Progressed) -> Result<(), StageError> {
        self.publisher.end_replacement()?;
        let staging = self.dir.staging_root();
        if staging.exists() { self.publisher.sweep(&so_far.kept) } else { Ok(()) }
    }

    fn write_rejected(&self, parts: &[PartDone], path: &std::path::Path) -> Result<(), StageError> {
        let bytes = rejects::encode(parts)?;
        if bytes.is_none() && !path.exists() {
            return Ok(());
        }
        if path == self.dir.rejected() && !std::fs::read(path).is_ok_and(|kept| Some(kept) == bytes) {
            self.publisher.set_aside(REJECTED)?;
        }
        match bytes {
            Some(bytes) => self.write_if_other(path, &bytes),
            None => files::remove_any(path),
        }
    }

    fn write_if_other(&self, path: &std::path::Path, bytes: &[u8]) -> Result<(), StageError> {
        if std::fs::read(path).is_ok_and(|kept| kept == bytes) {
            return Ok(());
        }
        let staging = self.dir.staging_root();
        files::make_dir(&staging)?;
        // `%` is in no part's key, and a part's folder has one only between names.
        let temporary = staging.join(format!("%file-{}", std::process::id()));
        files::write_synced(&temporary, bytes)?;
        std::fs::rename(&temporary, path).map_err(|e| StageError::file(path, e))?;
        files::sync_dir(&self.dir.path)
    }

    fn close(&self, so_far: Progressed) -> StageOutcome {
        let Progressed { totals, parts, mut ran, reasons, .. } = so_far;
        ran.sort();
        let took = self.started.elapsed().as_secs_f64();
        let name = &self.dir.name;
        let words = if ran.is_empty() {
            [Some("up to date".to_owned()), totals.rows(), None, None]
        } else {
            let rows = totals.rows().unwrap_or_else(|| "done".to_owned());
            [Some(rows), Some(seconds(took)), totals.facts(), None]
        };
        let words: Vec<String> = words.into_iter().flatten().collect();
        self.run.reporter.line(format!("{name}: {}", words.join(", ")));
        StageOutcome {
            stage: name.clone(),
            parts: parts.len(),
            ran: ran.len(),
            ran_keys: ran,
            reasons: tally(&reasons),
            rows_in: totals.rows_in,
            rows_out: totals.rows_out,
            rejected: totals.rejected,
            seconds: took,
        }
    }
}

/// `1 part`, `3 parts`.
pub(crate) fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
