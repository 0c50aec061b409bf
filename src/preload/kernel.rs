//! Pointers that the kernel keeps for the program: the data of epoll, the values of timers, what is on its way through pipes and
//! sockets (copied and peeked at: nothing is taken out).

use crate::emit::Unseen;
use crate::{helper, snapshot};
use core::sync::atomic::Ordering::Relaxed;
use leakscan_engine::AddrRange;
use leakscan_engine::arena::{self, List};
use leakscan_engine::sys::{self, Errno};

/// What could not be looked at.
#[derive(Default)]
struct Missed {
    descriptors: usize,
    /// Of these, pipes and sockets of which some bytes were not to be had.
    channels: usize,
}

/// Adds all that /proc tells. Called in the child while the program's descriptors are still open in it. Gives whether all of these could
/// be looked at.
pub fn pointers(parent: u32, own: &Timers, words: &mut List<usize>, unseen: &mut Unseen) -> bool {
    let missed = arena::zeroed(256 << 10).map_or(Missed { descriptors: 1, channels: 0 }, |buffer| {
        let mut missed = descriptors(buffer, words);
        missed.descriptors += usize::from(!timers(parent, own, buffer, words));
        missed.descriptors += helper::UNLOOKED.load(Relaxed);
        missed
    });
    unseen.add_count(
        "descriptor",
        missed.descriptors,
        b"descriptors, or the timers, could not be looked at: nothing is confirmed without what they hold",
    );
    unseen.add_count(
        "waiting-bytes",
        missed.channels,
        b"pipes and sockets hold bytes that could not be looked at: nothing is confirmed without them",
    );
    missed.descriptors + missed.channels == 0
}

/// They are not inherited: those of the program itself. Gives whether they could be looked at.
fn timers(parent: u32, own: &Timers, buffer: &mut [u8], words: &mut List<usize>) -> bool {
    let mut path = [0; 40];
    let told = sys::each_line(sys::proc_path(&mut path, parent, b"timers"), buffer, |line| {
        let _ = timer(line).is_none_or(|value| words.push(value));
    });
    match told {
        Err(Errno::EACCES | Errno::EPERM) => {
            let values = own.values.iter().take(own.count);
            own.are_all && values.copied().all(|value| words.push(value))
        }
        // (Not all kernels tell.)
        _ => true,
    }
}

/// The value in a line such as `signal: 10/000055d0c0ffee00`.
fn timer(line: &[u8]) -> Option<usize> {
    let line = line.strip_prefix(b"signal: ")?;
    hex(&line[line.iter().position(|&byte| byte == b'/')? + 1..])
}

/// Values of timers as the program has them told to itself, where nobody else is.
#[derive(Clone, Copy)]
pub struct Timers {
    values: [usize; 64],
    count: usize,
    are_all: bool,
}

impl Timers {
    pub const NONE: Self = Self { values: [0; 64], count: 0, are_all: false };

    /// For a program's thread: of a program that is not dumpable (since it was another user, say), or is several users at once, they are kept
    /// from other processes.
    pub fn note(&mut self) {
        (self.count, self.are_all) = (0, false);
        let [real, effective, saved] = sys::users();
        if sys::is_dumpable() && real == effective && effective == saved {
            return;
        }
        let told = sys::each_line(c"/proc/self/timers", &mut [0; 1024], |line| {
            if let Some(value) = timer(line) {
                if let Some(place) = self.values.get_mut(self.count) {
                    *place = value;
                }
                self.count += 1;
            }
        });
        self.are_all = told.is_ok() && self.count <= self.values.len();
    }
}

/// What descriptors hold: the data of epoll, bytes in pipes and in sockets of this machine's. Each is let go as soon as it was looked
/// at, those that hold nothing before all others: what the program closes meanwhile is not closed while we have it.
fn descriptors(buffer: &mut [u8], words: &mut List<usize>) -> Missed {
    let (listing, buffer) = buffer.split_at_mut(32 << 10);
    // Where the copy shares the program's memory, the program waits for it, and they stay open.
    let in_place = snapshot::is_in_place();
    // SAFETY: this process's descriptors are copies that nobody uses.
    let close = |descriptor: usize| unsafe { sys::close(descriptor) };
    if !in_place {
        let _ = sys::numbers_in(c"/proc/self/fd", listing, |descriptor| {
            if sys::holds_nothing(descriptor as usize) {
                close(descriptor as usize);
            }
        });
    }
    let mut missed = Missed::default();
    let Some(mut copy) = sys::pipe() else {
        missed.descriptors = 1;
        return missed;
    };
    let listed = sys::numbers_in(c"/proc/self/fd", listing, |descriptor| {
        let (mut path, mut link, mut digits) = ([0u8; 48], [0u8; 64], [0; 20]);
        let number = sys::decimal(u64::from(descriptor), &mut digits);
        let target = crate::report_file::read_link(named(&mut path, b"/proc/self/fd/", number), &mut link);
        let descriptor = descriptor as usize;
        if copy.is_end(descriptor) || in_place && sys::holds_nothing(descriptor) {
            return;
        }
        if target == b"anon_inode:[eventpoll]" {
            let info = named(&mut path, b"/proc/self/fdinfo/", number);
            missed.descriptors += usize::from(sys::each_line(info, buffer, |line| epoll(line, words)).is_err());
        } else if target.starts_with(b"pipe:[") || target.starts_with(b"/") {
            // One with a path may be a pipe with a name; of another file nothing comes.
            missed.channels += usize::from(!is_all_seen(descriptor, |_| {
                copy.copy(descriptor, buffer, |bytes| each_word(bytes, words))
            }));
        } else if target.starts_with(b"socket:[") {
            missed.channels += usize::from(!is_all_seen(descriptor, |len| peek(descriptor, len, buffer, words)));
        }
        // (The listing itself is a directory.)
        if !in_place && !target.starts_with(b"/proc/") {
            close(descriptor);
        }
    });
    missed.descriptors += usize::from(listed.is_err());
    missed
}

/// Lets `look` read the bytes that wait in a pipe or a socket, of which it is told how many there are and gives how many it has seen.
/// Gives whether that was all. The program, which goes on, may have taken some out and put others in meanwhile: then again.
fn is_all_seen(descriptor: usize, mut look: impl FnMut(usize) -> usize) -> bool {
    const TRIES: usize = 3;
    let waiting = || sys::waiting_bytes(descriptor).unwrap_or(0);
    (0..TRIES).any(|_| {
        let before = waiting();
        before == 0 || {
            let seen = look(before);
            seen >= before || seen >= waiting()
        }
    })
}

/// Looks at what waits in a socket, in one piece: the next peek would begin at the same byte.
fn peek(socket: usize, len: usize, buffer: &mut [u8], words: &mut List<usize>) -> usize {
    let larger = (len > buffer.len()).then(|| arena::zeroed_for_now(len));
    let (buffer, for_now) = match larger {
        None => (buffer, None),
        Some(None) => return 0,
        Some(Some(larger)) => {
            let start = larger.as_ptr() as usize;
            (larger, Some(AddrRange::new(start, start + len.next_multiple_of(sys::PAGE))))
        }
    };
    let bytes = sys::peek_at_socket(socket, buffer);
    each_word(bytes, words);
    let seen = bytes.len();
    if let Some(mapped) = for_now {
        // SAFETY: it is ours, and nobody uses it any more.
        unsafe { arena::unmap(mapped) };
    }
    seen
}

fn epoll(line: &[u8], words: &mut List<usize>) {
    // `tfd:        5 events:       19 data:     55d0c0ffee00  pos:0 ...`
    let Some(at) = line.windows(5).position(|window| window == b"data:") else { return };
    let _ = hex(line[at + 5..].trim_ascii_start()).is_none_or(|value| words.push(value));
}

/// At any byte, since nobody knows how what comes first has been written; what cannot be an address is left out.
fn each_word(bytes: &[u8], words: &mut List<usize>) {
    for word in bytes.windows(8).filter_map(|window| window.try_into().ok()).map(usize::from_ne_bytes) {
        let _ = word >> sys::USER_BITS != 0 || word >> 16 == 0 || words.push(word);
    }
}

/// The path of a numbered file in a folder of /proc.
pub fn named<'a>(path: &'a mut [u8; 48], folder: &[u8], number: &[u8]) -> &'a core::ffi::CStr {
    path.fill(0);
    path[..folder.len()].copy_from_slice(folder);
    path[folder.len()..folder.len() + number.len()].copy_from_slice(number);
    core::ffi::CStr::from_bytes_until_nul(path).unwrap_or(c"")
}

/// The digits that a text begins with.
pub fn hex(text: &[u8]) -> Option<usize> {
    let len = text.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(text.len());
    usize::from_str_radix(core::str::from_utf8(&text[..len]).ok()?, 16).ok()
}
