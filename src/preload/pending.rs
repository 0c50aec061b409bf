//! The values of signals that wait to be taken (sigqueue, pthread_sigqueue): pointers that the kernel alone has. It shows them to a debugger.

use crate::emit::Unseen;
use crate::snapshot::Job;
use crate::stop::{self, ptrace::waiting_signals};
use leakscan_engine::arena::List;
use leakscan_engine::sys;

/// Adds the words of those that somebody has sent with a value. For the snapshot child, while the program goes on, or waits for its end.
pub fn values(job: &Job, words: &mut List<usize>, unseen: &mut Unseen) {
    let mut refused = 0;
    let threads = job.crew.found().iter().map(|thread| thread.tid).chain([job.caller.tid]);
    for tid in threads {
        let mut text = [0; 4096];
        let mut path = [0; 64];
        let Ok(status) = sys::read_file(stop::task_path(&mut path, job.pid, tid, b"status"), &mut text) else {
            continue;
        };
        // Those of the process are the same in each thread's.
        for (of, shared) in [(&b"SigPnd:"[..], false), (b"ShdPnd:", true)] {
            if (shared && tid != job.caller.tid) || !any(status, of) {
                continue;
            }
            let looked = waiting_signals(tid, shared, |info| {
                // Negative codes are those that programs send; what they give lies in six words.
                if (info[1] as u32).cast_signed() < 0 {
                    info[2..8].iter().for_each(|word| _ = words.push(*word));
                }
            });
            refused += usize::from(looked.is_err());
        }
    }
    unseen.add_count("pending-signal", refused, b"threads have signals waiting whose values the kernel does not show");
}

/// Whether a line of /proc/PID/status tells of a signal.
fn any(status: &[u8], of: &[u8]) -> bool {
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(of));
    line.is_some_and(|set| set.iter().any(|digit| !b"0 \t".contains(digit)))
}
