//! `leakscan`: runs programs under libleakscan.so, asks them for scans, and reads their reports.
//!
//! Exit codes are an interface: see the help of each command. Every error is one line on stderr that says what, which file
//! and why.

mod args;
mod doctor;
mod environment;
mod export;
mod hints;
mod library;
mod logpath;
mod misuse;
mod model;
mod names;
mod paint;
mod preflight;
mod process;
mod report;
mod request;
mod run;
mod scan;
mod select;
mod signals;
mod symbolize;
mod sys;
#[cfg(test)]
mod testing;
mod units;
mod view;

use args::{Cli, Command};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

/// What a command returns where it could not do what was asked.
const TROUBLE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let color = cli.color;
    let done = match &cli.command {
        Command::Run(args) => Ok(run::main(args, color)),
        Command::Scan(args) => scan::main(args, color),
        Command::Report(args) => report::main(args, color),
        Command::Doctor(args) => Ok(doctor::main(args, color)),
        Command::Options(args) => {
            // A pipe that was closed early is no error.
            std::io::stdout().write_all(environment::options_table(args.markdown).as_bytes()).ok();
            Ok(0)
        }
    };
    ExitCode::from(done.unwrap_or_else(|error| {
        eprintln!("leakscan: {error}");
        TROUBLE
    }))
}
