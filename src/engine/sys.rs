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

pub use arch::{Stat, USER_BITS, nr, restore_signal_frame, spare_base, syscall};

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
    pub const ENOSPC: Self = Self(28);
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

pub const O_RDONLY: usize = 0;
pub const O_WRONLY: usize = 1;
pub const O_CREAT: usize = 0o100;
pub const O_EXCL: usize = 0o200;
pub const O_APPEND: usize = 0o2000;
pub const O_NONBLOCK: usize = 0o4000;
pub const O_DIRECTORY: usize = arch::O_DIRECTORY;
pub const O_NOFOLLOW: usize = arch::O_NOFOLLOW;
pub const O_CLOEXEC: usize = 0o2_000_000;
const AT_FDCWD: usize = -100isize as usize;

/// Opens a path relative to the working directory; `flags` get O_CLOEXEC added.
pub fn open(path: &core::ffi::CStr, flags: usize, mode: usize) -> Result<Fd, Errno> {
    // SAFETY: the kernel only reads the path, which ends in a zero byte.
    unsafe { call(nr::OPENAT, [AT_FDCWD, path.as_ptr() as usize, flags | O_CLOEXEC, mode, 0, 0]) }.map(Fd)
}

/// An open descriptor of ours, closed on drop.
#[derive(Debug)]
pub struct Fd(pub usize);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours, and nothing uses it after the drop.
        let _ = unsafe { call(nr::CLOSE, [self.0, 0, 0, 0, 0, 0]) };
    }
}

impl Fd {
    /// Reads at the descriptor's position; again if a signal came between.
    pub fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: the kernel writes at most `into.len()` bytes into `into`.
        retry(|| unsafe { call(nr::READ, [self.0, into.as_mut_ptr() as usize, into.len(), 0, 0, 0]) })
    }

    /// Reads at an offset of its own.
    pub fn read_at(&self, into: &mut [u8], offset: usize) -> Result<usize, Errno> {
        // SAFETY: as in `read`.
        retry(|| unsafe { call(nr::PREAD64, [self.0, into.as_mut_ptr() as usize, into.len(), offset, 0, 0]) })
    }

    /// Fills `into` until it is full or the file ends; gives the bytes read.
    pub fn read_full(&self, into: &mut [u8]) -> Result<usize, Errno> {
        let mut filled = 0;
        while filled < into.len() {
            match self.read(&mut into[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    /// Writes all of `bytes`.
    pub fn write_all(&self, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() {
            // SAFETY: the kernel reads at most `bytes.len()` bytes of `bytes`.
            let n = retry(|| unsafe { call(nr::WRITE, [self.0, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) })?;
            bytes = &bytes[n..];
        }
        Ok(())
    }
}

/// A pipe of ours, both ends of which never block.
pub struct Pipe {
    out: Fd,
    into: Fd,
    size: usize,
}

pub fn pipe() -> Option<Pipe> {
    let mut ends = [0i32; 2];
    // SAFETY: the kernel writes two descriptors.
    unsafe { call(nr::PIPE2, [ends.as_mut_ptr() as usize, O_NONBLOCK | O_CLOEXEC, 0, 0, 0, 0]) }.ok()?;
    let [out, into] = ends.map(|end| Fd(end as usize));
    let size = pipe_size(into.0);
    Some(Pipe { out, into, size })
}

/// How much a pipe may hold, 0 of what is none.
fn pipe_size(end: usize) -> usize {
    const F_GETPIPE_SZ: usize = 1032;
    // SAFETY: takes no memory of ours.
    unsafe { call(nr::FCNTL, [end, F_GETPIPE_SZ, 0, 0, 0, 0]) }.unwrap_or(0)
}

impl Pipe {
    /// Copies what is in the pipe that `from` reads from, which keeps it, and gives it in pieces of what fits in `buffer`, or in packets:
    /// before each stand the last bytes of the one before, so that a word which lies across is whole. Gives how many bytes there were,
    /// 0 if `from` is no such end.
    pub fn copy(&mut self, from: usize, buffer: &mut [u8], mut each: impl FnMut(&[u8])) -> usize {
        const SPLICE_F_NONBLOCK: usize = 2;
        const F_SETPIPE_SZ: usize = 1031;
        const AT_MOST: usize = 1 << 30;
        const OVERLAP: usize = size_of::<usize>() - 1;
        let size = pipe_size(from);
        if size > self.size {
            // SAFETY: takes no memory of ours; a refusal leaves the pipe as it is.
            let enlarged = unsafe { call(nr::FCNTL, [self.into.0, F_SETPIPE_SZ, size, 0, 0, 0]) };
            self.size = enlarged.unwrap_or(self.size);
        }
        // SAFETY: takes no memory of ours.
        let _ = unsafe { call(nr::TEE, [from, self.into.0, AT_MOST, SPLICE_F_NONBLOCK, 0, 0]) };
        let (mut copied, mut kept) = (0, 0);
        while let Ok(len @ 1..) = self.out.read(&mut buffer[kept..]) {
            let filled = kept + len;
            each(&buffer[..filled]);
            kept = filled.min(OVERLAP);
            buffer.copy_within(filled - kept..filled, 0);
            copied += len;
        }
        copied
    }
}

impl Pipe {
    /// Whether a descriptor is one of its ends.
    pub fn is_end(&self, descriptor: usize) -> bool {
        [self.out.0, self.into.0].contains(&descriptor)
    }
}

/// What the kernel says of a file, by its path.
pub fn stat(path: &core::ffi::CStr) -> Result<Stat, Errno> {
    let mut words = [0u64; 18];
    // SAFETY: the kernel writes a `struct stat` of 144 bytes at most; the path ends in a zero byte.
    unsafe { call(nr::NEWFSTATAT, [AT_FDCWD, path.as_ptr() as usize, words.as_mut_ptr() as usize, 0, 0, 0]) }?;
    Ok(Stat::new(&words))
}

/// Of what kind (S_IFMT) a descriptor's file is: 0 for one that is nowhere, as what epoll_create gives. `None`: there is no such descriptor. Asks
/// no file system on another machine.
pub fn kind_of(descriptor: usize) -> Option<u16> {
    const EMPTY_PATH: usize = 0x1000;
    const DONT_SYNC: usize = 0x4000;
    const TYPE: usize = 1;
    let mut words = [0u32; 64];
    let path: &core::ffi::CStr = c"";
    let args = [descriptor, path.as_ptr() as usize, EMPTY_PATH | DONT_SYNC, TYPE, words.as_mut_ptr() as usize, 0];
    // SAFETY: the kernel writes a `struct statx` of 256 bytes.
    unsafe { call(nr::STATX, args) }.ok()?;
    Some((words[7] & 0xf000) as u16)
}

/// Closes a descriptor that is no [`Fd`].
///
/// # Safety
/// It is the caller's, and nobody uses it any more.
pub unsafe fn close(descriptor: usize) {
    // SAFETY: by this function's own contract.
    let _ = unsafe { call(nr::CLOSE, [descriptor, 0, 0, 0, 0, 0]) };
}

/// Whether a descriptor is a plain file or a device, a socket whose peer may be on another machine, or a pipe of which nothing is to be
/// read by it: others notice while it is open, and nothing that is on its way through it is looked at.
pub fn holds_nothing(descriptor: usize) -> bool {
    const S_IFMT: u32 = 0o170_000;
    const S_IFREG: u32 = 0o100_000;
    const S_IFCHR: u32 = 0o020_000;
    const S_IFBLK: u32 = 0o060_000;
    const S_IFSOCK: u32 = 0o140_000;
    const S_IFIFO: u32 = 0o010_000;
    const F_GETFL: usize = 3;
    const O_ACCMODE: usize = 3;
    let mut words = [0u64; 18];
    // SAFETY: the kernel writes a `struct stat` of 144 bytes at most.
    if unsafe { call(nr::FSTAT, [descriptor, words.as_mut_ptr() as usize, 0, 0, 0, 0]) }.is_err() {
        return false;
    }
    match Stat::new(&words).mode & S_IFMT {
        S_IFREG | S_IFCHR | S_IFBLK => true,
        S_IFIFO => {
            // SAFETY: takes no memory of ours.
            let flags = unsafe { call(nr::FCNTL, [descriptor, F_GETFL, 0, 0, 0, 0]) };
            flags.is_ok_and(|flags| flags & O_ACCMODE == O_WRONLY) || waiting_bytes(descriptor) == Some(0)
        }
        S_IFSOCK => socket_option(descriptor, SO_DOMAIN).is_some_and(|domain| domain != AF_UNIX),
        _ => false,
    }
}

/// Bytes that are to be read from a pipe or a socket: of datagrams those of the first.
pub fn waiting_bytes(descriptor: usize) -> Option<usize> {
    const FIONREAD: usize = 0x541b;
    let mut bytes = 0u32;
    // SAFETY: the kernel writes four bytes.
    unsafe { call(nr::IOCTL, [descriptor, FIONREAD, &raw mut bytes as usize, 0, 0, 0]) }.ok().map(|_| bytes as usize)
}

const SO_DOMAIN: usize = 39;
const AF_UNIX: i32 = 1;

fn socket_option(socket: usize, which: usize) -> Option<i32> {
    const SOL_SOCKET: usize = 1;
    let (mut value, mut len) = (0i32, 4u32);
    let args = [socket, SOL_SOCKET, which, &raw mut value as usize, &raw mut len as usize, 0];
    // SAFETY: the kernel writes four bytes to each.
    unsafe { call(nr::GETSOCKOPT, args) }.ok().map(|_| value)
}

/// What the next reader of a socket between processes of this machine would get of the bytes that wait there, without taking it out: of
/// datagrams and packets the first, of others none behind descriptors that were sent. Nothing of a socket that looking at would change:
/// one with a mark of how far it was peeked at (which, set by us, the program could see), and one with an error, which it is to get.
pub fn peek_at_socket(socket: usize, buffer: &mut [u8]) -> &[u8] {
    const MSG_PEEK_DONTWAIT: usize = 0x42;
    const SO_TYPE: usize = 3;
    const SO_PEEK_OFF: usize = 42;
    const SOCK_STREAM: i32 = 1;
    const SOCK_DGRAM: i32 = 2;
    const SOCK_SEQPACKET: i32 = 5;
    const POLLERR: u64 = 8;
    let option = |which| socket_option(socket, which);
    let readable = option(SO_DOMAIN) == Some(AF_UNIX)
        && option(SO_TYPE).is_some_and(|kind| [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET].contains(&kind))
        && option(SO_PEEK_OFF).is_some_and(|mark| mark < 0);
    if !readable {
        return &[];
    }
    // `struct pollfd`: the descriptor, what is waited for, what has come. An error that waits would be taken by our reading.
    let (mut poll, now) = (socket as u64, [0usize; 2]);
    // SAFETY: the kernel writes to the one word, and reads the other two.
    let asked = unsafe { call(nr::PPOLL, [&raw mut poll as usize, 1, now.as_ptr() as usize, 0, 8, 0]) };
    if asked.is_err() || poll >> 48 & POLLERR != 0 {
        return &[];
    }
    // SAFETY: the kernel writes as many bytes as it is told.
    let len =
        unsafe { call(nr::RECVFROM, [socket, buffer.as_mut_ptr() as usize, buffer.len(), MSG_PEEK_DONTWAIT, 0, 0]) };
    &buffer[..len.unwrap_or(0).min(buffer.len())]
}

fn retry(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Reads a whole small file (as those of /proc) into `into`; gives what was read, which may be cut at the buffer's length.
pub fn read_file<'a>(path: &core::ffi::CStr, into: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let n = open(path, O_RDONLY, 0)?.read_full(into)?;
    Ok(&into[..n])
}

/// Gives each entry of a directory whose name is a number. `buffer` holds what is read at a time.
///
/// # Errors
/// The kernel's, where the directory cannot be read.
pub fn numbers_in(path: &core::ffi::CStr, buffer: &mut [u8], mut each: impl FnMut(u32)) -> Result<(), Errno> {
    let directory = open(path, O_RDONLY | O_DIRECTORY, 0)?;
    loop {
        let args = [directory.0, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0];
        // SAFETY: the kernel writes at most `buffer.len()` bytes.
        let bytes = unsafe { call(nr::GETDENTS64, args) }?;
        if bytes == 0 {
            return Ok(());
        }
        let mut at = 0;
        while at < bytes {
            // `linux_dirent64`: the entry's length at 16, its name, which ends in zero, from 19 on.
            let len = buffer.get(at + 16..at + 18).map_or(0, |len| usize::from(u16::from_ne_bytes([len[0], len[1]])));
            let name = buffer.get(at + 19..at + len.max(19)).unwrap_or(&[]);
            let name = name.split(|&byte| byte == 0).next().unwrap_or(&[]);
            if let Some(number) = core::str::from_utf8(name).ok().and_then(|name| name.parse().ok()) {
                each(number);
            }
            at += len.max(24);
        }
    }
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

/// The program's standard error. Never closed by us; a failed write is nobody's concern.
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
        // SAFETY: the kernel only reads the text.
        let _ = unsafe { call(nr::WRITE, [2, text.as_ptr() as usize, text.len(), 0, 0, 0]) };
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
}
