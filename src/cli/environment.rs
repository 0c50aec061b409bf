//! The environment that `leakscan run` gives the program, and what it means for where reports are to be found.

use crate::args::Run;
use crate::logpath;
use crate::process::is_library;
use leakscan_options::TABLE;
use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

#[derive(Debug)]
pub struct Environment {
    preload: OsString,
    /// `GLIBC_TUNABLES`, where it is to be another one.
    tunables: Option<String>,
    options: String,
    /// Names the run in the header of every report of it.
    pub token: String,
    pub log_path: String,
    pub quiet: bool,
    pub scans_at_exit: bool,
    pub warnings: Vec<String>,
}

impl Environment {
    /// The flags laid over what the environment says already.
    ///
    /// # Errors
    /// Where `LEAKSCAN_OPTIONS` is not text.
    pub fn new(args: &Run, library: &Path) -> Result<Self, String> {
        let given = match std::env::var("LEAKSCAN_OPTIONS") {
            Ok(text) => text,
            Err(std::env::VarError::NotPresent) => String::new(),
            Err(std::env::VarError::NotUnicode(_)) => return Err("LEAKSCAN_OPTIONS is not text".into()),
        };
        let mut flags = args.library.set.clone();
        if args.no_follow {
            flags.push(("follow", "0".into()));
        }
        let mut warnings = Vec::new();
        leakscan_options::parse(&given, |fault| warnings.push(format!("LEAKSCAN_OPTIONS: {fault}")));
        let mut options = merge(&given, &flags);
        let mut log_path = leakscan_options::parse(&options, |_| ()).log_path.to_owned();
        if !log_path.starts_with('/')
            && let Some(fixed) = absolute(&log_path)
        {
            // The program may change its directory before its first report.
            options = merge(&options, &[("log_path", fixed.clone())]);
            log_path = fixed;
        }
        let parsed = leakscan_options::parse(&options, |_| ());
        let (quiet, scans_at_exit) = (parsed.quiet, parsed.scan_at_exit);
        let random = RandomState::new().build_hasher().finish();
        let token = format!("{}-{random:x}", std::process::id());
        let preload = preload(library, std::env::var_os("LD_PRELOAD"));
        let tunables = args.large_pages.then(|| with_large_pages(std::env::var("GLIBC_TUNABLES").ok().as_deref()));
        Ok(Self { preload, tunables, options, token, log_path, quiet, scans_at_exit, warnings })
    }

    pub fn variables(&self) -> impl Iterator<Item = (&'static str, OsString)> {
        let tunables = self.tunables.clone().map(|tunables| ("GLIBC_TUNABLES", tunables.into()));
        [
            ("LD_PRELOAD", self.preload.clone()),
            ("LEAKSCAN_OPTIONS", self.options.clone().into()),
            ("LEAKSCAN_RUN", self.token.clone().into()),
        ]
        .into_iter()
        .chain(tunables)
    }
}

/// glibc's tunables, with that by which it asks the kernel for large pages (2.35 and later; others pass over the name).
fn with_large_pages(given: Option<&str>) -> String {
    const NAME: &str = "glibc.malloc.hugetlb";
    let others =
        given.unwrap_or("").split(':').filter(|part| !part.is_empty() && !part.starts_with(&format!("{NAME}=")));
    others.map(str::to_owned).chain([format!("{NAME}=1")]).collect::<Vec<_>>().join(":")
}

/// Options of which the later ones win; what nobody knows is kept for the library to complain about.
fn merge(given: &str, flags: &[(&str, String)]) -> String {
    let kept = given.split([':', ' ', ',']).filter(|part| !part.is_empty()).filter(|part| {
        let name = part.split('=').next().unwrap_or("");
        !flags.iter().any(|(flag, _)| *flag == name)
    });
    let added = flags.iter().map(|(name, value)| format!("{name}={value}"));
    kept.map(str::to_owned).chain(added).collect::<Vec<_>>().join(":")
}

fn absolute(path: &str) -> Option<String> {
    let folder = std::env::current_dir().ok()?;
    let folder = folder.to_str().filter(|text| !text.contains([':', ' ', ',']))?;
    Some(format!("{}/{path}", folder.replace('%', "%%")))
}

/// Ours comes first, so that what others preload allocates through us.
fn preload(library: &Path, others: Option<OsString>) -> OsString {
    let mut text = library.as_os_str().to_owned();
    if let Some(others) = others {
        for other in others.to_string_lossy().split([':', ' ']).filter(|other| !other.is_empty()) {
            if !is_library(&PathBuf::from(other)) {
                text.push(":");
                text.push(other);
            }
        }
    }
    text
}

/// Where a process's report is to be.
pub fn report_of(pid: u32, environment: &Environment) -> String {
    environment.log_path.replace("%p", &pid.to_string()).replace("%e", "*").replace("%%", "%")
}

/// Reasons for which the program itself left no report, likeliest first.
pub fn why_no_report(pid: u32, status: ExitStatus, environment: &Environment) -> Vec<String> {
    let folder = logpath::folder(&environment.log_path);
    let mut lines = vec![format!("the program left no report at {}", report_of(pid, environment))];
    if rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_err() {
        lines.push(format!("  {} cannot be written to; see --log-path", folder.display()));
    } else if status.signal().is_some() {
        lines.push("  it was killed before its first scan; --interval=N makes scans more often".into());
    } else if !environment.scans_at_exit {
        lines.push("  there is no scan at exit (scan_at_exit=0), and it ended before its first one".into());
    } else {
        lines.push("  it may have replaced itself by a static or set-uid program, left by a raw system call,".into());
        lines.push("  dropped LD_PRELOAD or its rights to write there, or runs where leakscan cannot load".into());
        lines.push("  (`leakscan doctor` tells what works on this machine)".into());
    }
    lines
}

/// The table of options as the README has it.
pub fn options_table(markdown: bool) -> String {
    let row = |row: &leakscan_options::Row| match markdown {
        true => format!("| `{}` | `{}` | {} | {} |\n", row.name, row.default, row.kind, row.help.replace('|', "\\|")),
        false => format!("{:14} {:20} {} ({})\n", row.name, row.default, row.help, row.kind),
    };
    let head = if markdown { "| option | default | takes | what it does |\n|---|---|---|---|\n" } else { "" };
    TABLE.iter().fold(head.to_owned(), |text, option| text + &row(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_environment_and_the_rest_is_kept() {
        let merged = merge("interval=5:odd=1 quiet=1", &[("interval", "9".into()), ("follow", "0".into())]);
        assert_eq!(merged, "odd=1:quiet=1:interval=9:follow=0");
        assert_eq!(merge("", &[]), "");
    }

    #[test]
    fn the_readme_has_the_table_of_options() {
        let readme = include_str!("../../README.md");
        assert!(readme.contains(&options_table(true)), "README.md: put in what `leakscan options --markdown` gives");
    }

    #[test]
    fn other_tunables_stay() {
        assert_eq!(with_large_pages(None), "glibc.malloc.hugetlb=1");
        let given = Some("glibc.malloc.hugetlb=0:glibc.malloc.check=3");
        assert_eq!(with_large_pages(given), "glibc.malloc.check=3:glibc.malloc.hugetlb=1");
    }

    #[test]
    fn our_library_is_first_and_only_once() {
        let others = Some(OsString::from("/x/libjemalloc.so:/old/libleakscan.so /y/b.so"));
        assert_eq!(preload(Path::new("/l/libleakscan.so"), others), "/l/libleakscan.so:/x/libjemalloc.so:/y/b.so");
    }

    #[test]
    fn the_table_has_every_option() {
        let table = options_table(true);
        assert_eq!(table.lines().count(), TABLE.len() + 2);
        assert!(table.contains("| `interval` | `60` | a number from 0 to 31536000 | seconds between"));
    }
}
