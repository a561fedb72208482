//! Network file systems whose locks hold on one machine only, by the options of their mount.

use std::fs;
use std::path::Path;

/// Returns whether a lock on a file is invisible to other machines that see the file.
pub(super) fn has_local_locks(path: &Path) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    folder.is_some_and(|folder| is_local_at(&mounts, &folder))
}

/// The same for a folder and a list of mounts in the system's form.
fn is_local_at(mounts: &str, folder: &Path) -> bool {
    // `36 35 98:0 / /mnt rw,noatime master:1 - nfs server:/data rw,nolock`; later mounts lie over earlier ones.
    let at = |line: &&str| line.split(' ').nth(4).is_some_and(|point| folder.starts_with(unescaped(point)));
    let depth = |line: &&str| line.split(' ').nth(4).map_or(0, |point| Path::new(point).components().count());
    let Some(line) = mounts.lines().filter(at).max_by_key(depth) else { return false };
    let Some((_, rest)) = line.split_once(" - ") else { return false };
    let mut words = rest.split(' ');
    let (kind, options) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
    let has = |names: &[&str]| options.split(',').any(|option| names.contains(&option));
    match kind {
        "nfs" | "nfs4" => has(&["nolock", "local_lock=all", "local_lock=flock"]),
        "lustre" => has(&["localflock"]),
        "fuse.sshfs" => true,
        _ => false,
    }
}

/// Blanks in paths are written as octal numbers there.
fn unescaped(point: &str) -> String {
    point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_the_innermost_mount_decide() {
        let mounts = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:50 / /home rw shared:9 - nfs4 server:/home rw,vers=4.2,local_lock=none
41 22 0:51 / /data rw - nfs server:/data rw,vers=3,nolock,local_lock=all
42 41 0:52 / /data/fast rw - lustre mds@tcp:/fast rw,flock
43 41 0:53 / /data/slow\\040disk rw - lustre mds@tcp:/slow rw,localflock
44 22 0:54 / /far rw - fuse.sshfs host:/ rw
";
        let local = |path: &str| is_local_at(mounts, Path::new(path));
        let expected = [("/exp", false), ("/home/me/exp", false), ("/data/exp", true), ("/data/fast/exp", false)];
        for (path, expected) in expected.into_iter().chain([("/data/slow disk/exp", true), ("/far/exp", true)]) {
            assert_eq!(local(path), expected, "{path}");
        }
        assert!(!has_local_locks(&std::env::temp_dir().join("file")));
    }
}
