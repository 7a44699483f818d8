//! How much memory and how much disk there is.

use std::path::Path;

use anyhow::{Context as _, Result};

/// Bytes that this process may still take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    /// So many.
    pub bytes: u64,
    /// What sets the limit.
    pub source: &'static str,
}

impl Available {
    /// The less of what the system says is available and what this process's control groups leave; none where the
    /// system does not say.
    #[must_use]
    pub fn now() -> Option<Self> {
        Self::under(Path::new("/"))
    }

    fn under(root: &Path) -> Option<Self> {
        let meminfo = read(&root.join("proc/meminfo"));
        let system = Self {
            bytes: meminfo_bytes(&meminfo, "MemAvailable:")?,
            source: "MemAvailable",
        };
        let group = Self {
            bytes: cgroup_bytes(root).unwrap_or(u64::MAX),
            source: "the control group's limit",
        };
        Some(if group.bytes < system.bytes {
            group
        } else {
            system
        })
    }
}

/// The value of a line of /proc/meminfo.
#[must_use]
pub fn meminfo_bytes(meminfo: &str, key: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What the tightest control group of this process leaves, its droppable file pages included.
fn cgroup_bytes(root: &Path) -> Option<u64> {
    let groups = read(&root.join("proc/self/cgroup"));
    groups.lines().filter_map(|line| left_by(root, line)).min()
}

/// Of a line `ID:CONTROLLERS:PATH`: the group and those above it. In a container PATH may not be visible, the top is.
fn left_by(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (top, files) = if controllers.is_empty() {
        (
            "sys/fs/cgroup",
            ["memory.max", "memory.current", "inactive_file "],
        )
    } else if controllers.split(',').any(|name| name == "memory") {
        let files = [
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file ",
        ];
        ("sys/fs/cgroup/memory", files)
    } else {
        return None;
    };
    let ancestors = Path::new(path.trim_start_matches('/')).ancestors();
    let left = |group: &Path| {
        let folder = root.join(top).join(group);
        let number = |file| read(&folder.join(file)).trim().parse::<u64>().ok();
        let (limit, used) = (number(files[0])?, number(files[1])?);
        let stat = read(&folder.join("memory.stat"));
        let droppable = stat.lines().find_map(|line| line.strip_prefix(files[2]));
        let droppable: u64 = droppable.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(droppable)))
    };
    ancestors.filter_map(left).min()
}

/// A folder's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Whether what is written stays in memory.
    pub is_memory: bool,
}

impl Disk {
    /// Of the file system that `folder` is on.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn of(folder: &Path) -> Result<Self> {
        const TMPFS: i64 = 0x0102_1994;
        const RAMFS: i64 = 0x8584_58f6;
        let stat = rustix::fs::statfs(folder)
            .with_context(|| format!("the folder {}", folder.display()))?;
        Ok(Self {
            free_bytes: stat.f_bavail.saturating_mul(u64::try_from(stat.f_bsize)?),
            is_memory: [TMPFS, RAMFS].contains(&stat.f_type),
        })
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let meminfo = (
            "proc/meminfo",
            "MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\n",
        );
        for (path, text) in [&[meminfo], files].concat() {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn available(files: &[(&str, &str)]) -> (u64, &'static str) {
        let Available { bytes, source } = Available::under(system(files).path()).unwrap();
        (bytes / MIB, source)
    }

    #[test]
    fn without_groups_or_limits_the_system_counts() {
        assert_eq!(available(&[]), (1024, "MemAvailable"));
        let unlimited = [
            ("proc/self/cgroup", "0::/user/job\n"),
            ("sys/fs/cgroup/user/job/memory.max", "max\n"),
            ("sys/fs/cgroup/user/job/memory.current", "1048576\n"),
        ];
        assert_eq!(available(&unlimited), (1024, "MemAvailable"));
        assert_eq!(Available::under(Path::new("/nowhere")), None);
    }

    #[test]
    fn the_tightest_group_counts_with_its_file_pages() {
        let limit = |bytes: u64| format!("{bytes}\n");
        let (half, used, third) = (limit(512 * MIB), limit(100 * MIB), limit(300 * MIB));
        let groups = [
            ("proc/self/cgroup", "0::/user/job\n"),
            ("sys/fs/cgroup/user/job/memory.max", half.as_str()),
            ("sys/fs/cgroup/user/job/memory.current", used.as_str()),
            (
                "sys/fs/cgroup/user/job/memory.stat",
                "anon 5\ninactive_file 31457280\n",
            ),
        ];
        let name = "the control group's limit";
        assert_eq!(available(&groups), (512 - 100 + 30, name));
        let above = [
            ("sys/fs/cgroup/user/memory.max", third.as_str()),
            ("sys/fs/cgroup/user/memory.current", used.as_str()),
        ];
        assert_eq!(available(&[&groups[..], &above].concat()), (200, name));
        // The container sees its own group as the top.
        let container = [
            ("proc/self/cgroup", "0::/docker/abc\n"),
            ("sys/fs/cgroup/memory.max", third.as_str()),
            ("sys/fs/cgroup/memory.current", used.as_str()),
        ];
        assert_eq!(available(&container), (200, name));
    }

    #[test]
    fn the_older_hierarchy_is_read_too() {
        let groups = [
            ("proc/self/cgroup", "4:cpu,cpuacct:/a\n3:memory:/a\n"),
            (
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "104857600\n",
            ),
            (
                "sys/fs/cgroup/memory/a/memory.usage_in_bytes",
                "209715200\n",
            ),
            (
                "sys/fs/cgroup/memory/a/memory.stat",
                "inactive_file 1\ntotal_inactive_file 0\n",
            ),
        ];
        assert_eq!(available(&groups), (0, "the control group's limit"));
    }

    #[test]
    fn a_folder_has_room_and_none_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Disk::of(folder.path()).unwrap().free_bytes > 0);
        let message = Disk::of(Path::new("/nowhere/at/all"))
            .unwrap_err()
            .to_string();
        assert!(message.contains("/nowhere/at/all"), "{message}");
    }
}
