//! Submits the parts of a stage, follows their tasks, and tries failed ones again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::commands::{self, TaskId};
use super::record::{Record, Submission, Task, Tries, errors_of_log, last_lines, tries_key};
use super::resources::{format_time, raised};
use super::script::{Exit, Script, exit_file, read_exit};
use super::settings::StageJobs;
use super::state::{End, TaskState};
use super::{FailedPart, SlurmError, SlurmRun};
use crate::report::seconds;
use crate::run::count;
use crate::run_part::open_parts;
use crate::stage::folder_name;
use crate::{OpenParts, RunError, Stage, StageRange, files};

/// The pause between two looks at files.
const LOOK: Duration = Duration::from_millis(500);
/// The shortest pause between two questions to Slurm.
const FIRST_POLL: f64 = 0.5;
/// The growth of that pause while nothing changes.
const GROWTH: f64 = 1.3;
/// The time in which results of a finished task appear here. File systems of networks may show an older state for a minute.
const SETTLE: Duration = Duration::from_secs(90);
/// The time in which the exit code of a failed task appears here.
const SETTLE_EXIT: Duration = Duration::from_secs(10);
/// The shortest interval between two lines about states.
const SAY: Duration = Duration::from_secs(10);
/// The number of attempts to reach Slurm's daemon for a submission.
const SUBMISSIONS: u32 = 5;
/// The number of a log's lines in an error.
const LINES: usize = 6;
/// The exit code of a process that was asked to stop, and that of a wrong recipe.
const STOPPED: i32 = 130;
const USAGE: i32 = 2;

/// Follows the jobs of a run.
pub(super) struct Follower<'a> {
    run: &'a SlurmRun<'a>,
    record: Record,
    /// When a failed task was first seen without an exit code.
    without_exit: HashMap<TaskId, Instant>,
    /// The number of times that Slurm did not know a task.
    unknown: HashMap<TaskId, u32>,
    /// The log that is printed while it grows, and the number of bytes printed.
    shown_log: Option<(PathBuf, u64)>,
    next_poll: Instant,
    pause: f64,
    said: (String, Option<Instant>),
    /// True while Slurm does not answer.
    unreachable: bool,
    started: HashMap<TaskId, Instant>,
}

/// The way in which a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Its work was saved before the time limit.
    Saved,
    /// It was asked to stop.
    Stopped,
    Cancelled,
    Exit(i32),
    OutOfMemory,
    TimeLimit,
    NodeFailed,
    Preempted,
    /// It failed without leaving an exit code.
    Failed,
    /// Slurm does not know it any more, and there is no exit code.
    Unknown,
}

/// A task that has just ended.
struct Ended {
    id: TaskId,
    stage: String,
    task: Task,
    limits: (Option<u64>, Option<u64>),
    outcome: Outcome,
}

/// The results of a round of tasks.
#[derive(Default)]
struct Round {
    done: Vec<Option<String>>,
    failed: Vec<FailedPart>,
    cancelled: Vec<FailedPart>,
    stopped: bool,
}

impl<'a> Follower<'a> {
    /// Finds the jobs of an earlier run again.
    pub fn new(run: &'a SlurmRun<'a>, record: Record) -> Result<Self, RunError> {
        let mut follower = Self {
            run,
            record,
            without_exit: HashMap::new(),
            unknown: HashMap::new(),
            shown_log: None,
            next_poll: Instant::now(),
            pause: FIRST_POLL,
            said: (String::new(), None),
            unreachable: false,
            started: HashMap::new(),
        };
        follower.find_again()?;
        Ok(follower)
    }

    /// The words of the command of every task.
    fn command(&self) -> Vec<String> {
        [vec![self.run.job.recipe.clone()], self.run.job.options.clone()].concat()
    }

    fn find_again(&mut self) -> Result<(), RunError> {
        let unnamed: Vec<String> =
            self.record.submissions.iter().filter(|one| one.job.is_none()).map(|one| one.name.clone()).collect();
        for name in unnamed {
            // The run died while it called sbatch, which may have gone on for a moment.
            let mut job = commands::find(&name).map_err(RunError::slurm)?;
            for _ in 0..3 {
                if job.is_none() {
                    sleep(Duration::from_secs(1));
                    job = commands::find(&name).map_err(RunError::slurm)?;
                }
            }
            for one in self.record.submissions.iter_mut().filter(|one| one.name == name) {
                one.job = job;
                one.tasks.iter_mut().for_each(|task| task.has_ended |= job.is_none());
            }
        }
        let command = self.command();
        let others = self.record.command != command && self.record.active() > 0;
        if others {
            // Of those that have ended nothing is left to do.
            self.unknown.extend(self.ids().into_iter().map(|id| (id, 1)));
            self.poll(true)?;
            let jobs = self.record.active_jobs();
            if !jobs.is_empty() {
                return Err(RunError::slurm(SlurmError::OtherJobs { jobs, command: self.record.command.clone() }));
            }
        }
        if self.record.command != command {
            (self.record.command, self.record.tries) = (command, BTreeMap::new());
        }
        self.record.drop_ended().map_err(RunError::experiment)?;
        if self.record.active() > 0 {
            let (tasks, jobs) = (count(self.record.active(), "task"), self.jobs());
            self.run.reporter.note(format!("found {tasks} of an earlier run in Slurm again ({jobs})"));
        }
        Ok(())
    }

    /// Brings the parts of a stage up to date, phase by phase. Returns their number.
    pub fn stage(&mut self, at: usize) -> Result<usize, RunError> {
        let stage = self.run.ordered[at];
        let (name, settings) = (folder_name(stage), self.run.settings.of(stage));
        let mut done: HashSet<Option<String>> = HashSet::new();
        let mut just_done: Vec<Option<String>> = Vec::new();
        loop {
            let mut open = self.open(stage)?;
            let ended = Instant::now();
            let is_late = |open: &OpenParts| wanted(open).iter().any(|task| just_done.contains(&task.key));
            while is_late(&open) && ended.elapsed() < SETTLE {
                self.wait(Duration::from_secs(2))?;
                open = self.open(stage)?;
            }
            let mut wanted = wanted(&open);
            let mut invisible = Vec::new();
            for task in wanted.iter().filter(|task| just_done.contains(&task.key)) {
                let tries = self.tries(&name, task);
                tries.failures += 1;
                if tries.total() > settings.retries {
                    invisible.push(task.key.clone());
                }
            }
            if !invisible.is_empty() {
                let part = |key: &Option<String>| {
                    FailedPart {
                    part: shown(&name, key.as_deref()),
                    what: "its job ended without an error, but its results are not here: is the experiment's folder the same on all nodes, \
                           and the recipe unchanged?"
                        .to_owned(),
                    log: self.record.logs(&name),
                    said: Vec::new(),
                }
                };
                let parts = invisible.iter().map(part).collect();
                return Err(self.failed(name, parts));
            }
            if wanted.is_empty() {
                return Ok(done.len());
            }
            let active = self.record.active_keys(&name);
            wanted.retain(|task| !active.contains(&task.key));
            let title = open.phase.as_deref().filter(|_| !open.parts.is_empty()).unwrap_or("the rest of the stage");
            let (new, old) = (wanted.len(), active.len());
            let found = if old > 0 { format!(", {old} there already") } else { String::new() };
            self.run.reporter.line(format!("{name}: {title}: {} to Slurm{found}", count(new, "part")));
            let round = self.round(stage, &settings, wanted)?;
            if round.stopped {
                self.run.reporter.note("a job was asked to stop and has saved its work");
                return Err(RunError::Interrupted);
            }
            if !round.cancelled.is_empty() {
                return Err(RunError::slurm(SlurmError::Cancelled { stage: name, parts: round.cancelled }));
            }
            if !round.failed.is_empty() {
                return Err(self.failed(name, round.failed));
            }
            done.extend(round.done.iter().cloned());
            just_done = round.done;
        }
    }

    /// Ends with parts that failed. The next run tries them as often again.
    fn failed(&mut self, stage: String, parts: Vec<FailedPart>) -> RunError {
        self.record.tries.retain(|key, _| !key.starts_with(&format!("{stage}/")));
        match self.record.write() {
            Ok(()) => RunError::slurm(SlurmError::Failed { stage, parts }),
            Err(error) => RunError::experiment(error),
        }
    }

    /// The parts of a stage that can be done now.
    fn open(&self, stage: &dyn Stage) -> Result<OpenParts, RunError> {
        let name = Some(folder_name(stage));
        let range = StageRange { first: name.clone(), last: name };
        open_parts(self.run.stages, self.run.recipe, self.run.experiment, &range)
    }

    fn tries(&mut self, stage: &str, task: &Task) -> &mut Tries {
        self.record.tries.entry(tries_key(stage, task.key.as_deref())).or_default()
    }

    /// Submits tasks and follows all until none is left.
    fn round(&mut self, stage: &dyn Stage, settings: &StageJobs, mut todo: Vec<Task>) -> Result<Round, RunError> {
        let name = folder_name(stage);
        let mut round = Round::default();
        loop {
            if !round.cancelled.is_empty() || round.stopped {
                todo.clear();
            }
            let room = settings.max_tasks.saturating_sub(self.record.active());
            // Few large arrays are better than many small ones.
            if !todo.is_empty() && (room >= todo.len() || room >= settings.max_tasks.div_ceil(2)) {
                let now: Vec<Task> = todo.drain(..room.min(todo.len())).collect();
                self.submit(stage, settings, now)?;
            }
            if self.record.active() == 0 && todo.is_empty() {
                self.record.drop_ended().map_err(RunError::experiment)?;
                return Ok(round);
            }
            for ended in self.poll(false)? {
                if ended.stage == name {
                    todo.extend(self.judge(stage, settings, ended, &mut round)?);
                }
            }
            self.record.drop_ended().map_err(RunError::experiment)?;
            self.wait(LOOK)?;
        }
    }

    /// Submits tasks, those with equal limits as one array.
    fn submit(&mut self, stage: &dyn Stage, settings: &StageJobs, tasks: Vec<Task>) -> Result<(), RunError> {
        let name = folder_name(stage);
        let mut groups: BTreeMap<(Option<u64>, Option<u64>), Vec<Task>> = BTreeMap::new();
        for task in tasks {
            let tries = *self.tries(&name, &task);
            let time = settings.time.map(|time| raised(time, settings.retry_time, tries.time_limits));
            let memory = settings.memory.map(|memory| raised(memory, settings.retry_memory, tries.out_of_memory));
            groups.entry((time, memory)).or_default().push(task);
        }
        for ((time, memory), tasks) in groups {
            self.submit_array(stage, settings, tasks, time, memory)?;
        }
        Ok(())
    }

    fn submit_array(
        &mut self,
        stage: &dyn Stage,
        settings: &StageJobs,
        tasks: Vec<Task>,
        time: Option<u64>,
        memory: Option<u64>,
    ) -> Result<(), RunError> {
        let stage_name = folder_name(stage);
        self.record.submitted += 1;
        // No other job of this user has the name: the experiment's folder, and a number that is never used again.
        let folder = blake3::hash(self.run.experiment.dir().as_os_str().as_encoded_bytes()).to_hex();
        let name = format!("flowmill-{}-{stage_name}-{}", &folder[..8], self.record.submitted);
        let (logs, exits) = (self.record.logs(&stage_name), self.record.exits(&name));
        files::make_dir(&logs).map_err(RunError::experiment)?;
        let keys = tasks.iter().map(|task| task.key.as_deref()).collect();
        let text = Script { job: &self.run.job, stage: stage.number(), keys, settings, exits: &exits }.text();
        let script = self.record.script(&name);
        files::write_atomically(&script, text.as_bytes()).map_err(RunError::experiment)?;
        let mut options = vec![
            format!("--job-name={name}"),
            format!("--array=0-{}", tasks.len() - 1),
            format!("--output={}/%A_%a.log", logs.display().to_string().replace('%', "%%")),
            // The run itself tries again, and knows what of.
            "--no-requeue".to_owned(),
        ];
        options.extend(time.map(|time| format!("--time={}", format_time(time))));
        options.extend(memory.map(|memory| format!("--mem={memory}M")));
        if stage.keeps_work() {
            options.push(format!("--signal=B:USR1@{}", settings.save_before));
        }
        options.extend(settings.options.iter().cloned());
        let number = tasks.len();
        let submission = Submission { name: name.clone(), job: None, stage: stage_name, tasks, time, memory };
        self.record.submissions.push(submission);
        self.record.write().map_err(RunError::experiment)?;
        let job = match self.call_sbatch(&options, &script, &name) {
            Ok(job) => job,
            Err(error) => {
                let refused = self.record.submissions.pop();
                self.record.write().map_err(RunError::experiment)?;
                refused.map_or(Ok(()), |refused| self.record.remove_files(&refused)).map_err(RunError::experiment)?;
                return Err(RunError::slurm(error));
            }
        };
        if let Some(submission) = self.record.submissions.last_mut() {
            submission.job = Some(job);
        }
        self.record.write().map_err(RunError::experiment)?;
        self.run.reporter.note(format!("  job {job}: {}, logs in {}", count(number, "task"), logs.display()));
        (self.pause, self.next_poll) = (FIRST_POLL, Instant::now());
        Ok(())
    }

    /// Calls `sbatch`, again if the daemon does not answer. It may have taken the job all the same.
    fn call_sbatch(&self, options: &[String], script: &std::path::Path, name: &str) -> Result<u64, SlurmError> {
        let mut attempt = 0;
        loop {
            match commands::submit(options, script) {
                Err(SlurmError::Unreachable { said, .. }) if attempt < SUBMISSIONS && !self.interrupted() => {
                    attempt += 1;
                    self.run.reporter.note(format!("  sbatch: {said}; trying again"));
                    sleep(Duration::from_secs(1 << attempt));
                    if let Ok(Some(job)) = commands::find(name) {
                        return Ok(job);
                    }
                }
                other => return other,
            }
        }
    }

    fn interrupted(&self) -> bool {
        self.run.options.interrupt.is_set()
    }

    /// Waits, unless the run is to stop.
    fn wait(&self, time: Duration) -> Result<(), RunError> {
        let began = Instant::now();
        while began.elapsed() < time {
            if self.interrupted() {
                return Err(RunError::Interrupted);
            }
            sleep(LOOK.min(time));
        }
        Ok(())
    }

    fn ids(&self) -> Vec<TaskId> {
        let of = |one: &Submission| {
            let job = one.job;
            one.active().filter_map(move |(at, _)| Some((job?, at))).collect::<Vec<_>>()
        };
        self.record.submissions.iter().flat_map(of).collect()
    }

    /// Looks at exit codes, and now and then at Slurm. Returns the tasks that have ended since.
    fn poll(&mut self, at_once: bool) -> Result<Vec<Ended>, RunError> {
        self.show_log();
        if !at_once && Instant::now() < self.next_poll {
            return self.take_ended(&HashMap::new(), false);
        }
        let jobs = self.record.active_jobs();
        let mut states: HashMap<TaskId, TaskState> = HashMap::new();
        if !jobs.is_empty() {
            match commands::queue(&jobs) {
                Ok(found) => {
                    states.extend(found);
                    self.unreachable = false;
                }
                Err(error @ SlurmError::Unreachable { .. }) => {
                    if !std::mem::replace(&mut self.unreachable, true) {
                        self.run.reporter.note(format!("  {error}; waiting"));
                    }
                    self.schedule_poll(false);
                    return self.take_ended(&HashMap::new(), false);
                }
                Err(error) => return Err(RunError::slurm(error)),
            }
        }
        let mut gone: Vec<u64> =
            self.ids().into_iter().filter(|id| !states.contains_key(id)).map(|(job, _)| job).collect();
        // The tasks of a job follow each other.
        gone.dedup();
        if !gone.is_empty() {
            for (id, state) in commands::accounting(&gone) {
                states.entry(id).or_insert(state);
            }
        }
        self.say_states(&states);
        let ended = self.take_ended(&states, true)?;
        self.schedule_poll(!ended.is_empty());
        Ok(ended)
    }

    fn schedule_poll(&mut self, changed: bool) {
        let longest = self.run.settings.poll_seconds;
        self.pause = if changed { FIRST_POLL.min(longest) } else { (self.pause * GROWTH).min(longest) };
        self.next_poll = Instant::now() + Duration::from_secs_f64(self.pause);
    }

    /// Marks the tasks that have ended by these states, or by their exit codes, and returns them.
    fn take_ended(&mut self, states: &HashMap<TaskId, TaskState>, asked: bool) -> Result<Vec<Ended>, RunError> {
        let mut ended = Vec::new();
        let there = self.record.exit_files();
        for at in 0..self.record.submissions.len() {
            let submission = &self.record.submissions[at];
            let Some(job) = submission.job else { continue };
            let (exits, stage) = (self.record.exits(&submission.name), submission.stage.clone());
            let limits = (submission.time, submission.memory);
            let active: Vec<usize> = submission.active().map(|(index, _)| index).collect();
            for index in active {
                let (id, file) = ((job, index), exit_file(&exits, index));
                // A list of names may be older than what a node has written.
                let has_ended = matches!(states.get(&id), Some(TaskState::Ended(_)));
                let exit = (has_ended || there.contains(&file)).then(|| read_exit(&file)).flatten();
                let Some(outcome) = self.outcome(id, states.get(&id), exit, asked) else { continue };
                let task = &mut self.record.submissions[at].tasks[index];
                task.has_ended = true;
                let (task, stage) = (task.clone(), stage.clone());
                ended.push(Ended { id, stage, task, limits, outcome });
            }
        }
        if !ended.is_empty() {
            self.record.write().map_err(RunError::experiment)?;
        }
        Ok(ended)
    }

    /// Returns how a task ended; none if it has not, or if that is not known yet.
    fn outcome(&mut self, id: TaskId, state: Option<&TaskState>, exit: Option<Exit>, asked: bool) -> Option<Outcome> {
        if exit.is_some_and(|exit| exit.code == 0) {
            return Some(Outcome::Done);
        }
        let of_exit = |exit: Exit| match exit {
            Exit { code: STOPPED, warned: true } => Outcome::Saved,
            Exit { code: STOPPED, warned: false } => Outcome::Stopped,
            Exit { code, .. } => Outcome::Exit(code),
        };
        let saved = exit.filter(|exit| exit.code == STOPPED && exit.warned).map(|_| Outcome::Saved);
        match state {
            Some(TaskState::Ended(end)) => match end {
                End::Completed => Some(Outcome::Done),
                End::Cancelled => Some(Outcome::Cancelled),
                End::Failed if saved.is_none() && self.tells_of_memory(id) => Some(Outcome::OutOfMemory),
                End::OutOfMemory => Some(Outcome::OutOfMemory),
                End::TimeLimit => Some(saved.unwrap_or(Outcome::TimeLimit)),
                End::NodeFailed => Some(saved.unwrap_or(Outcome::NodeFailed)),
                End::Preempted => Some(saved.unwrap_or(Outcome::Preempted)),
                End::Failed => match exit {
                    Some(exit) => Some(of_exit(exit)),
                    None => {
                        let since = *self.without_exit.entry(id).or_insert_with(Instant::now);
                        (since.elapsed() > SETTLE_EXIT).then_some(Outcome::Failed)
                    }
                },
            },
            Some(TaskState::Running) => {
                self.started.entry(id).or_insert_with(Instant::now);
                self.unknown.remove(&id);
                None
            }
            Some(TaskState::Pending(_)) => {
                self.unknown.remove(&id);
                None
            }
            None if asked => {
                let times = self.unknown.entry(id).or_default();
                *times += 1;
                (*times > 1).then(|| exit.map_or(Outcome::Unknown, of_exit))
            }
            None => None,
        }
    }

    /// Returns whether the log of a task says that Slurm ended it because of its memory. Slurm's state says so only where it limits memory
    /// by control groups.
    fn tells_of_memory(&self, (job, index): TaskId) -> bool {
        let Some(one) = self.record.submissions.iter().find(|one| one.job == Some(job)) else { return false };
        let log = last_lines(&self.record.log(&one.stage, job, index));
        log.iter().any(|line| {
            line.starts_with("slurmstepd")
                && ["memory limit", "oom-kill", "oom_kill"].iter().any(|words| line.contains(words))
        })
    }

    /// Decides what follows from the end of a task. Returns it if it is to be tried again.
    fn judge(
        &mut self,
        stage: &dyn Stage,
        settings: &StageJobs,
        ended: Ended,
        round: &mut Round,
    ) -> Result<Option<Task>, RunError> {
        let Ended { id, stage: name, task, limits, outcome } = ended;
        let part = shown(&name, task.key.as_deref());
        let job = format!("job {}_{}", id.0, id.1);
        let log = self.record.log(&name, id.0, id.1);
        if outcome == Outcome::Done {
            let took = self.started.get(&id).map(|began| format!(", {}", seconds(began.elapsed().as_secs_f64())));
            self.run.reporter.line(format!("  {part}: done ({job}{})", took.unwrap_or_default()));
            round.done.push(task.key);
            return Ok(None);
        }
        let what = format!("{job} {}", describe(outcome, limits));
        let failed = |advice: &str| FailedPart {
            part: part.clone(),
            what: format!("{what}{advice}"),
            log: log.clone(),
            said: errors_of_log(&log, LINES),
        };
        match outcome {
            Outcome::Stopped => {
                self.run.reporter.note(format!("  {part}: {what}"));
                round.stopped = true;
                return Ok(None);
            }
            Outcome::Cancelled => {
                round.cancelled.push(failed(""));
                return Ok(None);
            }
            _ => {}
        }
        // What a training has saved is progress, whatever ended its job.
        let mut again = Task { has_ended: false, ..task.clone() };
        if stage.keeps_work()
            && let Some(now) = wanted(&self.open(stage)?).into_iter().find(|now| now.key == task.key)
        {
            again = now;
            if again.reasons != task.reasons {
                let at = again.reasons.join("; ");
                self.run.reporter.line(format!("  {part}: {what}; {at}, in another job"));
                return Ok(Some(again));
            }
        }
        let section = format!("slurm.stages.{}", stage.name());
        let advice = match outcome {
            Outcome::Exit(USAGE) => Some("; the recipe or the program on the node is wrong".to_owned()),
            Outcome::OutOfMemory if settings.retry_memory.is_none() || limits.1.is_none() => {
                Some(format!("; raise {section}.memory, or set slurm.memory and slurm.retry_memory"))
            }
            Outcome::TimeLimit | Outcome::Saved if settings.retry_time.is_none() || limits.0.is_none() => {
                Some(format!("; raise {section}.time, or set slurm.time and slurm.retry_time, or make parts smaller"))
            }
            _ => None,
        };
        if let Some(advice) = advice {
            round.failed.push(failed(&advice));
            return Ok(None);
        }
        let tries = self.tries(&name, &task);
        match outcome {
            Outcome::OutOfMemory => tries.out_of_memory += 1,
            Outcome::TimeLimit | Outcome::Saved => tries.time_limits += 1,
            _ => tries.failures += 1,
        }
        let total = tries.total();
        if total > settings.retries {
            let attempts = count(total as usize, "attempt");
            let advice = if outcome == Outcome::Unknown { "; look into its log and `scontrol show job`" } else { "" };
            round.failed.push(failed(&format!(", after {attempts}{advice}")));
            return Ok(None);
        }
        let said = errors_of_log(&log, 1).pop().map_or_else(String::new, |line| format!("\n    | {line}"));
        let retry = format!("trying it again ({total} of {})", settings.retries);
        self.run.reporter.line(format!("  {part}: {what}; {retry}. Log: {}{said}", log.display()));
        Ok(Some(again))
    }

    /// Prints the numbers of waiting and running tasks when they change.
    fn say_states(&mut self, states: &HashMap<TaskId, TaskState>) {
        let (mut running, mut waiting, mut reasons) = (0, 0, BTreeMap::<&str, usize>::new());
        for id in self.ids() {
            match states.get(&id) {
                Some(TaskState::Running) => running += 1,
                Some(TaskState::Pending(reason)) => {
                    waiting += 1;
                    *reasons.entry(reason).or_default() += 1;
                }
                _ => {}
            }
        }
        let mut words = Vec::new();
        if running > 0 {
            words.push(format!("{running} running"));
        }
        if waiting > 0 {
            let reasons: Vec<&str> = reasons.into_keys().filter(|reason| !["", "None"].contains(reason)).collect();
            let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
            words.push(format!("{waiting} waiting{why}"));
        }
        let text = words.join(", ");
        let (last, when) = &self.said;
        if text.is_empty() || text == *last || when.is_some_and(|when| when.elapsed() < SAY) {
            return;
        }
        self.run.reporter.note(format!("  in Slurm: {text}"));
        self.said = (text, Some(Instant::now()));
    }

    /// Prints new lines of the log of the only task, such as a training.
    fn show_log(&mut self) {
        let ids = self.ids();
        let [(job, index)] = ids[..] else { return };
        let Some(one) = self.record.submissions.iter().find(|one| one.job == Some(job)) else { return };
        if one.tasks.len() != 1 {
            return;
        }
        let log = self.record.log(&one.stage, job, index);
        let from = match &self.shown_log {
            Some((shown, at)) if *shown == log => *at,
            _ => 0,
        };
        let read = || {
            let mut file = fs::File::open(&log)?;
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(1 << 20).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        let Ok(bytes) = read() else { return };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
            self.run.reporter.note(format!("  | {line}"));
        }
        self.shown_log = Some((log, from + whole as u64));
    }

    fn jobs(&self) -> String {
        let jobs: Vec<String> = self.record.active_jobs().iter().map(u64::to_string).collect();
        format!("{} {}", if jobs.len() == 1 { "job" } else { "jobs" }, jobs.join(" "))
    }

    /// Prints the jobs that stay in Slurm after a run that ends early.
    pub fn tell_what_stays(&self) {
        if self.record.active() > 0 {
            let (tasks, jobs) = (count(self.record.active(), "task"), self.jobs());
            let numbers = self.record.active_jobs().iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
            self.run.reporter.note(format!(
                "{tasks} stay in Slurm ({jobs}); the same command finds them again, and `scancel {numbers}` ends them"
            ));
        }
    }

    /// Removes the record at the end of a run, when no job is left.
    pub fn close(&mut self) -> Result<(), RunError> {
        self.record.drop_ended().map_err(RunError::experiment)?;
        if self.record.active() == 0 {
            self.record.remove().map_err(RunError::experiment)?;
        }
        Ok(())
    }
}

/// The tasks that a stage needs now: its open parts, or itself if its parts wait to replace a result.
fn wanted(open: &OpenParts) -> Vec<Task> {
    let task = |key: Option<&String>, reasons: &[String]| Task {
        key: key.cloned(),
        reasons: reasons.to_vec(),
        has_ended: false,
    };
    match open.parts[..] {
        [] if open.waits => vec![task(None, &[])],
        _ => open.parts.iter().map(|part| task(Some(&part.key), &part.reasons)).collect(),
    }
}

/// The name of a part, or of the rest of a stage, for people.
fn shown(stage: &str, key: Option<&str>) -> String {
    key.map_or_else(|| stage.to_owned(), |key| format!("{stage}/{key}"))
}

/// Describes the end of a task; `limits` are its time in seconds and its memory in megabytes.
fn describe(outcome: Outcome, (time, memory): (Option<u64>, Option<u64>)) -> String {
    let time = time.map_or_else(String::new, |time| format!(" ({})", format_time(time)));
    let memory = memory.map_or_else(String::new, |memory| format!(" ({memory} MB)"));
    match outcome {
        Outcome::Done => "is done".to_owned(),
        Outcome::Saved => format!("saved its work before the time limit{time}"),
        Outcome::Stopped => "was asked to stop".to_owned(),
        Outcome::Cancelled => "was cancelled".to_owned(),
        // The signal that the system sends when memory is used up, too.
        Outcome::Exit(137) => "was killed, as by a system that ran out of memory (exit code 137)".to_owned(),
        Outcome::Exit(code) if code > 128 => format!("was ended by signal {}", code - 128),
        Outcome::Exit(code) => format!("failed with exit code {code}"),
        Outcome::OutOfMemory => format!("ran out of memory{memory}"),
        Outcome::TimeLimit => format!("reached its time limit{time}"),
        Outcome::NodeFailed => "was lost with its node".to_owned(),
        Outcome::Preempted => "was preempted".to_owned(),
        Outcome::Failed => "failed, and left no exit code".to_owned(),
        Outcome::Unknown => "ended in a way that Slurm does not tell".to_owned(),
    }
}
