//! Files and descriptors: opened and read, and what lies in pipes and sockets, looked at without taking it out.
#![allow(unsafe_code)] // system calls on paths, descriptors and buffers

use super::{Errno, Stat, arch, call, nr};

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

    /// Another descriptor of the same.
    ///
    /// # Errors
    /// The kernel's.
    pub fn again(&self) -> Result<Fd, Errno> {
        const F_DUPFD_CLOEXEC: usize = 1030;
        // SAFETY: takes no pointer.
        unsafe { call(nr::FCNTL, [self.0, F_DUPFD_CLOEXEC, 0, 0, 0, 0]) }.map(Fd)
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

/// Gives each line of a file, without its end. Of one that is longer than `buffer` its beginning only.
///
/// # Errors
/// It cannot be opened or read to its end.
pub fn each_line(path: &core::ffi::CStr, buffer: &mut [u8], mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
    let file = open(path, O_RDONLY, 0)?;
    let mut filled = 0;
    // The beginning of this line was given already.
    let mut is_rest = false;
    let mut give = |line: &[u8], is_whole: bool| {
        if !core::mem::replace(&mut is_rest, !is_whole) {
            each(line);
        }
    };
    loop {
        let read = file.read(&mut buffer[filled..])?;
        filled += read;
        let mut given = 0;
        while let Some(len) = buffer[given..filled].iter().position(|&byte| byte == b'\n') {
            give(&buffer[given..given + len], true);
            given += len + 1;
        }
        if given < filled && (read == 0 || filled - given == buffer.len()) {
            give(&buffer[given..filled], false);
            given = filled;
        }
        if read == 0 {
            return Ok(());
        }
        buffer.copy_within(given..filled, 0);
        filled -= given;
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
