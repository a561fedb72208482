//! A full disk: a clear error, and nothing half-written is taken for whole later.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{Mini, Outcome, Tree};

/// A small file system in memory, gone when dropped.
pub struct SmallDisk<'a> {
    at: &'a Path,
}

impl<'a> SmallDisk<'a> {
    /// Mounts `size` (as `mount` understands it) at a folder; says why not where that is not allowed.
    pub fn mount(at: &'a Path, size: &str) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let option = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self { at }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Gives it another size.
    fn resize(&self, size: &str) {
        let option = format!("remount,size={size}");
        let output = Command::new("mount").args(["-o", &option]).arg(self.at).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Nothing else can be done about a mount that stays.
        let _result = Command::new("umount").arg(self.at).output();
    }
}

/// Fills a disk to the last byte.
pub fn fill(path: &Path) {
    let mut size = 1 << 20;
    let mut content = Vec::new();
    while size > 0 {
        content.resize(content.len() + size, 7_u8);
        if fs::write(path, &content).is_err() {
            content.truncate(content.len() - size);
            size /= 2;
        }
    }
    // The last attempt may have left less than would fit.
    let _full = fs::write(path, [&content[..], &[7; 4096]].concat());
}

/// Returns the outcome of a run; one that waits for disk space to save its last weights is killed.
fn ended_or_waiting(mini: &Mini) -> Outcome {
    let started = Instant::now();
    let log = mini.path("told");
    let mut run = mini.command("run", &["--quiet"]);
    let mut process = run.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let code = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break status.code();
        }
        if fs::read_to_string(&log).unwrap().contains("exist in memory only") {
            process.kill().unwrap();
            process.wait().unwrap();
            break None;
        }
        sleep(Duration::from_millis(20));
    };
    Outcome { code, stdout: String::new(), stderr: fs::read_to_string(log).unwrap(), took: started.elapsed() }
}

#[test]
fn a_full_disk_is_a_clear_error_and_the_run_goes_on_when_there_is_room() {
    let undisturbed = Mini::finished();
    let expected = undisturbed.tree();
    let mini = Mini::new();
    let exp = mini.path("exp");
    let disk = match SmallDisk::mount(&exp, "64k") {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: a small disk cannot be mounted here ({reason})"),
    };
    let mut refused = 0;
    for size in ["64k", "400k", "1m", "1500k", "2m"] {
        disk.resize(size);
        let outcome = ended_or_waiting(&mini).expect_no_panic();
        if outcome.code == Some(0) {
            break;
        }
        // None: it had come to the last save of the training, for which it waits.
        assert!(matches!(outcome.code, Some(1) | None), "{:?}", outcome.code);
        let told = outcome.text().to_lowercase();
        let is_full = told.contains("error[disk-full]: ") || told.contains("no space left");
        assert!(is_full, "at {size}:\n{told}");
        refused += 1;
    }
    assert!(refused >= 2, "the disk was never full, so nothing was tested");
    disk.resize("1g");
    mini.run(&["--quiet"]).expect_code(0);
    Tree::expect_same_bytes(&mini.tree(), &expected, "after the disk had been full");
}
