//! The C++ operators new and delete: whether they are the C++ runtime's, which do no more than to call malloc and free, so that the
//! entries may do that themselves; else the entries note who called, and call the real ones.

use crate::symbols::Search;
use crate::{real, state};
use core::sync::atomic::Ordering::Relaxed;
use leakscan_engine::AddrRange;

/// The files in which operators are known to be plain: from malloc, and if that fails by the new_handler; to free.
const RUNTIMES: [&[u8]; 3] = [b"/libstdc++.so.", b"/libc++.so.", b"/libc++abi.so."];

/// Whether the program has none but those of the C++ runtime, or none at all yet, and its malloc is ours.
pub fn are_plain() -> bool {
    if state::BYPASSED.load(Relaxed) {
        return false;
    }
    let before = Search::before_us();
    let mut runtime = AddrRange::new(0, 0);
    real::operators().all(|(address, name)| {
        let plain = address == 0 || runtime.contains(address) || {
            runtime = real::mapped_file(address).unwrap_or(runtime);
            let mut path = [0; 512];
            let path = real::path_of(address, &mut path);
            let name = path.iter().rposition(|&byte| byte == b'/').map_or(&path[..0], |slash| &path[slash..]);
            RUNTIMES.iter().any(|runtime| name.starts_with(runtime))
        };
        plain && !before.may_exist(name)
    })
}
