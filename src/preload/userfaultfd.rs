//! userfaultfds: a thread of the program's fills pages when they are touched, and may be told of each fork, which waits until it has taken
//! note. While that thread stands still nobody does.
//!
//! One by libc's `syscall` is known of; one by a system call past libc, from /dev/userfaultfd, or from another process is found among the
//! descriptors.

use crate::kernel::{hex, named};
use crate::report_file::read_link;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use leakscan_engine::sys::{self, Errno};

/// The program has, or had, a userfaultfd: memory that it is to fill when it is touched is not touched while it stands still.
pub static SEEN: AtomicBool = AtomicBool::new(false);

/// The userfaultfds that this process has a descriptor of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Userfaultfds {
    pub any: bool,
    /// One is told of each fork, which waits until somebody has taken note.
    pub reports_forks: bool,
}

/// Whether no page waits for somebody to fill it when it is touched.
pub fn serves_no_fault() -> bool {
    if SEEN.load(Relaxed) {
        return false;
    }
    // One had by a system call past libc, or from /dev/userfaultfd.
    let found = all();
    SEEN.store(found.is_ok_and(|found| found.any), Relaxed);
    found.is_ok_and(|found| !found.any)
}

/// Whether this process has more than a few descriptors, each of which takes a microsecond to look at. (Linux says so since 6.2.)
pub fn has_many_descriptors() -> bool {
    const FEW: u64 = 64;
    sys::stat(c"/proc/self/fd").is_ok_and(|stat| stat.size > FEW)
}

/// Whether all descriptors are of files that have a place in a file system, or are pipes or sockets, as in most small programs. `false`: not
/// known. (To list them in /proc makes the kernel keep an entry for each, which the end of a short process takes 60 us longer for.)
fn all_are_files() -> bool {
    /// Beyond it none is looked for.
    const HIGHEST: usize = 1024;
    // (Where none can be opened any more, the scan will need some: that is not for here.)
    if sys::open(c"/", sys::O_RDONLY, 0).is_err() {
        return false;
    }
    let there = sys::stat(c"/proc/self/fd").map_or(0, |stat| stat.size);
    let mut kinds = (0..HIGHEST).filter_map(sys::kind_of);
    there != 0 && (0..there).all(|_| kinds.next().is_some_and(|kind| kind != 0))
}

/// Those of this process.
///
/// # Errors
/// Why nobody can tell.
pub fn all() -> Result<Userfaultfds, Errno> {
    const EVENT_FORK: usize = 2;
    if all_are_files() {
        return Ok(Userfaultfds::default());
    }
    let (mut listing, mut text, mut found) = ([0u8; 4096], [0u8; 512], Userfaultfds::default());
    sys::numbers_in(c"/proc/self/fd", &mut listing, |descriptor| {
        let (mut path, mut link, mut digits) = ([0u8; 48], [0u8; 64], [0; 20]);
        let number = sys::decimal(u64::from(descriptor), &mut digits);
        let target = read_link(named(&mut path, b"/proc/self/fd/", number), &mut link);
        if target == b"anon_inode:[userfaultfd]" {
            // `API:	aa:2:1ffff`: the version, the features in use, those that there are.
            let info = sys::read_file(named(&mut path, b"/proc/self/fdinfo/", number), &mut text).unwrap_or(&[]);
            let in_use = info.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"API:"));
            let in_use = in_use.and_then(|words| hex(words.split(|&byte| byte == b':').nth(1)?));
            found.any = true;
            found.reports_forks |= in_use.is_none_or(|features| features & EVENT_FORK != 0);
        }
    })?;
    Ok(found)
}
