//! The values of signals that wait to be taken (sigqueue, pthread_sigqueue): pointers that the kernel alone has. It shows them to a debugger.
//!
//! Not of signals that the kernel itself sends: a thread is stopped for it, and epoll_wait does not go on after that as if nothing had been.

use crate::emit::Unseen;
use crate::helper;
use crate::snapshot::Job;
use crate::stop::{self, ptrace::waiting_signals};
use leakscan_engine::arena::List;
use leakscan_engine::sys;

/// For all threads together.
const PATIENCE_NS: u64 = 50_000_000;

/// What the helper is to look at, and has found.
struct Task<'a> {
    /// Each with whether its process's are meant.
    threads: List<(u32, bool)>,
    words: &'a mut List<usize>,
    done: usize,
    until: u64,
}

/// Adds the words of those that somebody has sent with a value. Gives whether all were to be had. For the snapshot child, while the program
/// goes on, or waits for its end.
pub fn values(job: &Job, by_ptrace: bool, words: &mut List<usize>, unseen: &mut Unseen) -> bool {
    let until = sys::clock_ns(sys::CLOCK_MONOTONIC) + PATIENCE_NS;
    let mut task = Task { threads: List::new(), words, done: 0, until };
    let mut asleep = 0;
    for tid in job.crew.found().iter().map(|thread| thread.tid).chain([job.caller.tid]) {
        let (mut is_asleep, mut its, mut process) = (false, 0, 0);
        // (In another namespace's /proc the numbers of other threads than the first are not known.)
        let known_as = if tid == job.pid { job.known_as } else { tid };
        let told = stop::each_line_of_status(job.known_as, known_as, |name, value| match name {
            b"State" => is_asleep = value.starts_with(b"D"),
            b"SigPnd" => its = with_values(value),
            b"ShdPnd" => process = with_values(value),
            _ => {}
        });
        // Those of the process are the same in each thread's.
        for (shared, waiting) in [(false, its), (true, process)] {
            if told.is_err() || waiting == 0 || (shared && tid != job.caller.tid) {
            } else if is_asleep {
                // In the kernel, where nothing stops it.
                asleep += 1;
            } else {
                let _ = task.threads.push((tid, shared));
            }
        }
    }
    let count = task.threads.len();
    if count != 0 && by_ptrace {
        // SAFETY: `look` makes system calls only, and ends itself; the task is here until then.
        unsafe { helper::with_deadline(look, &raw mut task as usize, until) };
    }
    let missed = count - task.done.min(count) + asleep;
    unseen.add_count(
        "pending-signal",
        missed,
        b"threads have signals waiting whose values were not to be had from the kernel: nothing is confirmed without them",
    );
    missed == 0
}

/// The helper: whatever becomes of it (a filter may kill who calls ptrace), its end lets all threads go on.
extern "C" fn look(task: usize) -> ! {
    #[allow(unsafe_code)]
    // SAFETY: the address of the task of `values`, which waits for this process to end.
    let task = unsafe { &mut *(task as *mut Task<'_>) };
    for index in 0..task.threads.len() {
        let (tid, shared) = task.threads[index];
        let looked = waiting_signals(tid, shared, task.until, |info| {
            // Negative codes are those that programs send; what they give lies in six words.
            if (info[1] as u32).cast_signed() < 0 {
                info[2..8].iter().for_each(|word| _ = task.words.push(*word));
            }
        });
        task.done += usize::from(looked.is_ok());
    }
    helper::exit()
}

/// Those of a set that may have a value, other than the one that we stop threads by, which waits where it is blocked.
fn with_values(set: &[u8]) -> u64 {
    let ours = 1u64.checked_shl(stop::signal::number().wrapping_sub(1)).unwrap_or(0);
    sys::with_values(stop::signals(set).unwrap_or(0) & !ours)
}
