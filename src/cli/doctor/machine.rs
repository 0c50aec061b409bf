//! What this machine allows: the kernel's rules for ptrace, signals, /proc and memory, and our own library.

use super::{Finding, fail, ok, warn};
use crate::process::{Process, Status};
use crate::{library, sys};
use std::fs;
use std::process::{Command, Stdio};

pub fn examine() -> Vec<Finding> {
    let status = Process::this().status().unwrap_or_default();
    let mut findings = vec![own_library(), glibc(), ptrace(&status)];
    findings.extend([yama(), seccomp(&status), signal(&status), proc(), snapshot()].into_iter().flatten());
    findings.push(report_folder());
    findings
}

fn own_library() -> Finding {
    match library::find() {
        Err(error) => fail("library", error),
        Ok(path) => match library::examine(&path) {
            Ok(()) => ok("library", format!("{} takes over malloc, operator new and the rest", path.display())),
            Err(error) => fail("library", format!("{}: {error}; it is not a whole libleakscan.so", path.display())),
        },
    }
}

fn glibc() -> Finding {
    let output = Command::new("ldd").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let first = text.lines().next().unwrap_or("");
    let version = first.rsplit(' ').next().unwrap_or("");
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= (2, 35) => ok("glibc", version),
        (Some(_), Some(_)) => warn(
            "glibc",
            format!("{version} is older than 2.35: stacks are recorded only as far as frame pointers lead"),
        ),
        _ => warn("glibc", "its version is not known (ldd --version tells none); leakscan needs glibc"),
    }
}

/// A child of ours that waits for us is the simplest thing to attach to.
fn ptrace(status: &Status) -> Finding {
    let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let Ok(mut child) = child else { return warn("ptrace", "not tried: cannot start `cat`") };
    let seized = sys::try_seize(child.id());
    drop(child.stdin.take());
    child.wait().ok();
    match seized {
        Ok(()) => ok("ptrace", "allowed: threads are stopped by it"),
        Err(error) => {
            let why = if status.seccomp != 0 { " (a seccomp filter is in force)" } else { "" };
            let text = format!(
                "refused: {}{why}; threads are stopped by a signal instead. In a container: --cap-add=SYS_PTRACE",
                sys::plain(&error)
            );
            warn("ptrace", text)
        }
    }
}

fn yama() -> Option<Finding> {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?;
    Some(match scope.trim() {
        "0" => ok("Yama", "ptrace_scope=0: no restriction"),
        "1" => ok("Yama", "ptrace_scope=1: only processes that allow it, as programs with libleakscan.so do"),
        "2" => warn("Yama", "ptrace_scope=2: only with CAP_SYS_PTRACE; without it a signal stops the threads"),
        other => warn("Yama", format!("ptrace_scope={other}: nobody may use ptrace; a signal stops the threads")),
    })
}

fn seccomp(status: &Status) -> Option<Finding> {
    (status.seccomp != 0).then(|| {
        warn(
            "seccomp",
            "a filter is in force here and for what is started from here; the trial below tells whether it hurts",
        )
    })
}

fn signal(status: &Status) -> Option<Finding> {
    let signal = i32::try_from(leakscan_options::Options::default().signal).ok()?;
    Some(if status.blocks(signal) {
        warn(
            "signal",
            format!("signal {signal} is blocked here and for what is started from here: `leakscan scan` is not heard"),
        )
    } else {
        ok("signal", format!("signal {signal} is free: `leakscan scan` is heard, and threads can be stopped by it"))
    })
}

fn proc() -> Option<Finding> {
    let readable = |name| fs::File::open(Process::this().file(name)).is_ok();
    let missing: Vec<_> =
        ["maps", "mem", "status", "task", "pagemap"].into_iter().filter(|name| !readable(name)).collect();
    Some(match missing.as_slice() {
        [] => ok("/proc", "maps, mem, status, task and pagemap can be read"),
        ["pagemap"] => warn("/proc", "pagemap cannot be read: untouched memory is read too, scans take longer"),
        missing => fail("/proc", format!("cannot be read: {}; is /proc mounted?", missing.join(", "))),
    })
}

fn snapshot() -> Option<Finding> {
    let strict = fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|text| text.trim() == "2");
    strict.then(|| {
        warn("memory", "vm.overcommit_memory=2: a snapshot needs as much free commit as the program has memory; try 0")
    })
}

fn report_folder() -> Finding {
    match rustix::fs::access("/tmp", rustix::fs::Access::WRITE_OK) {
        Ok(()) => ok("reports", "/tmp can be written to"),
        Err(error) => warn("reports", format!("/tmp cannot be written to ({error}); give --log-path")),
    }
}
