//! What `/proc` tells about a process. Every fact may be missing: the process may end or belong to someone else.

use leakscan_options::Options;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A process by its number here; it may have another one in its own container.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub pid: u32,
}

/// The fields of `/proc/PID/status` that matter to us.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub name: String,
    pub tracer: u32,
    pub uid: u32,
    pub gid: u32,
    /// Its number in the innermost container that it lives in.
    pub inner_pid: Option<u32>,
    pub caught: u64,
    pub ignored: u64,
    pub blocked: u64,
    pub seccomp: u32,
    pub no_new_privs: bool,
    pub zombie: bool,
    /// By a signal, as SIGSTOP, or by a debugger.
    pub stopped: bool,
}

impl Status {
    /// Whether a handler waits for that signal.
    pub fn catches(&self, signal: i32) -> bool {
        has(self.caught, signal)
    }

    pub fn ignores(&self, signal: i32) -> bool {
        has(self.ignored, signal)
    }

    pub fn blocks(&self, signal: i32) -> bool {
        has(self.blocked, signal)
    }

    fn parse(text: &str) -> Self {
        let mut status = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            let mut words = value.split_ascii_whitespace();
            let number = || value.parse().unwrap_or(0);
            let mask = || u64::from_str_radix(value, 16).unwrap_or(0);
            match name {
                "Name" => status.name = value.to_owned(),
                "State" => {
                    status.zombie = value.starts_with(['Z', 'X']);
                    status.stopped = value.starts_with(['T', 't']);
                }
                "TracerPid" => status.tracer = number(),
                // Of real, effective, saved and file system ids, the kernel's permission checks use the effective one.
                "Uid" => status.uid = words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(u32::MAX),
                "Gid" => status.gid = words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(u32::MAX),
                "NSpid" => status.inner_pid = words.next_back().and_then(|word| word.parse().ok()),
                "SigCgt" => status.caught = mask(),
                "SigIgn" => status.ignored = mask(),
                "SigBlk" => status.blocked = mask(),
                "Seccomp" => status.seccomp = number(),
                "NoNewPrivs" => status.no_new_privs = number() != 0,
                _ => {}
            }
        }
        status
    }
}

/// Whether that path is our library's, whatever version stands in its name.
pub fn is_library(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"libleakscan.so"))
}

fn status_in(folder: &Path) -> io::Result<Status> {
    // Not text: the name of a process is any bytes.
    Ok(Status::parse(&String::from_utf8_lossy(&fs::read(folder.join("status"))?)))
}

fn has(mask: u64, signal: i32) -> bool {
    u32::try_from(signal - 1).is_ok_and(|bit| bit < 64 && mask >> bit & 1 != 0)
}

impl Process {
    pub fn this() -> Self {
        Self { pid: std::process::id() }
    }

    fn folder(self) -> PathBuf {
        format!("/proc/{}", self.pid).into()
    }

    /// A file that tells of the process as a whole, from one of its threads that has not ended.
    pub fn file(self, name: &str) -> PathBuf {
        let task = if self.status().is_ok_and(|status| status.zombie) { self.running_thread() } else { None };
        task.unwrap_or_else(|| self.folder()).join(name)
    }

    pub fn status(self) -> io::Result<Status> {
        status_in(&self.folder())
    }

    pub fn is_alive(self) -> bool {
        self.status().is_ok_and(|status| !status.zombie || self.running_thread().is_some())
    }

    /// The folder of a thread that has not ended. A first thread that has called pthread_exit looks like a zombie while the others run on,
    /// and its own folder tells nothing.
    fn running_thread(self) -> Option<PathBuf> {
        let threads = fs::read_dir(self.folder().join("task")).ok()?.flatten().map(|thread| thread.path());
        threads.into_iter().find(|thread| status_in(thread).is_ok_and(|status| !status.zombie))
    }

    /// Whether libleakscan.so is in it.
    pub fn has_library(self) -> io::Result<bool> {
        Ok(self.mapped_files()?.iter().any(|path| is_library(path)))
    }

    /// Paths of mapped files, each once, in the order of their addresses.
    pub fn mapped_files(self) -> io::Result<Vec<PathBuf>> {
        let maps = fs::read(self.file("maps"))?;
        let mut paths: Vec<PathBuf> = Vec::new();
        for line in maps.split(|&byte| byte == b'\n') {
            let Some(at) = line.iter().position(|&byte| byte == b'/') else { continue };
            let path = Path::new(OsStr::from_bytes(&line[at..]));
            if !paths.iter().any(|known| known == path) {
                paths.push(path.into());
            }
        }
        Ok(paths)
    }

    /// A variable of the environment that the process was started with.
    pub fn variable(self, name: &str) -> io::Result<Option<String>> {
        let environment = fs::read(self.file("environ"))?;
        let value = environment.split(|&byte| byte == 0).find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        });
        Ok(value)
    }

    /// A path of the process as it is reached from here, also where the process lives in a container.
    pub fn reach(self, path: &Path) -> PathBuf {
        let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let path = if path.is_relative() {
            fs::read_link(self.file("cwd")).map_or_else(|_| path.to_owned(), |cwd| cwd.join(path))
        } else {
            path.to_owned()
        };
        match (space("self"), space(&self.pid.to_string())) {
            (Some(ours), Some(its)) if ours != its => self.file("root").join(path.strip_prefix("/").unwrap_or(&path)),
            _ => path,
        }
    }

    /// The signal that it listens to, and its report's path: as the library has named a mapping for us, since a server may
    /// have written over its environment; else as its `LEAKSCAN_OPTIONS` say.
    pub fn options(self) -> io::Result<(i32, String)> {
        let named = self.mapped_files()?.iter().find_map(|path| {
            let name = path.to_str()?.strip_prefix("/memfd:leakscan:")?.strip_suffix(" (deleted)")?;
            let (signal, path) = name.split_once(':')?;
            Some((signal.parse().ok()?, path.to_owned()))
        });
        if let Some(named) = named {
            return Ok(named);
        }
        let text = self.variable("LEAKSCAN_OPTIONS")?.unwrap_or_default();
        let options: Options<'_> = leakscan_options::parse(&text, |_| ());
        Ok((i32::try_from(options.signal).unwrap_or(58), options.log_path.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_read() {
        let text = "Name:\tmy prog\nState:\tS (sleeping)\nTracerPid:\t7\nUid:\t1000\t1001\t0\t0\nNSpid:\t4242\t17\n\
            SigCgt:\t0200000000000000\nSeccomp:\t2\nNoNewPrivs:\t1\n";
        let status = Status::parse(text);
        assert_eq!((status.name.as_str(), status.tracer, status.uid, status.inner_pid), ("my prog", 7, 1001, Some(17)));
        assert!(status.catches(58) && !status.catches(57) && !status.catches(0) && !status.zombie);
        assert_eq!((status.seccomp, status.no_new_privs), (2, true));
    }

    #[test]
    fn this_process_is_readable() {
        let this = Process::this();
        assert!(this.is_alive());
        let exe = std::env::current_exe().unwrap();
        assert!(this.mapped_files().unwrap().contains(&exe));
        assert_eq!(this.reach(Path::new("/tmp/x")), Path::new("/tmp/x"));
    }
}
