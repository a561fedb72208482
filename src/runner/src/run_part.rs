//! `run-part` and `parts`: one part of a stage under a lock of its own, so that several processes work on one experiment side by side.
//!
//! Planning is pure, so every process plans the stage again and does the part that it was given by the code of a run. A part of a stage
//! that has no whole result is put in its place at once; a whole result stays, and its new parts wait in their staging folders. A run
//! excludes all processes on parts; it takes what they did, does the rest and finishes the stage.

use crate::assess::{Planned, Verdict, is_plain_key};
use crate::layout::StageDir;
use crate::lockfile::{self, Lock, Patience};
use crate::reason::Reason;
use crate::receipt::Receipt;
use crate::remedy::with_remedy;
use crate::report::seconds;
use crate::run::{Progressed, Run, StageRun, check_recipe, name_stage};
use crate::session::{Session, in_order, select};
use crate::stage::folder_name;
use crate::staging::{Publisher, prepared_receipt};
use crate::{Experiment, Holder, Phase, Recipe, Reporter, RunError, RunOptions, Stage, StageError, StageRange};

/// The outcome of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartOutcome {
    /// It was up to date.
    UpToDate,
    /// It is done and in its place.
    Done,
    /// It is done, now or before, and waits in its staging folder for the run that replaces the stage's last result.
    Waits,
}

/// The parts of a stage that can be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenParts {
    /// The stage's folder: `1-embed`.
    pub stage: String,
    /// The number.
    pub number: u8,
    /// The title of the first phase that is not done; none when all are.
    pub phase: Option<String>,
    /// The parts of that phase that have to run, in their order.
    pub parts: Vec<OpenPart>,
    /// True if finished parts wait in their staging folders for the run that replaces the stage's last result.
    pub waits: bool,
}

/// A part that has to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPart {
    /// The key.
    pub key: String,
    /// The rows that it will go through, as far as the stage says.
    pub rows: u64,
    /// The reason why it has to run.
    pub reasons: Vec<String>,
    /// The process that does it at the moment.
    pub holder: Option<Holder>,
}

/// Does one part of a stage, unless it is up to date.
///
/// `options.stages` selects the stage; `force` and `dry_run` are not looked at.
///
/// # Errors
/// See [`RunError`]; among them when a run works on the experiment, when another process does the part, and when the part is not one of
/// those that can be done now.
pub fn run_part(
    stages: &[Box<dyn Stage>],
    recipe: &Recipe,
    experiment: &Experiment,
    key: &str,
    options: &RunOptions,
    reporter: &Reporter,
) -> Result<PartOutcome, RunError> {
    let ordered = in_order(stages);
    let at = one_stage(&ordered, &options.stages)?;
    if !is_plain_key(key) {
        return Err(RunError::Usage(format!(
            "`{key}` is not the key of a part; `flowmill parts` prints those that can be done"
        )));
    }
    let options = &RunOptions { force: false, dry_run: false, ..options.clone() };
    check_recipe(stages, &(at..at + 1), recipe, experiment, options, reporter)?;
    let me = Holder::this(&options.command);
    let patience = Patience { wait: options.wait, interrupt: &options.interrupt, reporter };
    let lock = Lock::take_part(experiment, (&folder_name(ordered[at]), key), &me, patience)?;
    let session = Session::new(stages, recipe, experiment, options);
    Run { session: &session, options, reporter }.under(&lock, &me, |run| one_part(run, at, key))
}

/// The parts of a stage that can be done now. Nothing is written.
///
/// # Errors
/// When the stages before are not finished, or this one cannot plan.
pub fn open_parts(
    stages: &[Box<dyn Stage>],
    recipe: &Recipe,
    experiment: &Experiment,
    stage: &StageRange,
) -> Result<OpenParts, RunError> {
    let ordered = in_order(stages);
    let at = one_stage(&ordered, stage)?;
    for stage in &ordered {
        stage.show(recipe)?;
    }
    let options = &RunOptions::default();
    let session = &Session::new(stages, recipe, experiment, options);
    let run = Run { session, options, reporter: &Reporter::quiet() };
    run.require_earlier(at)?;
    let stage = ordered[at];
    let dir = session.dir(stage);
    let failed = |error| RunError::stage(&dir.name, error);
    let publisher = Publisher::of_single_parts(&dir, &session.cache).map_err(failed)?;
    let mut open =
        OpenParts { stage: dir.name.clone(), number: stage.number(), phase: None, parts: Vec::new(), waits: false };
    let mut before = Progressed::default();
    while let Some(phase) = plan(session, stage, &before).map_err(failed)? {
        let title = phase.title.clone();
        let found = look(session, stage, &publisher, phase, &mut before).map_err(failed)?;
        if found.is_done() {
            continue;
        }
        let part = |(planned, why): (Planned, Vec<Reason>)| OpenPart {
            holder: lockfile::part_holder(experiment, &dir.name, &planned.part.key),
            rows: planned.part.rows,
            reasons: why.iter().map(Reason::to_string).collect(),
            key: planned.part.key,
        };
        open.phase = Some(title);
        open.parts = found.open.into_iter().map(part).collect();
        open.waits = found.waits;
        break;
    }
    Ok(open)
}

/// The place of the one stage that a range selects.
fn one_stage(ordered: &[&dyn Stage], range: &StageRange) -> Result<usize, RunError> {
    let selected = select(ordered, range)?;
    if selected.len() == 1 {
        Ok(selected.start)
    } else {
        Err(RunError::Usage("parts are those of one stage".to_owned()))
    }
}

/// The next phase of a stage.
fn plan(session: &Session<'_>, stage: &dyn Stage, before: &Progressed) -> Result<Option<Phase>, StageError> {
    session.plan(stage, before.phases.len(), &before.phases.concat())
}

/// The remaining work of a phase.
struct Found {
    /// The parts that have to run.
    open: Vec<(Planned, Vec<Reason>)>,
    /// True if finished parts are not in their places yet.
    waits: bool,
}

impl Found {
    /// Returns whether the whole phase is done and in its place.
    fn is_done(&self) -> bool {
        self.open.is_empty() && !self.waits
    }
}

/// Compares a phase with what is there. When all of it is done it counts among those before the next one.
fn look(
    session: &Session<'_>,
    stage: &dyn Stage,
    publisher: &Publisher<'_>,
    phase: Phase,
    before: &mut Progressed,
) -> Result<Found, StageError> {
    let dir = publisher.dir;
    let keys: Vec<String> = phase.parts.iter().map(|part| part.key.clone()).collect();
    let assessor = session.assessor(stage, dir, false);
    let mut found = Found { open: Vec::new(), waits: false };
    let mut done = Vec::new();
    for verdict in assessor.assess(phase.parts, &Reporter::quiet())? {
        match verdict {
            Verdict::UpToDate(part) => done.push(part.done),
            // A run goes on with the next phase too; it tries these parts again once.
            Verdict::Run(planned, why) if why.iter().all(Reason::is_of_machine) => {
                done.push(Receipt::read(&dir.receipt(&planned.part.key))?.done());
            }
            Verdict::Run(planned, why) => {
                let staged = || prepared_receipt(&dir.staging(&planned.part.key), dir);
                match publisher.holds_back().then(staged).flatten() {
                    Some(prepared) if assessor.fits(&planned, &prepared)? => found.waits = true,
                    _ => found.open.push((planned, why)),
                }
            }
        }
    }
    if found.is_done() {
        before.totals.add_phase(&done)?;
        before.parts.extend(done);
        before.phases.push(keys);
    }
    Ok(found)
}

/// Does a part of the stage at a place in the order.
fn one_part(run: &Run<'_>, at: usize, key: &str) -> Result<PartOutcome, RunError> {
    run.require_earlier(at)?;
    let (session, stage) = (run.session, run.session.stages[at]);
    let dir = session.dir(stage);
    let failed = |error| RunError::stage(&dir.name, error);
    let publisher = Publisher::of_single_parts(&dir, &session.cache).map_err(failed)?;
    let mut stage_run = StageRun::new(run, at, &dir, publisher);
    let mut before = Progressed::default();
    let no_such_part = |phase: Option<String>, found: Found| RunError::NoSuchPart {
        stage: dir.name.clone(),
        part: key.to_owned(),
        phase,
        waits: found.waits,
        can_run: found.open.into_iter().map(|(planned, _)| planned.part.key).collect(),
    };
    while let Some(mut phase) = plan(session, stage, &before).map_err(failed)? {
        if phase.parts.iter().any(|part| part.key == key) {
            phase.parts.retain(|part| part.key == key);
            return only(run, &mut stage_run, &dir, phase).map_err(|error| with_remedy(session, at, error));
        }
        let title = phase.title.clone();
        let found = look(session, stage, &stage_run.publisher, phase, &mut before).map_err(failed)?;
        if !found.is_done() {
            return Err(no_such_part(Some(title), found));
        }
        stage_run.check_rejected(&before).map_err(|error| with_remedy(session, at, error))?;
    }
    Err(no_such_part(None, Found { open: Vec::new(), waits: false }))
}

/// Brings the one part that is left of a phase up to date.
fn only(run: &Run<'_>, stage_run: &mut StageRun<'_>, dir: &StageDir, phase: Phase) -> Result<PartOutcome, RunError> {
    let started = std::time::Instant::now();
    let mut now = Progressed::default();
    stage_run.phase(phase, &mut now).map_err(|error| name_stage(error, &dir.name))?;
    let (ran, waits) = (!now.ran.is_empty(), stage_run.publisher.holds_back());
    let outcome = match (ran || now.adopted > 0, waits) {
        (false, _) => PartOutcome::UpToDate,
        (true, false) => PartOutcome::Done,
        (true, true) => PartOutcome::Waits,
    };
    for part in &now.parts {
        let mut words = vec![
            match outcome {
                PartOutcome::UpToDate => "up to date",
                PartOutcome::Done => "done",
                PartOutcome::Waits => "done, and waits for the run that replaces the last result",
            }
            .to_owned(),
        ];
        words.extend(now.totals.rows());
        words.extend(ran.then(|| seconds(started.elapsed().as_secs_f64())));
        run.reporter.line(format!("{}/{}: {}", dir.name, part.key, words.join(", ")));
    }
    Ok(outcome)
}
