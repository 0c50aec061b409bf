//! What the command line must know of a running process, where it can always be read: in the name of a mapping.
//!
//! `/proc/PID/environ` is no such place: servers write their titles over it (setproctitle). A mapping's name stands in
//! `/proc/PID/maps`, needs no page, and stays with the children of a fork.
#![allow(unsafe_code)] // makes the mapping

use crate::settings::Settings;
use leakscan_engine::sys::{self, Fd, nr};

/// The kernel takes 249 bytes of name.
const NAME: usize = 250;
const MFD_CLOEXEC: usize = 1;

/// Maps an empty file named `leakscan:SIGNAL:LOG_PATH`. Where that fails, the environment is what is left.
pub fn hang(settings: &Settings) {
    let mut name = [0u8; NAME];
    let mut used = 0;
    let mut digits = [0; 20];
    let signal = sys::decimal(settings.options.signal, &mut digits);
    for part in [b"leakscan:", signal, b":", settings.log_path.as_bytes()] {
        // A name that is cut would be a wrong one.
        let Some(place) = name[..NAME - 1].get_mut(used..used + part.len()) else { return };
        place.copy_from_slice(part);
        used += part.len();
    }
    // SAFETY: the kernel reads the name, which ends in zero; the mapping has no permission and is never used.
    unsafe {
        if let Ok(file) = sys::call(nr::MEMFD_CREATE, [name.as_ptr() as usize, MFD_CLOEXEC, 0, 0, 0, 0]).map(Fd) {
            let _ = sys::call(nr::MMAP, [0, 4096, sys::PROT_NONE, sys::MAP_SHARED, file.0, 0]);
        }
    }
}
