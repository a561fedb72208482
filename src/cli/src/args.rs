//! The command line: every command, option and the text of `--help`.
//!
//! This file defines only types. The code of a command is in the file of the same name in [`crate::commands`].

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use flowmill_nn::NnError;
use flowmill_nn::device::DeviceName;
use flowmill_runner::StageRange;

const EXIT_CODES: &str = "\
Exit codes:
  0    done, or nothing to do
  1    a stage failed, or a check did not pass
  2    the command line or the recipe is wrong
  130  interrupted; run the same command again to continue";

/// Turns recordings into trained generative models of speech, by numbered stages that a recipe chains.
///
/// A recipe is one YAML file. It names the data and describes seven stages:
///
///   0 prep     reads the data directory, checks and splits it
///   1 embed    one vector per utterance and per speaker
///   2 tokens   discrete units of every utterance
///   3 pack     Parquet shards for training
///   4 train    the model
///   5 average  the mean of several checkpoints
///   6 export   the model in its public format, and samples to listen to
///
/// Every stage can be run again at any time. Stages that are up to date are skipped;
/// others run again, and the reason is printed. Results are in exp/NAME
/// in the folder of the recipe.
#[derive(Debug, Parser)]
#[command(
    name = "flowmill",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 120,
    verbatim_doc_comment,
    after_help = EXIT_CODES,
    after_long_help = "\
Examples:
  flowmill run recipes/demo --stage 0 --stop-stage 6
  flowmill status recipes/demo
  flowmill inspect recipes/demo/exp/demo/3-pack/train/shard-00000.parquet
  flowmill ctl recipes/demo status
  flowmill synth --model recipes/demo/exp/demo/6-export --wav speech.wav
  flowmill speak --model recipes/vall-e/exp/vall-e-smoke/6-export --text seven --prompt voice.wav

Exit codes:
  0    done, or nothing to do
  1    a stage failed, or a check did not pass
  2    the command line or the recipe is wrong
  130  interrupted; run the same command again to continue

Colors are used on a terminal only, and never when NO_COLOR is set."
)]
pub struct Cli {
    /// Log what happens and why to the standard error; -vv for details, -vvv for more. RUST_LOG overrides it
    #[arg(short = 'v', long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands. Each is described where its arguments are defined.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(RunArgs),
    Init(InitArgs),
    RunPart(RunPartArgs),
    Parts(PartsArgs),
    Train(TrainArgs),
    Ctl(CtlArgs),
    Report(ReportArgs),
    Status(StatusArgs),
    #[command(subcommand)]
    Recipe(RecipeCommand),
    Reference(ReferenceArgs),
    Inspect(InspectArgs),
    Convert(ConvertArgs),
    ConvertConfig(ConvertConfigArgs),
    Clean(CleanArgs),
    Doctor(DoctorArgs),
    Synth(SynthArgs),
    Speak(SpeakArgs),
    Talk(TalkArgs),
    Imagine(ImagineArgs),
    Parity(ParityArgs),
    Completions(CompletionsArgs),
    /// Prints the version and how this binary was built
    Version,
}

/// The recipe and the changes to it on the command line. Shared by all commands that read a recipe.
#[derive(Debug, Clone, Args)]
pub struct RecipeArgs {
    /// The recipe: a YAML file, or a folder with a recipe.yaml [default: ./recipe.yaml]
    #[arg(value_name = "RECIPE")]
    pub recipe: Option<PathBuf>,
    /// The changes to it.
    #[command(flatten)]
    pub changes: ChangeArgs,
}

/// Changes to a recipe from the command line.
#[derive(Debug, Clone, Args)]
pub struct ChangeArgs {
    /// Change one value of the recipe, for instance train.optim.lr=1e-4; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The experiment folder [default: exp/NAME in the folder of the recipe]
    #[arg(long, value_name = "DIR")]
    pub exp: Option<PathBuf>,
}

impl ChangeArgs {
    /// Returns the changes as words of a command line.
    pub fn set_words(&self) -> impl Iterator<Item = String> {
        self.set.iter().flat_map(|set| ["--set".to_owned(), set.clone()])
    }
}

/// The device. Shared by all commands that compute with a model.
#[derive(Debug, Clone, Copy, Args)]
pub struct DeviceArgs {
    /// The device: auto (a working GPU, otherwise the CPU), cpu, cuda:N or metal; overrides all devices in the recipe
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceName>,
}

/// The first and the last stage.
#[derive(Debug, Clone, Args)]
pub struct StageArgs {
    /// The first stage, by number or name [default: the first]
    #[arg(long, value_name = "STAGE", aliases = ["start-stage", "start_stage"])]
    pub stage: Option<String>,
    /// The last stage, by number or name [default: the last]
    #[arg(long, value_name = "STAGE", aliases = ["stop_stage", "end-stage"])]
    pub stop_stage: Option<String>,
}

impl StageArgs {
    /// Returns the range in the runner's form.
    pub fn range(&self) -> StageRange {
        StageRange { first: self.stage.clone(), last: self.stop_stage.clone() }
    }
}

/// Runs the stages of a recipe that are not up to date.
///
/// A stage consists of parts. A part is up to date if its inputs, its outputs and the recipe values that it reads
/// have not changed since it was made. All other parts are made again, and the changed field or file is printed.
/// Files get their final names only when they are complete, so the command can be interrupted or killed at any time
/// and repeated. It ends with the commands that are likely next.
#[derive(Debug, Args)]
#[command(
    after_help = EXIT_CODES,
    after_long_help = "\
Examples:
  flowmill run recipes/demo                                  all stages
  flowmill run recipes/demo --stage 0 --stop-stage 3         the data only
  flowmill run recipes/demo --stage train --stop-stage train
  flowmill run recipes/demo --dry-run                        what would run, and why
  flowmill run recipes/demo --set train.optim.lr=1e-4 --exp exp/lr1e-4
  flowmill run recipes/demo --device cuda:0                  trains and samples on a GPU
  flowmill run recipes/demo --executor slurm                 the parts of every stage as jobs of a cluster

Exit codes:
  0    done, or nothing to do
  1    a stage failed
  2    the command line or the recipe is wrong
  130  interrupted; run the same command again to continue"
)]
pub struct RunArgs {
    /// The recipe and its changes.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The stages to run.
    #[command(flatten)]
    pub stages: StageArgs,
    /// The device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Run the selected stages even if they are up to date
    #[arg(long)]
    pub force: bool,
    /// Print what would run and why, without running anything
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Read every output and compare its checksum, instead of trusting size and modification time
    #[arg(long)]
    pub verify: bool,
    /// Number of threads [default: one per core]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub jobs: Option<u16>,
    /// Number of processes that train together on this machine (through mpirun; the build needs the feature mpi)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub nproc: Option<u16>,
    /// Where the parts of stages are done. The section slurm of the recipe has the resources of jobs
    #[arg(long, value_enum, value_name = "NAME", default_value_t = ExecutorName::Local)]
    pub executor: ExecutorName,
    /// Wait if another run works on the experiment, instead of failing
    #[arg(long)]
    pub wait: bool,
    /// Print errors only
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

/// The executors of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExecutorName {
    /// On the threads of this process
    Local,
    /// As jobs of Slurm, which this command submits and follows
    Slurm,
}

/// Says what a folder of data is, and writes a recipe for it.
///
/// The layout is recognized as with `format: auto`. Printed are the layout, the rows, their media, speakers, languages, splits and what
/// recordings they have. The recipe is that of the family at its published setting, with these data. It needs no other file than the weights
/// of front-ends that it names. Nothing is overwritten.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  flowmill init corpora/LibriTTS                             writes recipe.yaml here
  flowmill init corpora/hdtf --family float --out talk/recipe.yaml
  flowmill init shards/data.list                             packed shards of CosyVoice

Exit codes:
  0  the recipe was written
  1  a file could not be written
  2  the command line is wrong, or the folder is empty, of no known layout, or holds several corpora")]
pub struct InitArgs {
    /// The folder of the data, or a manifest, a list, a table or a tar file
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The family of the model [default: cosyvoice2-flow]
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<String>,
    /// The recipe to write [default: recipe.yaml in this folder]
    #[arg(long, value_name = "RECIPE")]
    pub out: Option<PathBuf>,
}

/// The recipe and the stage that a command about parts is about.
#[derive(Debug, Args)]
pub struct StageOfRecipeArgs {
    /// The recipe: a YAML file, or a folder with a recipe.yaml
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,
    /// The stage, by number or name
    #[arg(value_name = "STAGE")]
    pub stage: String,
    /// The changes to the recipe.
    #[command(flatten)]
    pub changes: ChangeArgs,
}

impl StageOfRecipeArgs {
    /// The recipe and its changes.
    pub fn recipe(&self) -> RecipeArgs {
        RecipeArgs { recipe: Some(self.recipe.clone()), changes: self.changes.clone() }
    }

    /// The stage as the runner takes it.
    pub fn range(&self) -> StageRange {
        StageRange { first: Some(self.stage.clone()), last: Some(self.stage.clone()) }
    }
}

/// Does one part of a stage, so that several processes or machines work on one experiment at the same time.
///
/// A stage is cut into phases, and a phase into parts that do not read each other's results. Any number of processes, each
/// with `run-part`, can do parts of the same phase at the same time; `flowmill parts` prints the parts that can be done. When
/// all parts of a phase are done, those of the next one can be. `flowmill run` then finds them up to date, does what is
/// left, and finishes the stage, as a run without other processes would have. It works alone: it fails, or waits with
/// --wait, while parts are being done, and they while it works.
///
/// A part that is up to date is left alone, and a part that another process does is refused. When a process is killed, any
/// other can do its part. The last result of a finished stage stays as it is: parts that are to replace it wait until
/// `flowmill run` replaces it as a whole.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  flowmill run-part recipes/demo 0 read
  flowmill parts recipes/demo 1 | xargs -P 4 -n 1 flowmill run-part recipes/demo 1
  flowmill run recipes/demo --stage 1 --stop-stage 1         finishes the stage

Exit codes:
  0    done, or up to date
  1    the part failed, another process does it, or a run works on the experiment
  2    the command line or the recipe is wrong, a stage before is not finished, or the part cannot be done now
  130  interrupted; run the same command again to continue")]
pub struct RunPartArgs {
    /// The recipe and the stage.
    #[command(flatten)]
    pub of: StageOfRecipeArgs,
    /// The key of the part
    #[arg(value_name = "KEY")]
    pub key: String,
    /// The device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Read every output and compare its checksum, instead of trusting size and time of change
    #[arg(long)]
    pub verify: bool,
    /// Number of threads [default: one per core]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub jobs: Option<u16>,
    /// Number of processes that train together on this machine (through mpirun; the build needs the feature mpi)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub nproc: Option<u16>,
    /// Wait when a run works on the experiment or another process does the part, instead of failing
    #[arg(long)]
    pub wait: bool,
    /// Print errors only
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

/// Prints the parts of a stage that can be done now, one key per line, for `flowmill run-part`.
///
/// They are those of the first phase that is not done. Nothing is printed when all are done and only `flowmill run` is left
/// to finish the stage. Nothing is changed.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  flowmill parts recipes/demo 0
  flowmill parts recipes/demo tokens --json | jq -r '.parts[] | select(.running == null) | .key'

Exit codes:
  0  done
  1  a file could not be read
  2  the command line or the recipe is wrong, or a stage before is not finished")]
pub struct PartsArgs {
    /// The recipe and the stage.
    #[command(flatten)]
    pub of: StageOfRecipeArgs,
    /// The device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print JSON, with rows, reasons, and the process that does the part
    #[arg(long)]
    pub json: bool,
}

/// Examines the training of a recipe, or goes back in it. To train, use `flowmill run RECIPE`.
///
/// --overfit N trains on a few batches again and again, to see in a minute whether the model can learn with these
/// settings. It starts the model like stage 4 and trains it only on the first N batches, one batch per step, with the
/// recipe's optimizer and clipping. Two things differ from training, so that the loss can fall towards zero on
/// repeated batches: every random draw of a batch (time, noise, dropped conditions, dropout masks) is the same each
/// time, and the learning rate is always train.optim.lr, without warm-up. There is no moving average, accumulation,
/// validation or checkpoint, and nothing is written to the stages of the experiment. Stages 0 to 3 run first if they
/// are not up to date. A model of the family vall-e learns every level of codes of each batch in turn, and in the end
/// speaks the first train.sample_count utterances into on-command/overfit/ of the experiment; with
/// --set train.batch.batch_size=1 a batch is one utterance.
///
/// It prints the loss of every step, its fall, and whether every trainable parameter changed. A correct model reaches
/// a fall by 90 % on one batch. This shows that gradients arrive and that the settings fit together, not that the
/// model will be good.
///
/// --plan-memory finds the largest batch in all epochs of the run, trains on it and on some batches after it, with as
/// many batches waiting as the loader keeps, and prints the peak of memory by kind. If a part of the batch shows that
/// the whole would not fit, the rest is left out and the figure is an estimate.
///
/// --replay DUMP repeats a step that was skipped because its loss or gradient was not finite: the same batches and
/// random draws on the weights that were saved next to the dump. It prints the loss of every batch, the norm of every
/// parameter's gradient, and whether they equal those in the dump.
///
/// --eval prints the validation loss, and its parts, of the newest intact checkpoint. Training may be finished,
/// running or interrupted. A model of the family vall-e also speaks the first train.sample_count validation
/// utterances in the voices of their prompts: prompt, output and target are in on-command/eval/ of the experiment,
/// and the distance of output and target (mel-STFT) is printed. With --eval-random-text-prompts it speaks random texts
/// of the split instead (on-command/eval-random-texts/).
///
/// --rollback STEP goes back to the checkpoint of that step if a training went wrong, finished or interrupted. Newer
/// checkpoints are moved aside (4-train/rolled-back-step-…), and the next run continues from that step and removes
/// later entries from the logs.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true), after_long_help = "\
Examples:
  flowmill train recipes/demo --overfit 1
  flowmill train recipes/demo --eval
  flowmill train recipes/vall-e/smoke.yaml --overfit 1 --set train.batch.batch_size=1
  flowmill train recipes/demo --replay recipes/demo/exp/demo/4-train/skipped/step-000123.json
  flowmill train recipes/demo --overfit 4 --steps 800 --set train.optim.lr=1e-3
  flowmill train recipes/demo --plan-memory --set train.gradient_checkpointing=true
  flowmill train recipes/demo --rollback 5000

Exit codes:
  0    success: all parameters changed and all losses were finite; there is enough memory; all figures equal the dump's
  1    a parameter did not change, a loss was not finite, there is too little memory, a figure differs from the dump's,
       an earlier stage failed or is not done, or another run uses the experiment
  2    the command line or the recipe is wrong, or there is no checkpoint to go back to
  130  interrupted")]
pub struct TrainArgs {
    /// The recipe and its changes.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Train on the first N batches of the first epoch only, again and again
    #[arg(long, group = "what", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub overfit: Option<u16>,
    /// Measure the memory that training needs, by its largest batch
    #[arg(long, group = "what")]
    pub plan_memory: bool,
    /// Repeat the skipped step in this dump
    #[arg(long, group = "what", value_name = "DUMP")]
    pub replay: Option<PathBuf>,
    /// Validate the newest checkpoint; models that speak also speak
    #[arg(long, group = "what")]
    pub eval: bool,
    /// With --eval: speak random texts of the validation split instead of those of the utterances
    #[arg(long, requires = "eval", conflicts_with_all = ["overfit", "plan_memory", "replay", "rollback"])]
    pub eval_random_text_prompts: bool,
    /// Go back to the checkpoint of this step
    #[arg(long, group = "what", value_name = "STEP")]
    pub rollback: Option<u64>,
    /// With --overfit: run exactly N steps, each on one batch [default: until the loss has fallen by 90 %, at most
    /// 1000 per batch]
    #[arg(long, requires = "overfit", conflicts_with_all = ["plan_memory", "replay", "eval", "rollback"], value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: Option<u32>,
    /// With --plan-memory: plan for one of N processes that train together on this machine
    #[arg(long, requires = "plan_memory", conflicts_with_all = ["overfit", "replay", "eval", "rollback"], value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub nproc: Option<u16>,
    /// Number of threads [default: one per core]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub jobs: Option<u16>,
}

/// Steers a training while it runs.
///
/// Sends one command to the run that trains in the experiment, on this machine, and prints its
/// answer: what was done and at which step. Commands take effect between two steps. A run on a
/// terminal also accepts commands that are typed there, followed by Enter.
///
///   status            prints the step, the loss and the rate
///   save              writes a checkpoint, which stays until the next one of the schedule
///   quit              saves and stops; the same `flowmill run` continues from there
///   eval              validates now
///   lr 1e-4           sets the base learning rate, which the schedule scales, from the next step on
///   sample            generates a few validation utterances into on-command/samples/ of the experiment
///   export            writes the weights as a model into on-command/export/ of the experiment
///   loss-scale 65536  sets the scale of the loss in half precision
///   save@5000         runs any of these commands after step 5000
///
/// `lr` changes the results of the training, so it is stored next to the checkpoints, in commands.jsonl.
/// A run that is killed and resumed applies it again at the same step.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  flowmill ctl recipes/demo status
  flowmill ctl exp/demo lr 1e-4
  flowmill ctl exp/demo save@5000

Exit codes:
  0  done, or scheduled for its step
  1  not done (the reason is printed), or no training is running there
  2  no such command or experiment"
)]
pub struct CtlArgs {
    /// The experiment folder, or its recipe
    #[arg(value_name = "EXP")]
    pub experiment: PathBuf,
    /// The command
    #[arg(value_name = "COMMAND", required = true, num_args = 1.., allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Writes one HTML page about an experiment: samples next to the real recordings, scores, curves, checkpoints, data, what ran.
///
/// The page is self-contained: pictures and sound are embedded, and it needs no network. It can be written at any
/// time. For a training that is running, was stopped or died, it shows the progress so far. The same experiment gives
/// the same page.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  flowmill report recipes/demo
  flowmill report exp/demo --out demo.html")]
pub struct ReportArgs {
    /// The experiment folder, or its recipe
    #[arg(value_name = "EXP")]
    pub experiment: PathBuf,
    /// The output file [default: report.html in the experiment folder]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Shows every stage: its state, rows, age, and why it would run.
///
/// States: done (up to date), partial (some parts are done), interrupted (an unfinished training whose progress is
/// saved), stale (something changed since), never run, waiting (an earlier stage runs first). This command changes
/// nothing.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  flowmill status recipes/demo
  flowmill status recipes/demo --set train.optim.lr=1e-4     what that change would run
  flowmill status recipes/demo --json | jq '.stages[].state'")]
pub struct StatusArgs {
    /// The recipe and its changes.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Prints a recipe, checks it, or describes its keys to an editor.
#[derive(Debug, Subcommand)]
pub enum RecipeCommand {
    Show(RecipeShowArgs),
    Check(RecipeCheckArgs),
    /// Prints the JSON schema of recipes, with which editors complete and check keys
    Schema,
}

/// Prints the recipe as the stages see it, with every default filled in.
#[derive(Debug, Args)]
pub struct RecipeShowArgs {
    /// The recipe and its changes.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Print JSON instead of YAML
    #[arg(long)]
    pub json: bool,
}

/// Checks the recipe: keys, types, files, combinations.
#[derive(Debug, Args)]
pub struct RecipeCheckArgs {
    /// The recipe and its changes.
    #[command(flatten)]
    pub recipe: RecipeArgs,
}

/// Prints a page of the reference as Markdown: every key of a recipe, or every command.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  flowmill reference recipe
  flowmill reference commands > COMMANDS.md")]
pub struct ReferenceArgs {
    /// The page
    #[arg(value_name = "PAGE", value_enum)]
    pub page: ReferencePage,
}

/// The pages of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReferencePage {
    /// Every key of a recipe
    Recipe,
    /// Every command and option
    Commands,
}

/// Shows the content of files and folders: tables, checkpoints, experiments, metrics, recordings
///
/// The kind of a file is determined from its content, not from its name:
///
///   folders            a checkpoint, an exported model, a stage, an experiment (or its recipe), or a folder with weights
///   Parquet, Arrow     columns, rows, row groups or batches, the first rows
///   tar                number of members by extension, the first members
///   safetensors        names, types, shapes, parameter count, notes
///   PyTorch            the same and the scalars of a state dict, or the values of a saved dict; no code in it is executed
///   NumPy, ONNX        type and shape of an array; inputs, outputs, operators and weights of a network
///   receipts           the inputs, values and outputs of one part of a stage
///   JSON, JSON lines   metrics and journals: the last rows and a summary of every number
///   TensorBoard, W&B   event files and .wandb files: every tag with its steps and values; configuration and summary
///   recordings         codec, rate, channels, length, level
///   PNG, text          size; the first lines
///   gzip, zstd         the content, up to 1 GiB of it
///
/// Of a damaged log or archive everything before the damage is shown, and the exit code is 1.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  flowmill inspect exp/demo                                   stages, checkpoints, the next command
  flowmill inspect exp/demo/3-pack/train/shard-00000.parquet --rows 3
  flowmill inspect exp/demo/0-prep/rejected.parquet           reasons by kind, then the first rows
  flowmill inspect exp/demo/4-train/checkpoints/step-000800 exp/demo/6-export
  flowmill inspect flow.pt utt2embedding.pt campplus.onnx manifest.jsonl.gz
  flowmill inspect exp/demo/4-train/metrics.jsonl --json | jq .numbers.loss.last"
)]
pub struct InspectArgs {
    /// The files and folders
    #[arg(value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,
    /// Number of rows to show
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub rows: usize,
    /// Show long texts and lists in full, whatever their length
    #[arg(long)]
    pub full: bool,
    /// Print JSON for programs, one object on one line per file; docs/FORMATS.md lists its keys. Texts are in full,
    /// lists of tables with --full only
    #[arg(long)]
    pub json: bool,
}

/// Writes the tensors of a weight file in another format, bit for bit.
///
/// Reads .safetensors, PyTorch files (.pt, .pth, .bin; zip and legacy), .npy and ONNX initializers, recognized by
/// their content. No code in a file is executed. Names, shapes and element types do not change. If a PyTorch file
/// contains more than a state dict (for example an optimizer), the state dict and the scalars next to it are written,
/// and everything else is listed as left out.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  flowmill convert flow.pt flow.safetensors
  flowmill convert model.safetensors flow.pt                 torch.load(weights_only=True) reads it
  flowmill convert checkpoint.pt flow.pt --strip-prefix module.")]
pub struct ConvertArgs {
    /// The weight file to read, an index of shards, or a folder with weights under a usual name
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// The file to write: .safetensors, or .pt, .pth or .bin for a PyTorch state dict
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// Write only tensors whose names begin with this prefix, and remove it; other tensors are listed as left out
    #[arg(long, value_name = "PREFIX")]
    pub strip_prefix: Option<String>,
}

/// Writes a recipe from the configuration of the public VALL-E trainer, of a FLOAT training, of the public PMG code, of Accelerate or of DeepSpeed.
///
/// Keys of the configuration that have no counterpart are listed, and stand as comments at the end of the recipe. Its
/// paths start from the folder of the configuration, where the trainer of VALL-E has `data/` or `data.h5`. A FLOAT training
/// has a JSON file with the options of its scripts, such as `data_root`, `batch_size`, `fmt_depth` and `a_cfg_scale`. PMG
/// has YAML with `dataset`, `model`, `training` and `pmg`. The YAML of `accelerate config` and the JSON of DeepSpeed become a
/// few keys of `train`, for a recipe that names the file as its `base`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  flowmill convert-config training/config.yaml               writes training/recipe.yaml
  flowmill convert-config training/config.yaml valle.yaml
  flowmill convert-config options.json float.yaml
  flowmill convert-config configs/flickr_train.yaml pmg.yaml
  flowmill convert-config ds_config.json processes.yaml      keys for `base: processes.yaml`")]
pub struct ConvertConfigArgs {
    /// The configuration of the trainer
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
    /// The recipe to write [default: recipe.yaml in the folder of CONFIG]
    #[arg(value_name = "OUT")]
    pub output: Option<PathBuf>,
}

/// Deletes results of stages, so that they run again. Recipes and data are never deleted.
///
/// On a terminal it asks first; otherwise --yes is required.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  flowmill clean recipes/demo --stage train                  stages 4, 5 and 6
  flowmill clean recipes/demo --stage 1 --stop-stage 1 --yes
  flowmill clean recipes/demo --dry-run")]
pub struct CleanArgs {
    /// The recipe and its changes.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The stages to delete.
    #[command(flatten)]
    pub stages: StageArgs,
    /// Print what would be deleted, and delete nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// Prints the resources of this machine: cores, memory, disk, thread settings, GPU support.
///
/// With a recipe it also checks the recipe, the free space at its experiment folder, and whether the weights that it
/// names exist.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes:
  0  no problems (there may be warnings)
  1  something that the recipe needs is missing
  2  the recipe is wrong")]
pub struct DoctorArgs {
    /// The recipe and its changes.
    #[command(flatten)]
    pub recipe: RecipeArgs,
}

/// Turns recordings or speech tokens into sound through an exported model.
///
/// A recording is encoded to the units of the model and decoded again: recording, units, mel, sound. Units may also come from files that another
/// program wrote, and the voice from another recording or from a file of speaker embeddings. What is longer than --window is generated in
/// windows, each of which continues the one before.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Files of tokens:
  utt2speech_token.pt and other pickles, Parquet (shards of CosyVoice and Flowmill, tables of stage 2), JSON, JSON lines, .npy, .safetensors.
  Tokens of two codebooks are one mixed sequence, or two streams named vq02 and vq06.

Examples:
  flowmill synth --model exp/demo/6-export --wav speech.wav
  flowmill synth --model exp/demo/6-export --wav a.flac b.mp3 --out resynthesized --mel npy
  flowmill synth --model exp/demo/6-export --wav speech.wav --speaker other.wav
  flowmill synth --model exp/demo/6-export --tokens utt2speech_token.pt --utt a b --speaker spk2embedding.pt:anna
  flowmill synth --model exp/demo/6-export --tokens shard-000.parquet --out spoken
  flowmill synth --model exp/demo/6-export --wav long.wav --chunk 1 --out - | aplay -t raw -f S16_LE -r 24000
  flowmill synth --model exp/mine/6-export --wav speech.wav --vocoder hift --vocoder-weights weights/hift.pt")]
pub struct SynthArgs {
    /// The exported model: a folder with model.safetensors and config.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The recordings, in any format; formats that Flowmill does not decode itself need the ffmpeg program
    #[arg(long, value_name = "REF", required_unless_present = "tokens", num_args = 1..)]
    pub wav: Vec<PathBuf>,
    /// Files of speech tokens, with one output for each id
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub tokens: Vec<PathBuf>,
    /// Only these ids of the files of --tokens
    #[arg(long, value_name = "ID", num_args = 1.., requires = "tokens")]
    pub utt: Vec<String>,
    /// The voice: a recording, or a speaker embedding in a .pt, .npy, .safetensors, JSON or Parquet file, with its id where there are several
    /// [default: that of each recording, or of each row of tokens]
    #[arg(long, value_name = "FILE[:ID]")]
    pub speaker: Option<String>,
    /// The folder for the sound files and pictures; `-` writes the sound to the standard output as it is made, as raw PCM (mono, 16 bit,
    /// little-endian)
    #[arg(long, value_name = "DIR", default_value = "synth")]
    pub out: PathBuf,
    /// Makes and writes the sound in parts of this many seconds: the file NAME.part.wav grows, and becomes NAME.wav at its end
    #[arg(long, value_name = "SECONDS", conflicts_with = "window")]
    pub chunk: Option<f64>,
    /// Longest part that is generated at once; longer inputs are generated in windows [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub window: Option<f64>,
    /// Solver of the path from noise to mel [default: the model's own; euler with --steps]
    #[arg(long, value_enum)]
    pub solver: Option<SolverName>,
    /// Number of Euler steps from noise to mel [default: the model's own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub steps: Option<u16>,
    /// Strength of the guidance by the units [default: the model's own]
    #[arg(long, value_name = "RATE")]
    pub guidance: Option<f32>,
    /// Strength alpha of a shallow flow, which determines where on the path it starts [default: the model's own]
    #[arg(long, value_name = "ALPHA")]
    pub strength: Option<f32>,
    /// Generates chunk by chunk, as if the units were still arriving: with chunk-causal masks, and a few units of look-ahead
    #[arg(long, conflicts_with_all = ["chunk", "window"])]
    pub streaming: bool,
    /// Also writes the generated log-mels, `[band, frame]`: to this .npy, .pt or .safetensors file (entry `mel`) for one input; with `npy`, `pt`
    /// or `safetensors` for each input next to its sound
    #[arg(long, value_name = "FILE|FORMAT")]
    pub mel: Option<PathBuf>,
    /// The vocoder from mel to sound; a neural one needs --vocoder-weights
    #[arg(long, value_enum, default_value = "griffin-lim")]
    pub vocoder: VocoderName,
    /// Public weights of a neural vocoder, in PyTorch's format or safetensors
    #[arg(long, value_name = "FILE")]
    pub vocoder_weights: Option<PathBuf>,
    /// Public configuration of a neural vocoder, JSON or YAML [default: config.json or config.yaml next to the weights, or the published values]
    #[arg(long, value_name = "FILE")]
    pub vocoder_config: Option<PathBuf>,
    /// Seed of the random draws; another seed gives another sample
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// The device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Speaks a text in the voice of a recording, through an exported model of the family vall-e.
///
/// The recording is the prompt: a few seconds of one speaker. A longer one is cut to the longest prompt of the training.
/// The length of the speech, the number of frames and the real-time factor (the time taken divided by the length) are
/// printed. With --lines many texts are spoken, and the model is loaded once.
///
/// --task stt prints the phonemes that are spoken in the recording of --prompt, if the model was trained for that.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("text_or_lines").args(["text", "lines"]),
    after_long_help = "\
Examples:
  flowmill speak --model exp/vall-e/6-export --text \"Once again, excellent work.\" --prompt voice.wav --out speech.wav
  flowmill speak --model exp/vall-e/6-export --text seven --prompt voice.wav --path nar-len --steps 20
  flowmill speak --model exp/vall-e/6-export --lines lines.tsv --prompt voice.wav --out spoken
  flowmill speak --model exp/vall-e/6-export --task stt --prompt speech.wav"
)]
pub struct SpeakArgs {
    /// The exported model: a folder with model.safetensors and config.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// An adapter that is added to the model: the folder of an exported one or of a checkpoint, or a lora.sft
    #[arg(long, value_name = "ADAPTER")]
    pub lora: Option<PathBuf>,
    /// The text to speak
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
    /// A file of texts: a line NAME<TAB>TEXT, or NAME<TAB>TEXT<TAB>RECORDING with a prompt of its own
    #[arg(long, value_name = "FILE")]
    pub lines: Option<PathBuf>,
    /// The recording of the voice, or with --task stt the recording to transcribe
    #[arg(long, value_name = "REF")]
    pub prompt: Option<PathBuf>,
    /// The sound file; with --lines the folder for NAME.wav
    #[arg(long, value_name = "OUT", default_value = "speech.wav")]
    pub out: PathBuf,
    /// The task: to speak a text, or to transcribe a recording
    #[arg(long, value_enum, default_value_t = SpeakTask::Tts)]
    pub task: SpeakTask,
    /// Language of the texts, such as en, if the model's phonemes do not fix it
    #[arg(long, value_name = "CODE")]
    pub language: Option<String>,
    /// The way to the first level of codes: code by code, or all at once in a few steps [default: the model's own]
    #[arg(long, value_enum)]
    pub path: Option<SpeakPath>,
    /// Number of steps of --path nar-len [default: the model's own]
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Temperature of the first level; 0 for the most probable codes [default: the model's own]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Sample from the N most probable codes; 0 for all [default: the model's own]
    #[arg(long, value_name = "N")]
    pub top_k: Option<usize>,
    /// Sample from the most probable codes that together have this probability [default: the model's own]
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Sample from codes with at least this share of the largest probability [default: the model's own]
    #[arg(long, value_name = "P")]
    pub min_p: Option<f32>,
    /// Divisor of the logits of codes that were generated before; 1 for none [default: the model's own]
    #[arg(long, value_name = "R")]
    pub repetition_penalty: Option<f32>,
    /// Decay of this penalty with the distance [default: the model's own]
    #[arg(long, value_name = "D")]
    pub repetition_decay: Option<f32>,
    /// Longest speech, in seconds [default: the model's own]
    #[arg(long, value_name = "SECONDS")]
    pub max_seconds: Option<f64>,
    /// Strength of classifier-free guidance; 1 for none [default: the model's own]
    #[arg(long, value_name = "S")]
    pub guidance: Option<f32>,
    /// Seed of the random draws; another seed gives another sample
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// The device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// The tasks of `speak`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SpeakTask {
    /// Speech from a text
    Tts,
    /// Phonemes from a recording
    Stt,
}

/// The ways to the first level of codes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SpeakPath {
    /// Code by code
    Ar,
    /// All at once, in a few steps
    NarLen,
}

impl SpeakPath {
    /// Returns the name in options of models.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ar => "ar",
            Self::NarLen => "nar-len",
        }
    }
}

/// Moves a portrait as if it spoke a recording, through an exported model of the family float.
///
/// The portrait is cropped like the frames that the model was trained on. The video has 25 frames per second, the size of
/// these frames, and the recording as its sound. Its length, the number of frames and the real-time factor (the time taken
/// divided by the length) are printed.
///
/// Without --emotion no emotion is given. --emotion auto takes the emotion of the voice; the model's extractor of speech
/// features then needs a classifier of emotions.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  flowmill talk --model exp/float/6-export --portrait face.png --audio voice.wav --out talk.mp4
  flowmill talk --model exp/float/6-export --portrait face.png --audio voice.wav --emotion happy --seed 1
  flowmill talk --model exp/float/6-export --portrait face.png --audio voice.wav --frames frames")]
pub struct TalkArgs {
    /// The exported model: a folder with model.safetensors and config.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The picture of a face: PNG, JPEG, WebP or GIF
    #[arg(long, value_name = "FACE")]
    pub portrait: PathBuf,
    /// The recording of the voice
    #[arg(long, value_name = "VOICE")]
    pub audio: PathBuf,
    /// The emotion: angry, disgust, fear, happy, neutral, sad, surprise, or auto
    #[arg(long, value_name = "EMOTION")]
    pub emotion: Option<String>,
    /// The video
    #[arg(long, value_name = "OUT", default_value = "talk.mp4")]
    pub out: PathBuf,
    /// A folder for the frames as 00000.png, 00001.png …
    #[arg(long, value_name = "DIR")]
    pub frames: Option<PathBuf>,
    /// Number of steps per window [default: the model's own]
    #[arg(long, value_name = "N")]
    pub nfe: Option<usize>,
    /// Strength of the speech; 1 for none beyond the condition itself [default: the model's own]
    #[arg(long, value_name = "S")]
    pub audio_guidance: Option<f32>,
    /// Strength of the emotion; 1 for none beyond the condition itself [default: the model's own]
    #[arg(long, value_name = "S")]
    pub emotion_guidance: Option<f32>,
    /// Factor of the noise that motion starts from: 1 samples, 0 gives the calmest motion [default: the model's own]
    #[arg(long, value_name = "F")]
    pub noise: Option<f32>,
    /// Seed of the random draws; another seed gives other motion
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// The device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Makes images to the taste of users, from the captions of images that they liked.
///
/// USER is a JSON file with a user, or a list of users, as the public PMG code reads them: `history_items_info` with a `caption` each. For
/// user N the folder sample_N gets the images gen_0.jpg, gen_1.jpg … and info.json. The model is a folder that stage 6 wrote for the
/// family `pmg`. Its frozen language model and diffusion model must be where they were, or be named.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  flowmill imagine --model exp/pmg/6-export --user user.json --out made
  flowmill imagine --model exp/pmg/6-export --user user.json --negative \"blurry\" --images 4 --seed 1
  flowmill imagine --model exp/pmg/6-export --user user.json --steps 25 --guidance 6 --sampler pndm")]
pub struct ImagineArgs {
    /// The exported model: a folder with model.safetensors and config.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The user, or a list of users: JSON
    #[arg(long, value_name = "USER")]
    pub user: PathBuf,
    /// The folder of the images
    #[arg(long, value_name = "DIR", default_value = "imagined")]
    pub out: PathBuf,
    /// Number of steps [default: the model's own]
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Strength of the taste; 1 takes it as it is [default: the model's own]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub guidance: Option<f32>,
    /// The method of sampling: ddim, pndm, ddpm or euler [default: the model's own]
    #[arg(long, value_name = "NAME")]
    pub sampler: Option<String>,
    /// A description of what the images should not be [default: the model's own]
    #[arg(long, value_name = "TEXT")]
    pub negative: Option<String>,
    /// Number of images per user
    #[arg(long, value_name = "N")]
    pub images: Option<usize>,
    /// Seed of the noise that the images begin with
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// The folder of the frozen language model [default: that of the training]
    #[arg(long, value_name = "DIR")]
    pub llama: Option<PathBuf>,
    /// The folder of the frozen diffusion model [default: that of the training]
    #[arg(long, value_name = "DIR")]
    pub stable_diffusion: Option<PathBuf>,
    /// The device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Compares models with their public implementations by means of golden files.
///
/// A golden file contains the weights, inputs, outputs and gradients of a public implementation (.safetensors; the
/// metadata key `config` names the model and its dimensions). The model is built with those dimensions and weights,
/// run, and compared: outputs and losses within 2e-5, gradients within 2e-4 of the largest element of the tensor,
/// integers exactly, log features within 2e-3. A tensor in the file that this program does not compute is an error.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  flowmill parity tests/golden/cosyvoice2_flow_full.safetensors
  flowmill parity --all golden/*.safetensors
  flowmill parity --device cuda:0 golden/*.safetensors

Exit codes:
  0  all are equal within the tolerances
  1  a model differs by more
  2  a file cannot be checked: not a golden file, damaged, or of an unknown model")]
pub struct ParityArgs {
    /// The golden files
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Show every tensor, not only the worst of each group
    #[arg(long)]
    pub all: bool,
    /// The device of the models: cpu, cuda:N, metal or auto; `composition` is the CPU with the operations that GPUs
    /// use
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub device: ParityDevice,
}

/// The device on which `parity` runs models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParityDevice {
    /// A device; the CPU uses its fused kernels.
    Named(DeviceName),
    /// The CPU, with compositions of candle operations.
    Composition,
}

impl FromStr for ParityDevice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "composition" => Ok(Self::Composition),
            _ => name.parse().map(Self::Named).map_err(|error: NnError| format!("{error}, nor is it `composition`")),
        }
    }
}

/// The solvers of the flow's ODE.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SolverName {
    /// Fixed steps
    Euler,
    /// Adaptive steps (Dormand-Prince)
    Dopri5,
}

impl SolverName {
    /// Returns the name in recipes and models.
    pub fn name(self) -> &'static str {
        match self {
            Self::Euler => "euler",
            Self::Dopri5 => "dopri5",
        }
    }
}

/// The vocoders, from mel to sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VocoderName {
    /// The fast Griffin-Lim algorithm, which needs no weights
    GriffinLim,
    /// HiFT, the vocoder of CosyVoice and Step-Audio
    Hift,
    /// HiFi-GAN
    Hifigan,
    /// Vocos
    Vocos,
}

/// Prints a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  flowmill completions bash > ~/.local/share/bash-completion/completions/flowmill
  flowmill completions zsh  > ~/.zfunc/_flowmill
  flowmill completions fish > ~/.config/fish/completions/flowmill.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// The shells that completion scripts exist for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Shell {
    /// GNU bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
    /// elvish
    Elvish,
    /// PowerShell
    Powershell,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kaldi_style_spelling_is_understood() {
        let typed = ["flowmill", "run", "recipes/demo", "--stage", "0", "--stop_stage", "pack"];
        let Command::Run(arguments) = Cli::parse_from(typed).command else { panic!("not `run`") };
        let expected = StageRange { first: Some("0".into()), last: Some("pack".into()) };
        assert_eq!(arguments.stages.range(), expected);
    }

    #[test]
    fn zero_jobs_are_refused() {
        assert!(Cli::try_parse_from(["flowmill", "run", "--jobs", "0"]).is_err());
    }
}
