//! `leakscan`: runs programs under libleakscan.so, asks them for scans, and reads their reports.
//!
//! Exit codes are an interface: see the help of each command. Every error is one line on stderr that says what, which file
//! and why.

mod args;
mod export;
mod hints;
mod model;
mod paint;
mod report;
mod select;
mod symbolize;
mod sys;
mod units;
mod view;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

/// What a command returns where it could not do what was asked.
const TROUBLE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let color = cli.color;
    let done = match &cli.command {
        Command::Report(args) => report::main(args, color),
        _ => todo!(),
    };
    ExitCode::from(done.unwrap_or_else(|error| {
        eprintln!("leakscan: {error}");
        TROUBLE
    }))
}
