//! Raw system calls: no errno, no cancellation point, no symbol that a program could interpose.
//!
//! Everything in the library and in the snapshot child that asks the kernel for something goes through here.
#![allow(unsafe_code)] // the system call instruction

#[cfg(target_arch = "aarch64")]
#[path = "sys/aarch64.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "sys/x86_64.rs"]
mod arch;

mod files;

pub use arch::{Stat, USER_BITS, nr, restore_signal_frame, spare_base, syscall};
pub use files::{
    Fd, O_APPEND, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY, Pipe, close,
    each_line, holds_nothing, kind_of, numbers_in, open, peek_at_socket, pipe, read_file, stat, waiting_bytes,
};

/// An error number as the kernel gave it, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    pub const EPERM: Self = Self(1);
    pub const ENOENT: Self = Self(2);
    pub const ESRCH: Self = Self(3);
    pub const EINTR: Self = Self(4);
    pub const ECHILD: Self = Self(10);
    pub const EAGAIN: Self = Self(11);
    pub const ENOMEM: Self = Self(12);
    pub const EACCES: Self = Self(13);
    pub const EFAULT: Self = Self(14);
    pub const EBUSY: Self = Self(16);
    pub const EEXIST: Self = Self(17);
    pub const ENOTDIR: Self = Self(20);
    pub const EINVAL: Self = Self(22);
    pub const EMFILE: Self = Self(24);
    pub const EFBIG: Self = Self(27);
    pub const ENOSPC: Self = Self(28);
    pub const EPIPE: Self = Self(32);
    pub const EDEADLK: Self = Self(35);
    pub const ELOOP: Self = Self(40);
    pub const ETIMEDOUT: Self = Self(110);
}

/// Turns the kernel's result into a `Result`.
///
/// # Errors
/// Any of the kernel's error numbers (a result of -4095 to -1).
pub fn check(result: isize) -> Result<usize, Errno> {
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}

/// A system call that takes no pointer the kernel would write through, or one whose pointers are known good.
///
/// # Safety
/// The arguments mean what the call `number` takes them for; memory that the call writes is the caller's to give.
pub unsafe fn call(number: usize, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: by this function's own contract.
    check(unsafe { syscall(number, args) })
}

pub const PROT_NONE: usize = 0;
pub const PROT_READ: usize = 1;
pub const PROT_WRITE: usize = 2;
pub const MAP_SHARED: usize = 1;
/// The smallest there is.
pub const PAGE: usize = 4096;
pub const MAP_PRIVATE: usize = 2;
const MAP_ANONYMOUS: usize = 0x20;
const MAP_NORESERVE: usize = 0x4000;

/// Maps `len` zeroed bytes, private or shared with children, taking no swap until touched.
pub fn map(len: usize, sharing: usize) -> Result<usize, Errno> {
    let flags = sharing | MAP_ANONYMOUS | MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    unsafe { call(nr::MMAP, [0, len, PROT_READ | PROT_WRITE, flags, usize::MAX, 0]) }
}

/// The same, private, at `addr`: EEXIST where there is something. Before Linux 4.17 it may come to lie elsewhere.
pub fn map_at(addr: usize, len: usize) -> Result<usize, Errno> {
    const MAP_FIXED_NOREPLACE: usize = 0x10_0000;
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    // SAFETY: replaces nothing.
    unsafe { call(nr::MMAP, [addr, len, PROT_READ | PROT_WRITE, flags, usize::MAX, 0]) }
}

/// Takes a range of addresses without memory, of which nothing can be read yet.
pub fn reserve(len: usize) -> Result<usize, Errno> {
    // SAFETY: as above.
    unsafe { call(nr::MMAP, [0, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, usize::MAX, 0]) }
}

/// Lets a part of such a range be used.
///
/// # Safety
/// The part is the caller's.
pub unsafe fn open_reserved(addr: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: by this function's own contract.
    unsafe { call(nr::MPROTECT, [addr, len, PROT_READ | PROT_WRITE, 0, 0, 0]) }.map(drop)
}

/// Lets the memory of a private range go, which reads as zeros from now on. Refused of locked memory.
///
/// # Safety
/// What is in it is needed by nobody. The range is one of whole pages.
pub unsafe fn forget(addr: usize, len: usize) -> Result<(), Errno> {
    const MADV_DONTNEED: usize = 4;
    // SAFETY: by this function's own contract.
    unsafe { call(nr::MADVISE, [addr, len, MADV_DONTNEED, 0, 0, 0]) }.map(drop)
}

/// Unmaps a range.
///
/// # Safety
/// Nothing refers to the range any more.
pub unsafe fn unmap(addr: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: by this function's own contract.
    unsafe { call(nr::MUNMAP, [addr, len, 0, 0, 0, 0]) }.map(drop)
}

/// Those of a set of signals that may have been sent with a value: not the ones which the kernel itself sends, without any, and which wait in
/// many a server for ever: SIGPIPE, SIGALRM, SIGCHLD, SIGURG, SIGVTALRM, SIGPROF, SIGWINCH.
pub fn with_values(signals: u64) -> u64 {
    const WITHOUT: [u32; 7] = [13, 14, 17, 23, 26, 27, 28];
    WITHOUT.iter().fold(signals, |left, signal| left & !(1 << (signal - 1)))
}

/// Whether such signals wait that the calling thread, or its process, has blocked.
pub fn has_waiting_signals() -> bool {
    let mut set = 0u64;
    // SAFETY: the kernel writes a set of 8 bytes.
    unsafe { call(nr::RT_SIGPENDING, [&raw mut set as usize, 8, 0, 0, 0, 0]) }.is_ok() && with_values(set) != 0
}

/// Whether there is a thread of this number in this process, which may just have ended.
pub fn thread_exists(tid: u32) -> bool {
    // SAFETY: signal 0 is none.
    unsafe { call(nr::TGKILL, [getpid() as usize, tid as usize, 0, 0, 0, 0]) }.is_ok()
}

pub fn getpid() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { syscall(nr::GETPID, [0; 6]) as u32 }
}

pub fn gettid() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { syscall(nr::GETTID, [0; 6]) as u32 }
}

pub fn geteuid() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { syscall(nr::GETEUID, [0; 6]) as u32 }
}

/// The first two numbers of the kernel's release.
pub fn kernel_release() -> Option<(u32, u32)> {
    const FIELD: usize = 65;
    let mut name = [0u8; 6 * FIELD];
    // SAFETY: the kernel writes six texts of 65 bytes each, of which the third is the release.
    unsafe { call(nr::UNAME, [name.as_mut_ptr() as usize, 0, 0, 0, 0, 0]) }.ok()?;
    release(&name[2 * FIELD..3 * FIELD])
}

fn release(text: &[u8]) -> Option<(u32, u32)> {
    let mut numbers = text.split(|byte| !byte.is_ascii_digit());
    let mut next = || core::str::from_utf8(numbers.next()?).ok()?.parse().ok();
    Some((next()?, next()?))
}

/// The users that the calling thread is: real, effective and saved.
pub fn users() -> [u32; 3] {
    let mut users = [0u32; 3];
    let [real, effective, saved] = users.each_mut().map(|user| core::ptr::from_mut(user).addr());
    // SAFETY: the kernel writes the three numbers, and does not fail.
    let _ = unsafe { call(nr::GETRESUID, [real, effective, saved, 0, 0, 0]) };
    users
}

/// Makes another one of these the effective user of the calling thread alone.
pub fn act_as(user: u32) -> bool {
    const SAME: usize = u32::MAX as usize;
    // SAFETY: takes no pointer.
    unsafe { call(nr::SETRESUID, [SAME, user as usize, SAME, 0, 0, 0]) }.is_ok()
}

/// Whether others of the same user may look into this process.
pub fn is_dumpable() -> bool {
    const PR_GET_DUMPABLE: usize = 3;
    // SAFETY: takes no pointer.
    unsafe { syscall(nr::PRCTL, [PR_GET_DUMPABLE, 0, 0, 0, 0, 0]) == 1 }
}

pub fn set_dumpable() {
    const PR_SET_DUMPABLE: usize = 4;
    // SAFETY: takes no pointer.
    unsafe { syscall(nr::PRCTL, [PR_SET_DUMPABLE, 1, 0, 0, 0, 0]) };
}

pub fn getppid() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { syscall(nr::GETPPID, [0; 6]) as u32 }
}

/// Writes a number in decimal to the end of `digits`; gives the digits.
pub fn decimal(mut value: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &digits[at..];
        }
    }
}

/// `/proc/PID/name` in `path`.
pub fn proc_path<'a>(path: &'a mut [u8], pid: u32, name: &[u8]) -> &'a core::ffi::CStr {
    let mut digits = [0; 20];
    let mut used = 0;
    for part in [b"/proc/", decimal(u64::from(pid), &mut digits), b"/", name, b"\0"] {
        if let Some(place) = path.get_mut(used..used + part.len()) {
            place.copy_from_slice(part);
            used += part.len();
        }
    }
    core::ffi::CStr::from_bytes_until_nul(&path[..used]).unwrap_or(c"")
}

pub const CLOCK_REALTIME: usize = 0;
pub const CLOCK_MONOTONIC: usize = 1;
pub const CLOCK_PROCESS_CPUTIME: usize = 2;

/// Nanoseconds of a clock; 0 if it cannot be read.
pub fn clock_ns(clock: usize) -> u64 {
    let mut time = [0u64; 2];
    // SAFETY: the kernel writes two 64-bit words, seconds and nanoseconds, to `time`.
    match unsafe { call(nr::CLOCK_GETTIME, [clock, time.as_mut_ptr() as usize, 0, 0, 0, 0]) } {
        Ok(_) => time[0] * 1_000_000_000 + time[1],
        Err(_) => 0,
    }
}

/// Sleeps; returns early if a signal comes.
pub fn sleep_ns(ns: u64) {
    let time = [ns / 1_000_000_000, ns % 1_000_000_000];
    // SAFETY: the kernel reads two 64-bit words; the second pointer is null.
    let _ = unsafe { call(nr::NANOSLEEP, [time.as_ptr() as usize, 0, 0, 0, 0, 0]) };
}

const FUTEX_WAIT_PRIVATE: usize = 128;
const FUTEX_WAKE_PRIVATE: usize = 1 | 128;

/// Waits while `word` holds `value`, at most `timeout_ns` if given.
pub fn futex_wait(word: &core::sync::atomic::AtomicU32, value: u32, timeout_ns: Option<u64>) {
    let time = timeout_ns.map(|ns| [ns / 1_000_000_000, ns % 1_000_000_000]);
    let pointer = time.as_ref().map_or(0, |time| time.as_ptr() as usize);
    // SAFETY: the word outlives the call, being borrowed; the kernel only reads it and the time.
    let _ = unsafe { call(nr::FUTEX, [word.as_ptr() as usize, FUTEX_WAIT_PRIVATE, value as usize, pointer, 0, 0]) };
}

/// Wakes up to `count` waiters of `word`.
pub fn futex_wake(word: &core::sync::atomic::AtomicU32, count: usize) {
    // SAFETY: the kernel uses the address as a key only.
    let _ = unsafe { call(nr::FUTEX, [word.as_ptr() as usize, FUTEX_WAKE_PRIVATE, count, 0, 0, 0]) };
}

const RLIMIT_FSIZE: usize = 1;
const RLIMIT_STACK: usize = 3;
const RLIMIT_DATA: usize = 2;
const RLIMIT_NOFILE: usize = 7;
const RLIMIT_AS: usize = 9;

/// A limit of this process's, soft and hard.
fn limits(which: usize) -> Option<[usize; 2]> {
    let mut limits = [0usize; 2];
    // SAFETY: the kernel writes two 64-bit words to `limits`; no new limits are given.
    let asked = unsafe { call(nr::PRLIMIT64, [0, which, 0, limits.as_mut_ptr() as usize, 0, 0]) };
    asked.is_ok().then_some(limits)
}

/// The soft limit of the stack in bytes.
pub fn stack_limit() -> usize {
    limits(RLIMIT_STACK).map_or(8 << 20, |[soft, _]| soft)
}

/// The soft limit of all addresses in bytes.
pub fn memory_limit() -> usize {
    limits(RLIMIT_AS).map_or(usize::MAX, |[soft, _]| soft)
}

/// Whether there is a soft limit of addresses or of private memory.
pub fn is_memory_limited() -> bool {
    [RLIMIT_AS, RLIMIT_DATA].iter().any(|limit| limits(*limit).is_none_or(|[soft, _]| soft != usize::MAX))
}

/// Whether files may grow without limit.
pub fn may_write_files() -> bool {
    limits(RLIMIT_FSIZE).is_some_and(|[soft, _]| soft == usize::MAX)
}

/// Lets this process have as much address space as its hard limit allows.
pub fn lift_memory_limit() {
    lift(RLIMIT_AS);
}

/// Lets it have as many descriptors. Gives those that it may have more than before.
pub fn lift_descriptor_limit() -> usize {
    lift(RLIMIT_NOFILE)
}

fn lift(which: usize) -> usize {
    let Some([soft, hard]) = limits(which).filter(|[soft, hard]| soft < hard) else { return 0 };
    let lifted = [hard; 2];
    // SAFETY: the kernel reads two words.
    let set = unsafe { call(nr::PRLIMIT64, [0, which, lifted.as_ptr() as usize, 0, 0, 0]) };
    if set.is_ok() { hard - soft } else { 0 }
}

/// No descriptor has this number, or one above it.
pub fn most_descriptors() -> usize {
    const AT_MOST: usize = 1 << 16;
    limits(RLIMIT_NOFILE).map_or(AT_MOST, |[soft, _]| soft.min(AT_MOST))
}

/// The program's standard error. Never closed by us; a failed write is nobody's concern, nor is the signal that comes with it.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Stderr {
    /// One line, in one write, so that it is not torn; what is longer than 512 bytes is cut.
    pub fn line(self, parts: &[&[u8]]) {
        let mut line = [0u8; 512];
        let mut used = 0;
        for part in parts.iter().chain([&&b"\n"[..]]) {
            let take = part.len().min(line.len() - used);
            line[used..used + take].copy_from_slice(&part[..take]);
            used += take;
        }
        self.write(&line[..used]);
    }
    pub fn write(self, text: &[u8]) {
        const SIGPIPE: u64 = 1 << 12;
        const SIGXFSZ: u64 = 1 << 24;
        let (blocked, mut mask, mut waiting) = (SIGPIPE | SIGXFSZ, 0u64, 0u64);
        let masks = [&raw const blocked as usize, &raw mut mask as usize, &raw mut waiting as usize];
        // SAFETY: SIG_BLOCK (0): the kernel reads the one mask, of 8 bytes, and writes the others; and it reads the text.
        let written = unsafe {
            let _ = call(nr::RT_SIGPROCMASK, [0, masks[0], masks[1], 8, 0, 0]);
            let _ = call(nr::RT_SIGPENDING, [masks[2], 8, 0, 0, 0, 0]);
            call(nr::WRITE, [2, text.as_ptr() as usize, text.len(), 0, 0, 0])
        };
        // Nobody reads the pipe, or the file may not grow (of RLIMIT_FSIZE): this thread has the signal that would tell the program so.
        let came = match written {
            Err(Errno::EPIPE) => SIGPIPE & !waiting,
            Err(Errno::EFBIG) => SIGXFSZ & !waiting,
            _ => 0,
        };
        let at_once = [0usize; 2];
        // SAFETY: the kernel reads a mask of 8 bytes and a time; SIG_SETMASK (2) as above.
        unsafe {
            if came != 0 {
                let _ = call(nr::RT_SIGTIMEDWAIT, [&raw const came as usize, 0, at_once.as_ptr() as usize, 8, 0, 0]);
            }
            let _ = call(nr::RT_SIGPROCMASK, [2, masks[1], 0, 8, 0, 0]);
        }
    }
    pub fn write_decimal(self, value: u64) {
        self.write(decimal(value, &mut [0; 20]));
    }
}

/// Reads memory of a process (process_vm_readv): as much as can be read from `addr` on, which may be less than asked for.
pub fn read_memory(pid: u32, addr: usize, into: &mut [u8]) -> Result<usize, Errno> {
    let local = [into.as_mut_ptr() as usize, into.len()];
    let remote = [addr, into.len()];
    let args = [pid as usize, local.as_ptr() as usize, 1, remote.as_ptr() as usize, 1, 0];
    // SAFETY: the kernel writes at most `into.len()` bytes to `into`, or says that it cannot read there.
    unsafe { call(nr::PROCESS_VM_READV, args) }
}

/// Words of this process's memory that may not be mapped, and that nobody takes away meanwhile.
pub fn peek<const WORDS: usize>(addr: usize) -> Option<[usize; WORDS]> {
    let mut words = [0usize; WORDS];
    peek_into(addr, &mut words).then_some(words)
}

/// The same into a slice; `false` if not all of them can be read.
pub fn peek_into(addr: usize, words: &mut [usize]) -> bool {
    if !addr.is_multiple_of(8) || !can_read_all(addr, size_of_val(words)) {
        return false;
    }
    for (at, word) in words.iter_mut().enumerate() {
        // SAFETY: an aligned word of a page that can be read.
        *word = unsafe { (addr as *const usize).add(at).read_volatile() };
    }
    true
}

/// Whether so many bytes can be read.
pub fn can_read_all(addr: usize, len: usize) -> bool {
    let Some(end) = addr.checked_add(len) else { return false };
    (addr & !(PAGE - 1)..end).step_by(PAGE).all(|page| can_read(page.max(addr) & !7))
}

/// Whether the aligned word at `addr` can be read: whether the kernel can take it for a mask of signals, of which it does nothing. (The
/// way of Abseil's AddressIsReadable. Filters of services let it pass, where process_vm_readv may end who calls it.)
fn can_read(addr: usize) -> bool {
    const NOTHING: usize = usize::MAX;
    // SAFETY: the kernel reads 8 bytes, and refuses what is to be done with them.
    let asked = unsafe { call(nr::RT_SIGPROCMASK, [NOTHING, addr, 0, 8, 0, 0]) };
    addr != 0 && asked == Err(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_release_is_read() {
        assert_eq!(release(b"5.15.0-91-generic\0\0"), Some((5, 15)));
        assert_eq!(release(b"6.18-rc1\0"), Some((6, 18)));
        assert_eq!(release(b"unknown\0"), None);
        assert!(kernel_release().is_some());
    }

    #[test]
    fn lines_of_any_length() {
        let path = std::env::temp_dir().join(format!("leakscan-lines-{}", std::process::id()));
        let long = "x".repeat(1000);
        std::fs::write(&path, format!("first\n\n{long}\nthird\n{}\nlast", &long[..16])).unwrap();
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let mut lines = vec![];
        each_line(&name, &mut [0; 16], |line| lines.push(String::from_utf8(line.to_vec()).unwrap())).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(lines, ["first", "", &long[..16], "third", &long[..16], "last"]);
        assert_eq!(each_line(&name, &mut [0; 16], |_| {}), Err(Errno(2)), "it is gone");
    }
}
