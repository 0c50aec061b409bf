//! The report file: where it is, whose it is, how long it was when it was last whole.
//!
//! Never through a symbolic link, never into a file that another user owns, never over an older report: that moves to `.old`.
//! It is opened for each scan and closed after it, so that the program never sees a descriptor of ours.
#![allow(unsafe_code)] // system calls on paths

use crate::child::Step;
use crate::ledger::Ledger;
use crate::settings::{self, Settings};
use crate::snapshot;
use core::ffi::CStr;
use core::sync::atomic::Ordering::Relaxed;
use leakscan_engine::sys::{self, Errno, Fd, Stat, nr};

const AT_FDCWD: usize = -100isize as usize;
const PATH: usize = 1024;

/// The path that `log_path` means for this process.
pub struct Path {
    bytes: [u8; PATH],
    len: usize,
}

impl Path {
    pub fn of(settings: &Settings) -> Self {
        let mut path = Path { bytes: [0; PATH], len: 0 };
        let mut rest = settings.log_path.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            let taken = match (byte, after.first()) {
                (b'%', Some(b'p')) => path.push(sys::decimal(u64::from(settings::PID.load(Relaxed)), &mut [0; 20])),
                (b'%', Some(b'e')) => path.push(program_name(&mut [0; 256])),
                (b'%', Some(b'%')) => path.push(b"%"),
                _ => {
                    path.push(&[byte]);
                    continue;
                }
            };
            rest = &after[taken..];
        }
        path
    }

    /// Adds bytes; gives 1, the length of the letter that stood for them.
    fn push(&mut self, bytes: &[u8]) -> usize {
        if let Some(place) =
            self.bytes.get_mut(self.len..self.len + bytes.len()).filter(|_| self.len + bytes.len() < PATH)
        {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
        1
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

/// The last part of the executable's path, without slashes.
fn program_name(buffer: &mut [u8; 256]) -> &[u8] {
    let link = read_link(c"/proc/self/exe", buffer);
    link.rsplit(|&byte| byte == b'/').next().unwrap_or(link)
}

/// Where a symbolic link points; empty if that cannot be told.
pub fn read_link<'a>(path: &CStr, into: &'a mut [u8]) -> &'a [u8] {
    let args = [AT_FDCWD, path.as_ptr() as usize, into.as_mut_ptr() as usize, into.len(), 0, 0];
    // SAFETY: the kernel reads the path and writes at most `into.len()` bytes.
    let len = unsafe { sys::call(nr::READLINKAT, args) }.unwrap_or(0);
    &into[..len]
}

fn stat(file: &Fd) -> Result<Stat, Errno> {
    let mut words = [0u64; 18];
    // SAFETY: the kernel writes a `struct stat` of 144 bytes at most.
    unsafe { sys::call(nr::FSTAT, [file.0, words.as_mut_ptr() as usize, 0, 0, 0, 0]) }?;
    Ok(Stat::new(&words))
}

/// Opens this process's report to append to it: the one that it began, or a new one, and says which (true: new).
///
/// # Errors
/// The kernel's; EEXIST where somebody else's file is in the way.
pub fn open(settings: &Settings, ledger: &Ledger) -> Result<(Fd, bool), Errno> {
    let path = Path::of(settings);
    if ledger.whole.load(Relaxed) != 0
        && let Ok(file) = open_to_append(&path, ledger)
    {
        return Ok((file, false));
    }
    let create = || {
        let flags = sys::O_WRONLY | sys::O_APPEND | sys::O_NOFOLLOW | sys::O_CREAT | sys::O_EXCL;
        sys::open(path.as_c(), flags, 0o600)
    };
    let file = match create() {
        Err(Errno::EEXIST) => {
            move_aside(&path)?;
            create()?
        }
        other => other?,
    };
    let stat = stat(&file)?;
    ledger.device.store(stat.device, Relaxed);
    ledger.inode.store(stat.inode, Relaxed);
    Ok((file, true))
}

/// Opens the file that this process began.
fn open_begun(path: &Path, how: usize, ledger: &Ledger) -> Result<Fd, Errno> {
    let file = sys::open(path.as_c(), how | sys::O_NOFOLLOW | sys::O_NONBLOCK, 0)?;
    let is_begun = stat(&file)
        .is_ok_and(|stat| (stat.device, stat.inode) == (ledger.device.load(Relaxed), ledger.inode.load(Relaxed)));
    if is_begun { Ok(file) } else { Err(Errno::EEXIST) }
}

/// The same to append to it, in a snapshot child. The program may have begun it as root and be another user now, but not for good: then as
/// root again, which nobody notices, as users are each thread's own to the kernel. (It goes by memory whether a core file may be written.)
fn open_to_append(path: &Path, ledger: &Ledger) -> Result<Fd, Errno> {
    let open = || open_begun(path, sys::O_WRONLY | sys::O_APPEND, ledger);
    open().or_else(|error| {
        let [real, user, saved] = sys::users();
        if error != Errno::EACCES || user == 0 || real != 0 && saved != 0 {
            return Err(error);
        }
        snapshot::copy_is_needed();
        if !sys::act_as(0) {
            return Err(error);
        }
        let opened = open();
        sys::act_as(user);
        opened
    })
}

/// The program is about to become this user for good: the report that it has begun as root becomes that user's, so that it can go on; or
/// it stays root after all. Gives whether it did.
pub fn hand_over(settings: &Settings, ledger: &Ledger, user: u32) -> bool {
    let Ok(file) = open_begun(&Path::of(settings), sys::O_RDONLY, ledger) else { return false };
    // A plain file of root's, or of whom it was handed to, by no other name.
    let is_plain = |stat: Stat| stat.mode & 0o170_000 == 0o100_000 && stat.links == 1 && (stat.uid == 0 || user == 0);
    stat(&file).is_ok_and(is_plain)
        // SAFETY: takes no pointer; the group stays.
        && unsafe { sys::call(nr::FCHOWN, [file.0, user as usize, u32::MAX as usize, 0, 0, 0]) }.is_ok()
}

/// Renames what is at the path to `.old`, if it is a plain file of our own user.
fn move_aside(path: &Path) -> Result<(), Errno> {
    let old = sys::open(path.as_c(), sys::O_RDONLY | sys::O_NOFOLLOW | sys::O_NONBLOCK, 0)?;
    let stat = stat(&old)?;
    let user = sys::geteuid();
    if stat.mode & 0o170_000 != 0o100_000 || stat.uid != user {
        return Err(Errno::EEXIST);
    }
    let mut to = Path { bytes: path.bytes, len: path.len };
    to.push(b".old");
    let args = [AT_FDCWD, path.as_c().as_ptr() as usize, AT_FDCWD, to.as_c().as_ptr() as usize, 0, 0];
    // SAFETY: the kernel only reads the two paths.
    unsafe { sys::call(nr::RENAMEAT, args) }.map(drop)
}

/// Cuts the file back to the end of the last whole block, after a child that did not finish.
pub fn cut_back(settings: &Settings, ledger: &Ledger) {
    let path = Path::of(settings);
    let whole = ledger.whole.load(Relaxed);
    let inode = ledger.inode.load(Relaxed);
    if inode == 0 {
        return;
    }
    let Ok(file) = open_begun(&path, sys::O_WRONLY, ledger) else { return };
    // SAFETY: takes no pointer. A file without a whole block stays, empty, as the name is ours already.
    let _ = unsafe { sys::call(nr::FTRUNCATE, [file.0, whole as usize, 0, 0, 0, 0]) };
}

/// Says on stderr, once, that there is no report, and why.
pub fn tell(settings: &Settings, step: u32, error: u32) {
    let path = Path::of(settings);
    let mut digits = [0; 20];
    let number = sys::decimal(u64::from(error & 0xffff), &mut digits);
    let (what, at, remedy): (&[u8], &[u8], &[u8]) = match step {
        step if step == Step::Open as u32 || step == Step::Write as u32 => (
            b"cannot write ",
            path.as_bytes(),
            b"; the program goes on (log_path= changes the place, quiet=1 silences this)",
        ),
        step if step == Step::Clone as u32 => (
            b"a scan could not copy the process",
            b"",
            b"; the program goes on without it (`leakscan doctor` tells what is refused, quiet=1 silences this)",
        ),
        step if step == Step::Maps as u32 => (
            b"a scan could not read /proc/self/maps",
            b"",
            b"; the program goes on without it (is /proc mounted? quiet=1 silences this)",
        ),
        step if step == Step::Memory as u32 => (
            b"a scan could not begin",
            b"",
            b"; the program goes on without it (RLIMIT_AS, which is ulimit -v, or vm.max_map_count may be too low for leakscan; quiet=1 silences this)",
        ),
        _ => (
            b"a scan did not finish",
            b"",
            b"; the program goes on (deadline= gives it more time, quiet=1 silences this)",
        ),
    };
    let why: &[u8] = match error {
        1 => b"operation not permitted",
        2 if step == Step::Maps as u32 => b"no such file",
        2 => b"no such directory",
        10 => b"its children are in another pid namespace (unshare, setns)",
        11 => b"no further process is allowed (RLIMIT_NPROC)",
        12 => b"not enough memory",
        13 => b"permission denied",
        16 => b"its huge pages cannot be kept out of the copy, which would take more of them",
        17 => b"a file of another user, or no plain file, is in the way",
        20 => b"not a directory",
        23 => b"too many files are open in the system",
        24 => b"too many open files (RLIMIT_NOFILE)",
        27 => b"the file would be too large",
        28 => b"no space left on the device",
        30 => b"the file system is read-only",
        35 => b"a thread of its own is to take note of each copy, by userfaultfd",
        36 => b"the path is too long",
        40 => b"a symbolic link is in the way",
        122 => b"the disk quota is used up",
        error if error == 1 << 16 | 14 => b"its deadline has passed",
        error if error & 1 << 16 != 0 => b"it was ended by a signal",
        _ => b"error",
    };
    let known = why != b"error";
    sys::Stderr.line(&[
        b"leakscan: ",
        what,
        at,
        b": ",
        why,
        if known { b"" } else { b" " },
        if known { b"" } else { number },
        remedy,
    ]);
}
