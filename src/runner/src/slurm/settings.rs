//! The section `slurm` of a recipe: the resources of jobs, in general and stage by stage.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::resources::{parse_memory, parse_time};
use crate::recipe::{joined_schema, keys_of};
use crate::session::in_order;
use crate::{Recipe, RecipeError, Stage};

/// The name of the section.
pub(crate) const SECTION: &str = "slurm";
/// The default of `max_tasks`, below the length of an array that Slurm allows by default.
const MAX_TASKS: u32 = 1000;
const RETRIES: u32 = 2;
/// The default of `save_before` in seconds.
const SAVE_BEFORE: u32 = 120;

/// Resources of the jobs of a stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JobSettings {
    /// The partition.
    ///
    /// Counterparts: `sbatch --partition`.
    partition: Option<String>,
    /// The account that is charged.
    ///
    /// Counterparts: `sbatch --account`.
    account: Option<String>,
    /// The quality of service.
    ///
    /// Counterparts: `sbatch --qos`.
    qos: Option<String>,
    /// The time limit of a job, as Slurm writes it: minutes, `HH:MM:SS`, `D-HH` or `D-HH:MM:SS`. By default that of the partition.
    ///
    /// Counterparts: `sbatch --time`.
    time: Option<String>,
    /// The memory of a node for a job, such as `8G` or `500M`; a number is in megabytes. By default that of the partition.
    ///
    /// Counterparts: `sbatch --mem`.
    memory: Option<String>,
    /// The processor cores of a process, which it uses all. By default those that Slurm gives to a task.
    ///
    /// Counterparts: `sbatch --cpus-per-task`.
    cores: Option<NonZeroU32>,
    /// The GPUs of a node.
    ///
    /// Counterparts: `sbatch --gpus-per-node`.
    gpus: Option<NonZeroU32>,
    /// The nodes of the training, of which `tasks_per_node` processes each become its ranks. By default 1.
    ///
    /// Counterparts: `sbatch --nodes`.
    nodes: Option<NonZeroU32>,
    /// The processes of the training on a node. By default 1.
    ///
    /// Counterparts: `sbatch --ntasks-per-node`.
    tasks_per_node: Option<NonZeroU32>,
    /// The way in which the processes of a training find each other. By default `pmix`.
    ///
    /// Counterparts: `srun --mpi`.
    mpi: Option<String>,
    /// Further options of `sbatch`, such as `["--constraint=avx512", "--exclude=node7"]`.
    flags: Option<Vec<String>>,
    /// Lines of shell before the work of a job, such as `module load openmpi`.
    setup: Option<String>,
    /// Number of parts that are in Slurm at the same time, queued or running. By default 1000.
    max_tasks: Option<NonZeroU32>,
    /// Number of times that a failed part is tried again. By default 2. A training that saved its progress before the time limit continues without
    /// being counted.
    retries: Option<u32>,
    /// Factor of the time limit when a part is tried again because it reached it. Without it, such a part is not tried again.
    retry_time: Option<f64>,
    /// Factor of the memory when a part is tried again because it ran out of it. Without it, such a part is not tried again.
    retry_memory: Option<f64>,
    /// Seconds before the time limit at which a training saves and ends, to be continued by another job. By default 120. Slurm may be up to a minute early.
    ///
    /// Counterparts: `sbatch --signal=B:USR1@120`.
    save_before: Option<u32>,
    /// Runs the stage where the command was started instead of in Slurm. By default false.
    local: Option<bool>,
}

/// What holds for all stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CommonSettings {
    /// The program `flowmill` on the nodes. By default the one that was started.
    program: Option<String>,
    /// Longest pause between two questions to Slurm about the state of jobs, in seconds.
    poll_seconds: f64,
    /// The same settings for single stages, by name: `{train: {partition: gpu, gpus: 1, time: 2-00}}`.
    stages: BTreeMap<String, JobSettings>,
}

impl Default for CommonSettings {
    fn default() -> Self {
        Self { program: None, poll_seconds: 10.0, stages: BTreeMap::new() }
    }
}

/// The section with all defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SlurmSettings {
    /// The program on the nodes, if it is another one.
    pub program: Option<String>,
    /// The longest pause between two questions, in seconds.
    pub poll_seconds: f64,
    all: JobSettings,
    stages: BTreeMap<String, JobSettings>,
}

/// The resources of the jobs of one stage, with all defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StageJobs {
    /// The resources as Slurm's options, without those that a retry changes.
    pub options: Vec<String>,
    /// The time limit in seconds.
    pub time: Option<u64>,
    /// The memory in megabytes.
    pub memory: Option<u64>,
    /// The cores of a process, if they are given.
    pub cores: Option<u32>,
    /// The number of processes.
    pub processes: u32,
    pub mpi: String,
    pub setup: String,
    pub max_tasks: usize,
    pub retries: u32,
    pub retry_time: Option<f64>,
    pub retry_memory: Option<f64>,
    pub save_before: u32,
    pub local: bool,
}

/// Returns the JSON schema of the section.
pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
    let parts = [JobSettings::json_schema(generator), CommonSettings::json_schema(generator)];
    joined_schema("Jobs of `flowmill run --executor slurm`. No result depends on these settings.", parts)
}

/// Returns the section as the recipe gives it, for `recipe show`; none if it gives none.
pub(crate) fn show(recipe: &Recipe) -> Result<Option<serde_json::Value>, RecipeError> {
    if !recipe.sets(SECTION) {
        return Ok(None);
    }
    let (all, common) = parts(recipe)?;
    let as_value = |shown: Result<serde_json::Value, serde_json::Error>| shown.map_err(|e| recipe.error(SECTION, e));
    let mut shown = as_value(serde_json::to_value(all))?;
    let common = as_value(serde_json::to_value(common))?;
    if let (Some(shown), serde_json::Value::Object(common)) = (shown.as_object_mut(), common) {
        shown.extend(common);
    }
    Ok(Some(shown))
}

fn parts(recipe: &Recipe) -> Result<(JobSettings, CommonSettings), RecipeError> {
    let all = recipe.shared(SECTION, keys_of::<CommonSettings>())?;
    Ok((all, recipe.shared(SECTION, keys_of::<JobSettings>())?))
}

impl SlurmSettings {
    /// Reads and checks the section.
    pub fn read(recipe: &Recipe, stages: &[Box<dyn Stage>]) -> Result<Self, RecipeError> {
        let (all, CommonSettings { program, poll_seconds, stages: by_stage }) = parts(recipe)?;
        if !(poll_seconds.is_finite() && poll_seconds > 0.0) {
            return Err(recipe.error("slurm.poll_seconds", "must be greater than 0"));
        }
        let ordered = in_order(stages);
        check(recipe, SECTION, &all)?;
        for name in ["nodes", "tasks_per_node"] {
            if recipe.sets(&format!("{SECTION}.{name}")) {
                let trained = ordered.iter().find(|stage| stage.runs_on_ranks()).map_or("train", |stage| stage.name());
                let told = format!("only a training runs on several processes: set slurm.stages.{trained}.{name}");
                return Err(recipe.error(&format!("{SECTION}.{name}"), told));
            }
        }
        let read = Self { program, poll_seconds, all, stages: by_stage };
        for (name, settings) in &read.stages {
            let key = format!("{SECTION}.stages.{name}");
            let Some(stage) = ordered.iter().find(|stage| stage.name() == name) else {
                let known: Vec<&str> = ordered.iter().map(|stage| stage.name()).collect();
                return Err(recipe.error(&key, format!("there is no such stage (known: {})", known.join(", "))));
            };
            check(recipe, &key, settings)?;
            if settings.processes() > 1 && !stage.runs_on_ranks() {
                return Err(recipe.error(&key, "only a training runs on several processes; its parts run side by side"));
            }
            let StageJobs { time, save_before, .. } = read.of(*stage);
            if stage.keeps_work() && time.is_some_and(|time| time <= u64::from(save_before)) {
                let told = format!("the time limit must be longer than save_before ({save_before} s)");
                return Err(recipe.error(&format!("{key}.time"), told));
            }
        }
        Ok(read)
    }

    /// Returns the settings of a stage.
    pub fn of(&self, stage: &dyn Stage) -> StageJobs {
        let merged = match self.stages.get(stage.name()) {
            Some(own) => own.over(&self.all),
            None => self.all.clone(),
        };
        let JobSettings { partition, account, qos, gpus, nodes, tasks_per_node, cores, .. } = &merged;
        let number = |number: &Option<NonZeroU32>| number.map(|number| number.to_string());
        let pairs = [
            ("partition", partition.clone()),
            ("account", account.clone()),
            ("qos", qos.clone()),
            ("cpus-per-task", number(cores)),
            ("gpus-per-node", number(gpus)),
            ("nodes", number(nodes)),
            ("ntasks-per-node", number(tasks_per_node)),
        ];
        let named = pairs.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value?)));
        StageJobs {
            options: named.chain(merged.flags.iter().flatten().cloned()).collect(),
            time: merged.time.as_deref().and_then(parse_time),
            memory: merged.memory.as_deref().and_then(parse_memory),
            cores: cores.map(NonZeroU32::get),
            processes: merged.processes(),
            mpi: merged.mpi.clone().unwrap_or_else(|| "pmix".to_owned()),
            setup: merged.setup.clone().unwrap_or_default(),
            max_tasks: merged.max_tasks.map_or(MAX_TASKS, NonZeroU32::get) as usize,
            retries: merged.retries.unwrap_or(RETRIES),
            retry_time: merged.retry_time,
            retry_memory: merged.retry_memory,
            save_before: merged.save_before.unwrap_or(SAVE_BEFORE),
            local: merged.local.unwrap_or(false),
        }
    }
}

/// Checks the values of settings under a key.
fn check(recipe: &Recipe, key: &str, settings: &JobSettings) -> Result<(), RecipeError> {
    let fail = |name: &str, told: &str| Err(recipe.error(&format!("{key}.{name}"), told));
    if settings.time.as_deref().is_some_and(|time| parse_time(time).is_none()) {
        return fail("time", "expected minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS");
    }
    if settings.memory.as_deref().is_some_and(|memory| parse_memory(memory).is_none()) {
        return fail("memory", "expected a number of megabytes, or one with K, M, G or T, such as 8G");
    }
    let is_factor = |factor: Option<f64>| factor.is_none_or(|factor| factor > 1.0 && factor <= 100.0);
    for (name, factor) in [("retry_time", settings.retry_time), ("retry_memory", settings.retry_memory)] {
        if !is_factor(factor) {
            return fail(name, "expected a factor above 1, at most 100");
        }
    }
    if settings.flags.iter().flatten().any(|flag| !flag.starts_with('-')) {
        return fail("flags", "each must be one word that starts with `-`, such as --constraint=avx512");
    }
    Ok(())
}

impl JobSettings {
    /// Returns these settings, with those of `below` where they have none.
    fn over(&self, below: &Self) -> Self {
        let (own, below) = (self.clone(), below.clone());
        Self {
            partition: own.partition.or(below.partition),
            account: own.account.or(below.account),
            qos: own.qos.or(below.qos),
            time: own.time.or(below.time),
            memory: own.memory.or(below.memory),
            cores: own.cores.or(below.cores),
            gpus: own.gpus.or(below.gpus),
            nodes: own.nodes.or(below.nodes),
            tasks_per_node: own.tasks_per_node.or(below.tasks_per_node),
            mpi: own.mpi.or(below.mpi),
            flags: own.flags.or(below.flags),
            setup: own.setup.or(below.setup),
            max_tasks: own.max_tasks.or(below.max_tasks),
            retries: own.retries.or(below.retries),
            retry_time: own.retry_time.or(below.retry_time),
            retry_memory: own.retry_memory.or(below.retry_memory),
            save_before: own.save_before.or(below.save_before),
            local: own.local.or(below.local),
        }
    }

    /// The number of processes of a job.
    fn processes(&self) -> u32 {
        let number = |number: Option<NonZeroU32>| number.map_or(1, NonZeroU32::get);
        number(self.nodes).saturating_mul(number(self.tasks_per_node))
    }
}
