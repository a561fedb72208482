//! Training that is killed at random instants, again and again: weights, optimizer, moving average, metrics and everything else in
//! the end are those of an undisturbed run, bit for bit.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::random::Random;
use crate::support::{Mini, Tree, flowmill};

/// Everything that has a state: accumulation over unequal batches, a moving average, dropout, half precision with a scale that moves
/// both ways, a curriculum, validations and checkpoints at odd intervals, several loader threads.
const SETTINGS: &str = "train.max_steps=150 train.accum_grad=2 train.ema_decay=0.99 train.save_every=9 \
    train.validate_every={\"epochs\":2} train.log_every=7 train.log_groups=true train.early_stopping={\"patience\":1000} \
    train.num_workers=3 train.batch.max_frames_in_batch=600 \
    train.model.encoder.dropout_rate=0.2 train.precision=fp16 train.loss_scale.initial=1e12 train.loss_scale.ceiling=1e12 \
    train.loss_scale.window=20 train.max_skipped_in_a_row=60 \
    train.curriculum=[{\"epochs\":3,\"order\":\"sorted\"},{\"epochs\":5,\"order\":\"bucketed\"},{\"order\":\"by_speaker\"}]";

/// Copies of one packed experiment, to be trained side by side.
struct Copies {
    mini: Mini,
}

impl Copies {
    fn new() -> Self {
        Self { mini: Mini::packed() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mini.path("exp").join(name)
    }

    /// A copy to train in.
    fn copy(&self, name: &str) {
        let (from, to) = (self.path("mini"), self.path(name));
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    }

    fn arguments(name: &str) -> Vec<String> {
        let fixed = ["--quiet", "--stop-stage", "train", "--exp"].map(str::to_owned);
        let sets = SETTINGS.split_whitespace().flat_map(|set| ["--set".to_owned(), set.to_owned()]);
        fixed.into_iter().chain([format!("exp/{name}")]).chain(sets).collect()
    }

    /// Trains to the end and gives the time that took.
    fn finish(&self, name: &str) -> Duration {
        let arguments = Self::arguments(name);
        let arguments: Vec<&str> = ["run", "."].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        flowmill(self.mini.folder(), &arguments).expect_code(0).took
    }

    /// Trains and kills after a while; false when it was done before.
    fn kill_after(&self, name: &str, delay: Duration) -> bool {
        let arguments = Self::arguments(name);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut process =
            self.mini.command("run", &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        while process.try_wait().unwrap().is_none() && started.elapsed() < delay {
            sleep(Duration::from_millis(1));
        }
        let running = process.try_wait().unwrap().is_none();
        // This test's own child; on this system `kill` sends SIGKILL. It may have ended since.
        let _ended = process.kill();
        process.wait().unwrap();
        running
    }
}

/// Kills that many times in all, each training as often as it takes to end.
fn killed(kills: usize) {
    let mut random = Random::announced("killed training");
    let copies = Copies::new();
    copies.copy("whole");
    let whole = copies.finish("whole");
    let expected = Tree::of(&copies.path("whole"));
    let metrics = std::fs::read_to_string(copies.path("whole/4-train/metrics.jsonl")).unwrap();
    assert!(
        metrics.contains("\"overflows\":") && !metrics.contains("\"overflows\":0,\"skipped\":0,\"step\":150"),
        "{metrics}"
    );
    let (mut landed, mut trainings) = (0, 0);
    while landed < kills {
        trainings += 1;
        assert!(trainings <= 4 * kills, "only {landed} kills hit a running process");
        let name = format!("killed-{trainings}");
        copies.copy(&name);
        while landed < kills && copies.kill_after(&name, whole.mul_f64(0.1 + 0.6 * random.unit())) {
            landed += 1;
        }
        copies.finish(&name);
        Tree::of(&copies.path(&name)).expect_same_bytes(&expected, &format!("training {trainings}, {landed} kills"));
        std::fs::remove_dir_all(copies.path(&name)).unwrap();
    }
    println!("{landed} kills of {trainings} trainings that take {:.1} s undisturbed", whole.as_secs_f64());
}

#[test]
fn training_killed_at_random_instants_ends_in_the_same_bytes() {
    killed(6);
}

#[test]
#[ignore = "the long form: a few minutes"]
fn training_killed_at_thirty_random_instants_ends_in_the_same_bytes() {
    killed(30);
}
