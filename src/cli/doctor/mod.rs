//! `leakscan doctor`: tells what will work on this machine or in a process, one line a check, before anyone relies on it.

mod machine;
mod process;
mod trial;

use crate::TROUBLE;
use crate::args::{Doctor, When};
use crate::paint::{GREEN, Paint, RED, YELLOW, printable};
use std::io::{self, IsTerminal, Write};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grade {
    Ok,
    /// Works, but something is missing or slower.
    Warn,
    /// leakscan will not work.
    Fail,
}

/// What one check found.
#[derive(Debug)]
struct Finding {
    grade: Grade,
    what: &'static str,
    /// What it means and, unless it is well, what to try.
    text: String,
}

fn ok(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { grade: Grade::Ok, what, text: text.into() }
}

fn warn(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { grade: Grade::Warn, what, text: text.into() }
}

fn fail(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { grade: Grade::Fail, what, text: text.into() }
}

pub fn main(args: &Doctor, color: When) -> u8 {
    let mut findings = match args.pid {
        Some(pid) => process::examine(pid),
        None => machine::examine(),
    };
    if args.pid.is_none() {
        findings.extend(trial::examine());
    }
    let paint = Paint::new(color, io::stdout().is_terminal());
    // A reader that has gone does not change what was found.
    print(&mut io::stdout().lock(), &findings, paint).ok();
    if findings.iter().any(|finding| finding.grade == Grade::Fail) { TROUBLE } else { 0 }
}

fn print(out: &mut dyn Write, findings: &[Finding], paint: Paint) -> io::Result<()> {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    for finding in findings {
        let (word, style) = match finding.grade {
            Grade::Ok => ("ok  ", GREEN),
            Grade::Warn => ("warn", YELLOW),
            Grade::Fail => ("FAIL", RED),
        };
        writeln!(out, "{}  {:width$}  {}", paint.with(style, word), finding.what, printable(&finding.text))?;
    }
    Ok(())
}
