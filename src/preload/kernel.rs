//! Pointers that the kernel keeps for the program: the data of epoll, the values of timers, what is on its way through pipes and
//! sockets (copied and peeked at: nothing is taken out).

use leakscan_engine::arena::{self, List};
use leakscan_engine::sys;

/// All that /proc tells. Called in the child while the program's descriptors are still open in it.
pub fn pointers(parent: u32) -> List<usize> {
    let mut words = List::new();
    let Some(buffer) = arena::zeroed::<u8>(256 << 10) else { return words };
    descriptors(buffer, &mut words);
    // Timers are not inherited: those of the program itself.
    let mut path = [0; 40];
    if let Ok(text) = sys::read_file(sys::proc_path(&mut path, parent, b"timers"), buffer) {
        // `signal: 10/000055d0c0ffee00`
        for line in text.split(|&byte| byte == b'\n').filter_map(|line| line.strip_prefix(b"signal: ")) {
            let value = line.iter().position(|&byte| byte == b'/').and_then(|at| hex(&line[at + 1..]));
            let _ = value.is_none_or(|value| words.push(value));
        }
    }
    words
}

/// What descriptors hold: the data of epoll, bytes in pipes and in sockets of this machine's.
fn descriptors(buffer: &mut [u8], words: &mut List<usize>) {
    let (listing, buffer) = buffer.split_at_mut(32 << 10);
    let mut copy = None;
    let _ = sys::numbers_in(c"/proc/self/fd", listing, |descriptor| {
        let (mut path, mut link, mut digits) = ([0u8; 48], [0u8; 64], [0; 20]);
        let number = sys::decimal(u64::from(descriptor), &mut digits);
        let target = crate::report_file::read_link(named(&mut path, b"/proc/self/fd/", number), &mut link);
        let descriptor = descriptor as usize;
        if target == b"anon_inode:[eventpoll]" {
            if let Ok(text) = sys::read_file(named(&mut path, b"/proc/self/fdinfo/", number), buffer) {
                epoll(text, words);
            }
        } else if target.starts_with(b"pipe:[") || target.starts_with(b"/") {
            // One with a path may be a pipe with a name; of another file nothing comes.
            if let Some(copy) = copy.get_or_insert_with(sys::pipe) {
                each_word(copy.fill_from(descriptor, buffer), words);
            }
        } else if target.starts_with(b"socket:[") {
            each_word(sys::peek_at_socket(descriptor, buffer), words);
        }
    });
}

fn epoll(text: &[u8], words: &mut List<usize>) {
    // `tfd:        5 events:       19 data:     55d0c0ffee00  pos:0 ...`
    for line in text.split(|&byte| byte == b'\n') {
        let Some(at) = line.windows(5).position(|window| window == b"data:") else { continue };
        let _ = hex(line[at + 5..].trim_ascii_start()).is_none_or(|value| words.push(value));
    }
}

/// At any byte, since nobody knows how what comes first has been written; what cannot be an address is left out.
fn each_word(bytes: &[u8], words: &mut List<usize>) {
    for word in bytes.windows(8).filter_map(|window| window.try_into().ok()).map(usize::from_ne_bytes) {
        let _ = word >> sys::USER_BITS != 0 || word >> 16 == 0 || words.push(word);
    }
}

fn named<'a>(path: &'a mut [u8; 48], folder: &[u8], number: &[u8]) -> &'a core::ffi::CStr {
    path.fill(0);
    path[..folder.len()].copy_from_slice(folder);
    path[folder.len()..folder.len() + number.len()].copy_from_slice(number);
    core::ffi::CStr::from_bytes_until_nul(path).unwrap_or(c"")
}

fn hex(text: &[u8]) -> Option<usize> {
    let len = text.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(text.len());
    usize::from_str_radix(core::str::from_utf8(&text[..len]).ok()?, 16).ok()
}
