//! What will work in a process that runs already.

use super::{Finding, fail, ok, warn};
use crate::process::{Process, Status, is_library};
use crate::{logpath, preflight, sys};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Allocators whose blocks we see if they are asked through us.
const ALLOCATORS: [&str; 7] = ["jemalloc", "tcmalloc", "mimalloc", "snmalloc", "hoard", "rpmalloc", "scudo"];

pub fn examine(pid: u32) -> Vec<Finding> {
    let process = Process { pid };
    let Ok(status) = process.status() else { return vec![fail("process", format!("there is no process {pid}"))] };
    let mut findings = vec![ok("process", format!("{pid} is {} of uid {}", status.name, status.uid))];
    let mapped = match process.mapped_files() {
        Ok(mapped) => mapped,
        Err(error) => {
            findings.push(fail("/proc", format!("/proc/{pid}/maps: {}; be its user or root", sys::plain(&error))));
            return findings;
        }
    };
    findings.push(library(&mapped));
    findings.extend(order(process));
    findings.push(own_malloc(process));
    findings.extend(allocators(&mapped));
    findings.push(tracer(&status));
    findings.extend(seccomp(&status));
    if mapped.iter().any(|path| is_library(path)) {
        findings.extend(answers(process, &status));
    }
    findings
}

fn library(mapped: &[PathBuf]) -> Finding {
    match mapped.iter().find(|path| is_library(path)) {
        Some(path) => ok("library", format!("{} is in it", path.display())),
        None => fail("library", "no libleakscan.so is in it, and none can be added now; start it with `leakscan run`"),
    }
}

/// The loader searches preloaded libraries in their order: who stands before us gets the calls first.
fn order(process: Process) -> Option<Finding> {
    let preload = process.variable("LD_PRELOAD").ok()??;
    let names: Vec<_> = preload.split([':', ' ']).filter(|name| !name.is_empty()).collect();
    let at = names.iter().position(|name| is_library(Path::new(name)))?;
    Some(if at == 0 {
        let others = names.len() - 1;
        let text = if others == 0 { String::new() } else { format!(", before {}", names[1..].join(", ")) };
        ok("order", format!("ours is first in LD_PRELOAD{text}"))
    } else {
        warn(
            "order",
            format!(
                "{} stands before ours in LD_PRELOAD: blocks from its malloc may not be seen",
                names[..at].join(", ")
            ),
        )
    })
}

fn own_malloc(process: Process) -> Finding {
    let exe = process.file("exe");
    match sys::map_file(&exe) {
        Err(error) => warn("malloc", format!("its program cannot be read: {}", sys::plain(&error))),
        Ok(bytes) => match preflight::own_malloc(bytes) {
            None => ok("malloc", "the program has none of its own"),
            Some(place) => warn("malloc", format!("the program has one of its own ({place}): its blocks are not seen")),
        },
    }
}

fn allocators(mapped: &[PathBuf]) -> Option<Finding> {
    let name = |path: &PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
    let found: Vec<_> =
        mapped.iter().filter_map(name).filter(|name| ALLOCATORS.iter().any(|known| name.contains(known))).collect();
    (!found.is_empty()).then(|| {
        ok(
            "allocator",
            format!("{}: seen where it is called as malloc or new, not by names of its own", found.join(", ")),
        )
    })
}

fn tracer(status: &Status) -> Finding {
    match status.tracer {
        0 => ok("ptrace", "nobody traces it"),
        pid => {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let text =
                format!("process {pid} ({}) traces it: threads are stopped by a signal instead", name.trim_end());
            warn("ptrace", text)
        }
    }
}

fn seccomp(status: &Status) -> Option<Finding> {
    match (status.seccomp, status.no_new_privs) {
        (0, _) => None,
        (1, _) => Some(fail("seccomp", "strict mode: it can only read, write and exit; no scan is possible")),
        (_, privs) => {
            let privs = if privs { ", no_new_privs set" } else { "" };
            Some(warn(
                "seccomp",
                format!(
                    "a filter is in force{privs}: one that ends who makes a call that a scan needs allows none; if it refuses ptrace, scans use the signal"
                ),
            ))
        }
    }
}

fn answers(process: Process, status: &Status) -> Vec<Finding> {
    let (signal, pattern) = match process.options() {
        Ok(options) => options,
        Err(error) => {
            let path = process.file("environ");
            return vec![fail("options", format!("{}: {}", path.display(), sys::plain(&error)))];
        }
    };
    let heard = if status.catches(signal) {
        ok("signal", format!("it listens to signal {signal}: `leakscan scan {}` works", process.pid))
    } else {
        fail(
            "signal",
            format!("it does not listen to signal {signal}; the program may have taken it: try another --signal"),
        )
    };
    let pattern = process.reach(Path::new(&pattern)).to_string_lossy().into_owned();
    let folder = logpath::folder(&pattern);
    let reports = match fs::metadata(folder) {
        Err(error) => fail("reports", format!("{}: {}; see log_path", folder.display(), sys::plain(&error))),
        Ok(meta) if may_write(&meta, status) => ok("reports", format!("go to {pattern}")),
        Ok(_) => {
            fail("reports", format!("{} cannot be written to by uid {}; see log_path", folder.display(), status.uid))
        }
    };
    vec![heard, reports]
}

/// By the mode alone: access lists and capabilities other than root's are not looked at.
fn may_write(folder: &fs::Metadata, status: &Status) -> bool {
    let bit = match (status.uid, status.gid) {
        (0, _) => return true,
        (uid, _) if uid == folder.uid() => 0o200,
        (_, gid) if gid == folder.gid() => 0o020,
        _ => 0o002,
    };
    folder.mode() & bit != 0
}
