//! `leakscan scan PID`.

use crate::args::{Scan, When};
use crate::process::Process;
use crate::request::Target;
use crate::symbolize::Places;
use crate::{model, report};
use std::io::{IsTerminal, Write};
use std::time::Duration;

pub fn main(args: &Scan, color: When) -> Result<u8, String> {
    let target = Target::new(Process { pid: args.pid }, args.signal)?;
    let terminal = std::io::stderr().is_terminal();
    let mut said = 0;
    let answer = target.scan(Duration::from_secs(args.timeout), |waited| {
        let seconds = waited.as_secs();
        if terminal && seconds > said {
            said = seconds;
            eprint!("\rleakscan: process {} is scanning, {seconds} s", args.pid);
        }
    });
    if said > 0 {
        eprint!("\r\x1b[K");
        std::io::stderr().flush().ok();
    }
    let answer = answer?;
    let report = model::load(&answer.path)?;
    let places = Places::from(&args.places);
    report::print(&[&report], Some(answer.scan), &args.view, &places, color, false)?;
    let leaks = report.scan(Some(answer.scan)).is_some_and(model::Scan::has_confirmed_leaks);
    Ok(if leaks && args.fail.fail_on_leak { args.fail.exitcode } else { 0 })
}
