//! A snapshot child caught at its work.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;

/// Stopped until it is let go, or ended.
#[must_use]
pub struct Snapshot {
    pid: u32,
}

impl Snapshot {
    /// The snapshot child of a process, once it has closed the program's descriptors and set its watchdog; `None` while there is
    /// none such.
    pub(crate) fn find(program: u32) -> Option<Self> {
        let pid = child_of(program)?;
        // Its watchdog's signal, which the program blocked before it made the child, is let in last.
        if signals(pid, "SigBlk:\t")? & ALARM != 0 {
            return None;
        }
        kill_process(number(pid), Signal::STOP).ok()?;
        loop {
            // Until then it may still come to its end.
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            match status.lines().find_map(|line| line.strip_prefix("State:\t"))?.as_bytes()[0] {
                b'T' => return Some(Self { pid }),
                b'Z' | b'X' => return None,
                _ => std::thread::yield_now(),
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until its watchdog has rung: a signal that waits for it to go on.
    ///
    /// # Panics
    /// If that does not come within a minute.
    pub fn wait_for_its_deadline(&self) {
        for _ in 0..6000 {
            if signals(self.pid, "ShdPnd:\t").expect("a line in status") & ALARM != 0 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the snapshot child {} has no deadline", self.pid);
    }

    /// It goes on.
    ///
    /// # Panics
    /// If it is not there any more.
    pub fn let_go(self) {
        kill_process(number(self.pid), Signal::CONT).unwrap();
    }

    /// It is killed.
    ///
    /// # Panics
    /// If it is not there any more.
    pub fn kill(self) {
        kill_process(number(self.pid), Signal::KILL).unwrap();
    }
}

const ALARM: u64 = 1 << (14 - 1);

/// A set of signals from a process's status; `None` if it is gone, or dead.
fn signals(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    u64::from_str_radix(status.lines().find_map(|line| line.strip_prefix(name))?, 16).ok()
}

fn number(pid: u32) -> Pid {
    pid.try_into().ok().and_then(Pid::from_raw).expect("a pid is positive")
}

/// The process whose parent that is, if there is one.
fn child_of(parent: u32) -> Option<u32> {
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| *pid != parent).find(|pid| {
        // `pid (name) state ppid ...`: the name may hold anything but ends at the last parenthesis.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(2)) == Some(&parent.to_string())
    })
}
