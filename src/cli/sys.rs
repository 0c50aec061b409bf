//! The system calls that no safe crate offers, each behind a safe function, and how system errors read.
//!
//! The only room of the command line with unsafe code: real-time signals, ptrace and file mappings.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Sends any signal, real-time ones included (the crates' signal types stop at 31).
///
/// # Errors
/// The reason of kill(2).
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: kill takes two integers and touches no memory of ours.
    check(unsafe { libc::kill(pid, signal) })
}

/// Attaches to a process as leakscan's helper does and lets go of it at once. The process must be our child or one that
/// the caller has stopped itself; it is left running.
///
/// # Errors
/// The reason of ptrace(2).
pub fn try_seize(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    let none = std::ptr::null_mut::<libc::c_void>();
    let wait = || {
        let mut status = 0;
        // SAFETY: `status` is a live int.
        check(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) })
    };
    // SAFETY: PTRACE_SEIZE, INTERRUPT and DETACH read and write none of our memory.
    unsafe {
        check(libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) as i32)?;
        check(libc::ptrace(libc::PTRACE_INTERRUPT, pid, none, none) as i32)?;
    }
    // A tracee can be let go of only while it is stopped.
    wait()?;
    // SAFETY: as above.
    check(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, none, none) as i32 })
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Maps a file for the rest of our life: debug data is borrowed by contexts that live as long as the command does.
///
/// # Errors
/// Where it cannot be opened, is no regular file, or cannot be mapped.
pub fn map_file(path: &Path) -> io::Result<&'static [u8]> {
    // (A FIFO would wait for somebody who writes.)
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if meta.len() == 0 {
        return Ok(&[]);
    }
    // SAFETY: the mapping is private and never unmapped. Someone who cuts the file while we read it makes us die of
    // SIGBUS, as every tool that maps debug files does; nobody rewrites those in place (packages replace them).
    let map = unsafe { memmap2::Mmap::map(&file) }?;
    Ok(Box::leak(Box::new(map)))
}

/// A system error without Rust's `(os error 2)`.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_ascii_lowercase(),
        None => text,
    }
}
