//! What happens to `leakscan run` while its program runs: signals to pass on, and the program's end, as one stream.

use rustix::process::{Pid, WaitId, WaitIdOptions, getpgid, getpgrp, waitid};
use signal_hook::consts::{SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::raw::WithRawSiginfo;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

const PASSED_ON: [i32; 9] = [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGCONT, SIGWINCH];

/// Signals by which someone wants the program to end.
pub const ENDING: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];

#[derive(Debug)]
pub enum Event {
    Signal {
        number: i32,
        /// Sent by the terminal, so to every process of its foreground group.
        by_terminal: bool,
    },
    /// The program has ended; it is not reaped yet, so its number is still its own.
    Ended,
}

/// Events from now on; to be made before the program starts.
pub struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
}

impl Events {
    pub fn new() -> io::Result<Self> {
        // What is ignored stays so, for the program too: that is how nohup works.
        let status = crate::process::Process::this().status()?;
        let wanted = PASSED_ON.iter().filter(|&&signal| !status.ignores(signal));
        let mut signals = SignalsInfo::<WithRawSiginfo>::new(wanted)?;
        let (sender, receiver) = channel();
        let to = sender.clone();
        thread::spawn(move || {
            for info in &mut signals {
                let event = Event::Signal { number: info.si_signo, by_terminal: info.si_code == libc::SI_KERNEL };
                if to.send(event).is_err() {
                    break;
                }
            }
        });
        Ok(Self { sender, receiver })
    }

    /// Also tells when that child of ours ends.
    pub fn watch(&self, pid: Pid) {
        let to = self.sender.clone();
        thread::spawn(move || {
            while let Err(rustix::io::Errno::INTR) =
                waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            {}
            to.send(Event::Ended).ok();
        });
    }

    pub fn next(&self) -> Event {
        // We hold a sender ourselves.
        self.receiver.recv().unwrap_or(Event::Ended)
    }
}

/// Whether the terminal sent the program the same signal that it sent us.
pub fn shares_our_group(pid: Pid) -> bool {
    getpgid(Some(pid)).is_ok_and(|group| group == getpgrp())
}
