//! Configurations of several processes as a part of a recipe: the YAML of `accelerate config`, and the JSON of DeepSpeed.
//!
//! Both count batches per process, Flowmill those of all ranks together: `train.accum_grad` is their product with the number of processes.

use serde_json::{Map, Value, json};

use super::convert_config::{Converted, flatten, set};

/// The kind of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Hugging Face Accelerate.
    Accelerate,
    /// DeepSpeed.
    DeepSpeed,
}

/// The counterpart of a key.
enum To {
    /// This key of the recipe has the same value.
    Key(&'static str),
    /// The key is read together with others.
    Combined,
    /// The key has no counterpart; its value must be one for which the function returns true.
    Only(fn(&Value) -> bool),
    /// Nothing is to be set, for this reason.
    Always(&'static str),
}

use To::{Always, Combined, Key, Only};

/// Reason for keys about starting processes.
const LAUNCH: &str = "processes are started by `flowmill run RECIPE --nproc N`, mpirun or srun (docs/DISTRIBUTED.md)";
/// Reason for keys about the exchange of gradients.
const EXCHANGE: &str = "gradients are always summed in buckets, and before a step only once";
/// Reason for keys about logs.
const LOGS: &str = "`flowmill report` and speed.jsonl show times and memory";

/// The counterparts of Accelerate's keys.
const ACCELERATE: &[(&str, To)] = &[
    ("compute_environment", Only(|name| name == "LOCAL_MACHINE")),
    ("debug", Always("messages of ranks are always checked")),
    ("distributed_type", Combined),
    ("downcast_bf16", Only(is_off)),
    ("dynamo_config.*", Always("kernels are compiled with the program")),
    ("enable_cpu_affinity", Only(is_off)),
    ("gpu_ids", Always("CUDA_VISIBLE_DEVICES chooses the devices")),
    ("machine_rank", Always(LAUNCH)),
    ("main_process_ip", Always(LAUNCH)),
    ("main_process_port", Always(LAUNCH)),
    ("main_training_function", Always("there is one training")),
    ("mixed_precision", Combined),
    ("num_machines", Always(LAUNCH)),
    ("num_processes", Always(LAUNCH)),
    ("rdzv_backend", Always(LAUNCH)),
    ("same_network", Always(LAUNCH)),
    ("tpu_env", Only(|list| list.as_array().is_some_and(Vec::is_empty))),
    ("tpu_use_cluster", Only(is_off)),
    ("tpu_use_sudo", Only(is_off)),
    ("use_cpu", Combined),
    ("deepspeed_config.gradient_accumulation_steps", Combined),
    ("deepspeed_config.gradient_clipping", Combined),
    ("deepspeed_config.zero_stage", Combined),
    ("deepspeed_config.zero3_init_flag", Only(is_off)),
    ("deepspeed_config.zero3_save_16bit_model", Only(is_off)),
    ("deepspeed_config.offload_optimizer_device", Only(|name| name == "none")),
    ("deepspeed_config.offload_param_device", Only(|name| name == "none")),
    ("deepspeed_config.deepspeed_multinode_launcher", Always(LAUNCH)),
    ("deepspeed_config.deepspeed_hostfile", Always(LAUNCH)),
];

/// The counterparts of DeepSpeed's keys.
const DEEP_SPEED: &[(&str, To)] = &[
    ("train_batch_size", Combined),
    ("train_micro_batch_size_per_gpu", Combined),
    ("gradient_accumulation_steps", Combined),
    ("gradient_clipping", Combined),
    ("prescale_gradients", Always("gradients are sums over frames, divided once")),
    ("gradient_predivide_factor", Always("gradients are sums over frames, divided once")),
    ("communication_data_type", Only(|name| name == "fp32")),
    ("bf16.enabled", Combined),
    ("bfloat16.enabled", Combined),
    ("fp16.enabled", Combined),
    ("fp16.auto_cast", Only(is_off)),
    ("fp16.loss_scale", Combined),
    ("fp16.initial_scale_power", Combined),
    ("fp16.loss_scale_window", Combined),
    ("fp16.hysteresis", Combined),
    ("fp16.min_loss_scale", Combined),
    ("fp16.consecutive_hysteresis", Only(is_off)),
    ("zero_optimization.stage", Combined),
    ("zero_optimization.allgather_partitions", Always(EXCHANGE)),
    ("zero_optimization.allgather_bucket_size", Always(EXCHANGE)),
    ("zero_optimization.reduce_scatter", Always(EXCHANGE)),
    ("zero_optimization.reduce_bucket_size", Always(EXCHANGE)),
    ("zero_optimization.overlap_comm", Always(EXCHANGE)),
    ("zero_optimization.contiguous_gradients", Always(EXCHANGE)),
    ("zero_optimization.round_robin_gradients", Always(EXCHANGE)),
    ("zero_optimization.offload_optimizer.device", Only(|name| name == "none")),
    ("zero_optimization.offload_param.device", Only(|name| name == "none")),
    ("zero_optimization.stage3_*", Always("stage 3 has no counterpart")),
    ("zero_optimization.sub_group_size", Always("stage 3 has no counterpart")),
    ("zero_allow_untested_optimizer", Always("every optimizer but prodigy can be divided")),
    ("optimizer.type", Combined),
    ("optimizer.params.lr", Key("train.optim.lr")),
    ("optimizer.params.betas", Key("train.optim.betas")),
    ("optimizer.params.eps", Key("train.optim.eps")),
    ("optimizer.params.weight_decay", Key("train.optim.weight_decay")),
    ("optimizer.params.momentum", Key("train.optim.momentum")),
    ("optimizer.params.torch_adam", Always("optimizers are Flowmill's own")),
    ("optimizer.params.adam_w_mode", Combined),
    ("scheduler.type", Combined),
    ("scheduler.params.warmup_num_steps", Combined),
    ("scheduler.params.warmup_max_lr", Combined),
    ("scheduler.params.warmup_min_lr", Only(|rate| rate.as_f64() == Some(0.0))),
    ("scheduler.params.warmup_type", Only(|name| name == "linear")),
    ("scheduler.params.total_num_steps", Key("train.max_steps")),
    ("activation_checkpointing.*", Always("set train.gradient_checkpointing: true to recompute blocks")),
    ("steps_per_print", Key("train.log_every")),
    ("wall_clock_breakdown", Always(LOGS)),
    ("dump_state", Always(LOGS)),
    ("memory_breakdown", Always(LOGS)),
    ("flops_profiler.*", Always(LOGS)),
    ("tensorboard.*", Always("TensorBoard events are always written")),
];

fn is_off(value: &Value) -> bool {
    matches!(value, Value::Bool(false)) || value == "no" || value == "false"
}

impl Kind {
    /// Recognizes a configuration by its keys.
    pub(super) fn of(config: &Map<String, Value>) -> Option<Self> {
        let has = |key: &&str| config.contains_key(*key);
        let deep_speed =
            ["zero_optimization", "train_micro_batch_size_per_gpu", "train_batch_size", "zero_force_ds_cpu_optimizer"];
        if ["distributed_type", "compute_environment"].iter().any(&has) {
            return Some(Self::Accelerate);
        }
        deep_speed.iter().any(&has).then_some(Self::DeepSpeed)
    }

    /// Returns the name of the program.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Accelerate => "Accelerate",
            Self::DeepSpeed => "DeepSpeed",
        }
    }

    fn table(self) -> &'static [(&'static str, To)] {
        match self {
            Self::Accelerate => ACCELERATE,
            Self::DeepSpeed => DEEP_SPEED,
        }
    }
}

/// Converts a configuration into the keys of a recipe that it determines.
pub(super) fn convert(kind: Kind, config: &Map<String, Value>) -> Converted {
    let (mut without, mut not_needed) = (Vec::new(), Vec::new());
    let mut recipe = json!({ "train": {} });
    let config = Value::Object(config.clone());
    let mut leaves = Vec::new();
    flatten("", &config, &mut leaves);
    for (key, value) in leaves {
        // Values that a trainer fills in.
        if value == "auto" {
            not_needed.push((key, "the recipe's own setting counts"));
            continue;
        }
        let fits = |name: &str| name == key || name.strip_suffix('*').is_some_and(|begin| key.starts_with(begin));
        match kind.table().iter().find(|(name, _)| fits(name)).map(|(_, to)| to) {
            Some(Key(to)) => set(&mut recipe, to, value),
            Some(Combined) => {}
            Some(Only(is_right)) if is_right(&value) => {}
            Some(Always(reason)) => not_needed.push((key, *reason)),
            Some(Only(_)) | None => without.push((key, value)),
        }
    }
    match kind {
        Kind::Accelerate => accelerate(&config, &mut recipe, &mut without),
        Kind::DeepSpeed => deep_speed(&config, &mut recipe, &mut without),
    }
    without.sort_by(|a, b| a.0.cmp(&b.0));
    Converted { recipe, without, not_needed }
}

/// Sets what several keys of Accelerate decide together.
fn accelerate(config: &Value, recipe: &mut Value, without: &mut Vec<(String, Value)>) {
    let kind = &config["distributed_type"];
    if !kind.is_null() && !["NO", "MULTI_GPU", "MULTI_CPU", "DEEPSPEED"].iter().any(|known| kind == known) {
        without.push(("distributed_type".to_owned(), kind.clone()));
    }
    match config["mixed_precision"].as_str() {
        Some("no") => set(recipe, "train.precision", json!("fp32")),
        Some(name @ ("bf16" | "fp16")) => set(recipe, "train.precision", json!(name)),
        Some(other) => without.push(("mixed_precision".to_owned(), json!(other))),
        None => {}
    }
    if config["use_cpu"] == true {
        set(recipe, "train.device", json!("cpu"));
    }
    let processes = config["num_processes"].as_u64().unwrap_or(1);
    let deep_speed = &config["deepspeed_config"];
    accumulation(recipe, deep_speed["gradient_accumulation_steps"].as_u64().unwrap_or(1) * processes);
    clipping(recipe, &deep_speed["gradient_clipping"]);
    zero(recipe, without, ("deepspeed_config.zero_stage", &deep_speed["zero_stage"]));
}

/// Sets what several keys of DeepSpeed decide together.
fn deep_speed(config: &Value, recipe: &mut Value, without: &mut Vec<(String, Value)>) {
    let count = |key: &str| config[key].as_u64().filter(|count| *count > 0);
    match (count("train_batch_size"), count("train_micro_batch_size_per_gpu")) {
        // The product of accumulation and processes, whatever their number.
        (Some(all), Some(one)) => accumulation(recipe, all.div_ceil(one)),
        _ => accumulation(recipe, count("gradient_accumulation_steps").unwrap_or(1)),
    }
    for key in ["train_batch_size", "train_micro_batch_size_per_gpu"] {
        if let Some(size) = count(key) {
            without.push((format!("{key} (a number of items; set train.batch.max_frames_in_batch)"), json!(size)));
        }
    }
    clipping(recipe, &config["gradient_clipping"]);
    let is_on = |key: &str| config[key]["enabled"] == true;
    if is_on("bf16") || is_on("bfloat16") {
        set(recipe, "train.precision", json!("bf16"));
    } else if is_on("fp16") {
        set(recipe, "train.precision", json!("fp16"));
        loss_scale(recipe, &config["fp16"]);
    }
    zero(recipe, without, ("zero_optimization.stage", &config["zero_optimization"]["stage"]));
    optimizer(recipe, without, &config["optimizer"]);
    schedule(recipe, without, &config["scheduler"]);
}

fn accumulation(recipe: &mut Value, batches: u64) {
    if batches > 1 {
        set(recipe, "train.accum_grad", json!(batches));
    }
}

/// Sets the clipping; 0 disables it.
fn clipping(recipe: &mut Value, limit: &Value) {
    match limit.as_f64() {
        Some(0.0) => set(recipe, "train.grad_clip", Value::Null),
        Some(limit) => set(recipe, "train.grad_clip", json!(limit)),
        None => {}
    }
}

fn zero(recipe: &mut Value, without: &mut Vec<(String, Value)>, (key, stage): (&str, &Value)) {
    match stage.as_u64() {
        Some(0) => set(recipe, "train.zero", json!(0)),
        Some(stage) => {
            set(recipe, "train.zero", json!(1));
            if stage > 1 {
                without.push((format!("{key} (stage 1 is used)"), json!(stage)));
            }
        }
        None => {}
    }
}

fn loss_scale(recipe: &mut Value, fp16: &Value) {
    let scale = fp16["loss_scale"].as_f64().unwrap_or(0.0);
    if scale > 0.0 {
        set(recipe, "train.loss_scale.dynamic", json!(false));
        set(recipe, "train.loss_scale.initial", json!(scale));
        return;
    }
    if let Some(power) = fp16["initial_scale_power"].as_u64() {
        set(recipe, "train.loss_scale.initial", json!(2f64.powi(power.min(127) as i32)));
    }
    for (key, to) in [("loss_scale_window", "window"), ("hysteresis", "hysteresis"), ("min_loss_scale", "floor")] {
        if let Some(value) = fp16[key].as_f64() {
            set(recipe, &format!("train.loss_scale.{to}"), json!(value.max(1.0) as u64));
        }
    }
}

fn optimizer(recipe: &mut Value, without: &mut Vec<(String, Value)>, optimizer: &Value) {
    let Some(kind) = optimizer["type"].as_str() else { return };
    let decoupled = optimizer["params"]["adam_w_mode"] != false;
    let name = match kind.to_ascii_lowercase().as_str() {
        "adamw" => "adamw",
        "adam" if decoupled => "adamw",
        "adam" => "adam",
        "sgd" => "sgd",
        _ => {
            without.push(("optimizer.type".to_owned(), json!(kind)));
            return;
        }
    };
    set(recipe, "train.optim.name", json!(name));
}

fn schedule(recipe: &mut Value, without: &mut Vec<(String, Value)>, schedule: &Value) {
    let Some(kind) = schedule["type"].as_str() else { return };
    let name = match kind {
        "WarmupLR" => "warmup_constant",
        "WarmupDecayLR" => "warmup_linear",
        "WarmupCosineLR" => "warmup_cosine",
        _ => {
            without.push(("scheduler.type".to_owned(), json!(kind)));
            return;
        }
    };
    set(recipe, "train.schedule.name", json!(name));
    if let Some(steps) = schedule["params"]["warmup_num_steps"].as_u64() {
        set(recipe, "train.schedule.warmup_steps", json!(steps));
    }
    if let Some(rate) = schedule["params"]["warmup_max_lr"].as_f64() {
        set(recipe, "train.optim.lr", json!(rate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(config: Value) -> (Kind, Value, Vec<String>) {
        let Value::Object(config) = config else { panic!() };
        let kind = Kind::of(&config).unwrap();
        let Converted { recipe, without, .. } = convert(kind, &config);
        (kind, recipe["train"].clone(), without.into_iter().map(|(key, _)| key).collect())
    }

    #[test]
    fn accelerate_becomes_settings_and_the_number_of_processes_becomes_accumulation() {
        let (kind, train, without) = converted(json!({
            "compute_environment": "LOCAL_MACHINE", "debug": false, "distributed_type": "MULTI_GPU", "downcast_bf16": "no",
            "gpu_ids": "all", "machine_rank": 0, "main_training_function": "main", "mixed_precision": "bf16",
            "num_machines": 1, "num_processes": 4, "rdzv_backend": "static", "same_network": true, "tpu_env": [],
            "tpu_use_cluster": false, "tpu_use_sudo": false, "use_cpu": false, "fsdp_config": {"fsdp_offload_params": true},
        }));
        assert_eq!(kind, Kind::Accelerate);
        assert_eq!(train, json!({"precision": "bf16", "accum_grad": 4}));
        assert_eq!(without, ["fsdp_config.fsdp_offload_params"]);
    }

    #[test]
    fn accelerate_with_deepspeed() {
        let (_, train, without) = converted(json!({
            "distributed_type": "DEEPSPEED", "mixed_precision": "no", "num_processes": 2,
            "deepspeed_config": {"gradient_accumulation_steps": 8, "gradient_clipping": 1.0, "zero_stage": 2,
                "offload_optimizer_device": "cpu", "offload_param_device": "none", "zero3_init_flag": false},
        }));
        assert_eq!(train, json!({"precision": "fp32", "accum_grad": 16, "grad_clip": 1.0, "zero": 1}));
        assert_eq!(
            without,
            ["deepspeed_config.offload_optimizer_device", "deepspeed_config.zero_stage (stage 1 is used)"]
        );
    }

    #[test]
    fn deepspeed_becomes_settings() {
        let (kind, train, without) = converted(json!({
            "train_batch_size": 64, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": "auto",
            "gradient_clipping": 5, "steps_per_print": 100,
            "fp16": {"enabled": true, "loss_scale": 0, "initial_scale_power": 12, "loss_scale_window": 500, "hysteresis": 2,
                "min_loss_scale": 1},
            "zero_optimization": {"stage": 1, "overlap_comm": true, "reduce_bucket_size": 5e8,
                "offload_optimizer": {"device": "none"}},
            "optimizer": {"type": "Adam", "params": {"lr": 1e-4, "betas": [0.9, 0.95], "weight_decay": 0.01}},
            "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 0, "warmup_max_lr": 1e-4, "warmup_num_steps": 1000}},
            "sparse_attention": {"mode": "fixed"},
        }));
        assert_eq!(kind, Kind::DeepSpeed);
        for (key, value) in [
            ("accum_grad", json!(16)),
            ("grad_clip", json!(5.0)),
            ("log_every", json!(100)),
            ("precision", json!("fp16")),
            ("zero", json!(1)),
            ("loss_scale", json!({"initial": 4096.0, "window": 500, "hysteresis": 2, "floor": 1})),
            ("optim", json!({"lr": 1e-4, "betas": [0.9, 0.95], "weight_decay": 0.01, "name": "adamw"})),
            ("schedule", json!({"name": "warmup_constant", "warmup_steps": 1000})),
        ] {
            assert_eq!(train[key], value, "{key}");
        }
        assert_eq!(without.len(), 3, "{without:?}");
        assert!(without.contains(&"sparse_attention.mode".to_owned()));
    }
}
