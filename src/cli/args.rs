//! The command line: what can be said, and its help. The flags of `run` come from the library's own table of options.

use clap::{Args, Parser, Subcommand, ValueEnum};
use leakscan_options::{TABLE, Type};
use leakscan_report::Kind;
use std::ffi::OsString;
use std::path::PathBuf;

const EXIT: &str = "\
Exit status: 0 done; 23 (or --exitcode) with --fail-on-leak where leaks are confirmed; 2 trouble.";
const EXIT_OF_RUN: &str = "\
Exit status: 0 done; 23 (or --exitcode) with --fail-on-leak where leaks are confirmed; 2 trouble.\n\
`run` ends as the program did: see `leakscan run --help`.\n\n\
A session:\n  \
leakscan run -- ./server          # the leaks, when it ends\n  \
leakscan scan 4242                # the leaks of a running one, now\n  \
leakscan report /tmp/leakscan.4242 --all";

/// Finds memory that a running program can no longer reach, without recompiling or stopping it.
#[derive(Debug, Parser)]
#[command(name = "leakscan", version, after_help = EXIT_OF_RUN, max_term_width = 110)]
pub struct Cli {
    /// When to use colour (NO_COLOR is respected)
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: When,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Run),
    Scan(Scan),
    Report(ReportCommand),
    /// Tell what will work here, or for a running process
    Doctor(Doctor),
    /// Print the table of options
    #[command(hide = true)]
    Options(Options),
}

#[derive(Debug, Args)]
#[command(
    about = "Run a program under leakscan and show its leaks when it ends",
    long_about = "Run a program under leakscan and show its leaks when it ends.\n\n\
        Loads libleakscan.so (LEAKSCAN_LIB, or the one beside leakscan) into the program and whatever it starts, passes \
        signals on (on SIGINT, SIGTERM and SIGHUP asks for a last scan first), and ends as the program does. The report \
        goes to stderr, so that the program's own output stays clean.",
    after_help = "Options of the library given here win over those in LEAKSCAN_OPTIONS.\n\n\
        Exit status: the program's own; 128 + N where signal N killed it; 23 (or --exitcode) with --fail-on-leak where \
        leaks are confirmed; 125 leakscan failed; 126 the program cannot be run under it; 127 no such program.\n\n\
        Example: leakscan run --interval=10 --fail-on-leak -- ./server --port 8080"
)]
pub struct Run {
    #[command(flatten)]
    pub fail: Fail,
    /// Write the report at the end there instead of to stderr
    #[arg(long, value_name = "FILE")]
    pub report_to: Option<PathBuf>,
    /// Do not watch the programs that this one starts (the same as --follow=0)
    #[arg(long, conflicts_with = "follow")]
    pub no_follow: bool,
    /// Let glibc keep the program's heap in large pages (GLIBC_TUNABLES=glibc.malloc.hugetlb=1): pauses of a tenth and less
    #[arg(long)]
    pub large_pages: bool,
    #[command(flatten)]
    pub library: Library,
    #[command(flatten)]
    pub places: PlaceArgs,
    /// The program, and what it is given
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROG [ARGS]")]
    pub program: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Fail {
    /// Exit with --exitcode where leaks are confirmed
    #[arg(long)]
    pub fail_on_leak: bool,
    /// The exit status that says so
    #[arg(long, value_name = "N", default_value_t = 23)]
    pub exitcode: u8,
}

/// The library's options that were given, as `name=value`.
#[derive(Debug, Default)]
pub struct Library {
    pub set: Vec<(&'static str, String)>,
}

impl clap::FromArgMatches for Library {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &'static str| Some((name, matches.get_one::<String>(name)?.clone()));
        Ok(Self { set: TABLE.iter().filter_map(|row| given(row.name)).collect() })
    }
    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Library {
    fn augment_args(command: clap::Command) -> clap::Command {
        TABLE.iter().fold(command, |command, row| {
            let (value, least) = match row.kind {
                Type::Switch => ("0|1".to_owned(), 0),
                Type::Number { .. } => ("N".to_owned(), 1),
                Type::Bytes => ("BYTES".to_owned(), 1),
                Type::Choice(words) => (words.join("|"), 1),
                Type::Text => ("TEXT".to_owned(), 1),
            };
            let more = if row.name == "quiet" { "; print no report at the end" } else { "" };
            let arg = clap::Arg::new(row.name)
                .long(row.name.replace('_', "-"))
                .value_name(value)
                .help(format!("{}{more} [default: {}]", row.help, row.default))
                .help_heading("Options of the library (also LEAKSCAN_OPTIONS=name=value:name=value)")
                .num_args(least..=1)
                // `--quiet ./prog` must not take the program for the switch's value.
                .require_equals(least == 0)
                .value_parser(move |value: &str| check(row.name, value));
            command.arg(if least == 0 { arg.default_missing_value("1") } else { arg })
        })
    }
    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// The value as the library will take it; its syntax has no way to quote a separator.
fn check(name: &str, value: &str) -> Result<String, String> {
    if value.contains([':', ' ', ',']) {
        return Err("a value cannot hold a colon, a comma or a space".into());
    }
    let pair = format!("{name}={value}");
    let mut fault = None;
    leakscan_options::parse(&pair, |error| fault = Some(error.to_string()));
    fault.map_or_else(|| Ok(value.to_owned()), Err)
}

#[derive(Debug, Args)]
#[command(
    about = "Ask a running program for a scan now, and show it",
    long_about = "Ask a running program for a scan now, and show it.\n\n\
        The program must have been started with libleakscan.so. It is asked by a signal and answers within a second even \
        where it is idle; it is not stopped for longer than it takes to copy its state. The system call in which the thread waits \
        that takes the signal may return EINTR.",
    after_help = EXIT
)]
pub struct Scan {
    /// The process
    pub pid: u32,
    /// The signal to ask with [default: the process's LEAKSCAN_OPTIONS, else 58]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=64))]
    pub signal: Option<i32>,
    /// Seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 130)]
    pub timeout: u64,
    #[command(flatten)]
    pub view: View,
    #[command(flatten)]
    pub fail: Fail,
    #[command(flatten)]
    pub places: PlaceArgs,
}

#[derive(Debug, Args)]
#[command(
    about = "Show reports: as text, as JSON, or as folded stacks for a flame graph",
    long_about = "Show reports: as text, as JSON (docs/report.schema.json), or as folded stacks for a flame graph.\n\n\
        Reports lie where log_path says, /tmp/leakscan.PID by default. They can be read on another machine: see --sysroot \
        and --debug-dir.",
    after_help = EXIT
)]
pub struct ReportCommand {
    /// Report files; - is the standard input. JSON is one object for one file, an array for several
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Show that scan instead of the last whole one
    #[arg(long, value_name = "N")]
    pub scan: Option<u32>,
    #[command(flatten)]
    pub view: View,
    #[command(flatten)]
    pub fail: Fail,
    #[command(flatten)]
    pub places: PlaceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// Everything, symbolized; the schema is docs/report.schema.json
    Json,
    /// `root;...;leaf BYTES` lines, for flame graphs
    Folded,
}

/// What to show of a report.
#[derive(Clone, Debug, Args)]
pub struct View {
    /// The form of the output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
    /// Show the N largest leaks [default: 10 as text, all otherwise]
    #[arg(short = 'n', long = "top", value_name = "N")]
    pub top: Option<usize>,
    /// Leave out leaks of fewer bytes, what they keep included (suffixes k, m, g)
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = bytes)]
    pub min_bytes: u64,
    /// Show only leaks of these kinds [default: direct as text, every kind otherwise]
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind_parser())]
    pub kind: Vec<String>,
    /// Show leaks of every kind, and all of them unless -n is given
    #[arg(long, conflicts_with = "kind")]
    pub all: bool,
}

impl View {
    /// The kinds asked for; empty: the format's default.
    pub fn kinds(&self) -> Vec<Kind> {
        self.kind.iter().filter_map(|word| Kind::from_word(word)).collect()
    }
}

fn kind_parser() -> clap::builder::PossibleValuesParser {
    [Kind::Direct, Kind::Indirect, Kind::Possible].map(Kind::word).into()
}

fn bytes(text: &str) -> Result<u64, String> {
    use leakscan_options::Value;
    <u64 as Value>::parse(Type::Bytes, text).ok_or_else(|| "a number of bytes, as in 4096 or 512k".into())
}

/// Where the files of the program and their debug info lie.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Look for the program's files and /usr/lib/debug below DIR
    #[arg(long, value_name = "DIR", help_heading = "Symbols")]
    pub sysroot: Option<PathBuf>,
    /// Look for debug files there too (DIR/.build-id/xx/rest.debug, or DIR/NAME of .gnu_debuglink); may be repeated
    #[arg(long = "debug-dir", value_name = "DIR", help_heading = "Symbols")]
    pub debug_dirs: Vec<PathBuf>,
}

impl From<&PlaceArgs> for crate::symbolize::Places {
    fn from(args: &PlaceArgs) -> Self {
        Self { sysroot: args.sysroot.clone(), debug_dirs: args.debug_dirs.clone() }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 leakscan will work, 2 it will not.")]
pub struct Doctor {
    /// A running process to look at [default: this machine]
    pub pid: Option<u32>,
}

#[derive(Debug, Args)]
pub struct Options {
    /// As the table of the README
    #[arg(long)]
    pub markdown: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    fn run(args: &[&str]) -> Result<Run, String> {
        let parsed = Cli::try_parse_from([&["leakscan", "run"], args].concat()).map_err(|error| error.to_string())?;
        match parsed.command {
            Command::Run(run) => Ok(run),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn every_option_of_the_library_is_a_flag_of_run() {
        let args = ["--interval=5", "--log-path", "/x/%p", "--use-globals=0", "--quiet", "prog", "--quiet"];
        let parsed = run(&args).unwrap();
        let set: Vec<_> = parsed.library.set.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(set, [("interval", "5"), ("log_path", "/x/%p"), ("quiet", "1"), ("use_globals", "0")]);
        assert_eq!(parsed.program, ["prog", "--quiet"]);
    }

    #[test]
    fn values_that_the_library_would_refuse_are_refused() {
        assert!(run(&["--depth=99", "prog"]).unwrap_err().contains("a number from 1 to 64"));
        assert!(run(&["--log-path=/a:b", "prog"]).unwrap_err().contains("colon"));
        assert!(run(&["--quiet"]).unwrap_err().contains("PROG"));
    }
}
