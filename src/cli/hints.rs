//! What is missing for better names, said once at the end of a report, with the package that has it.

use crate::model::Report;
use crate::paint::{BOLD, Paint, printable};
use crate::symbolize::{Symbolizer, Trouble};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Lists modules without lines. Says nothing where nothing is missing.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut dyn Write, report: &Report, symbolizer: &Symbolizer, paint: Paint) -> io::Result<()> {
    let mut troubles: Vec<(&str, Trouble)> = Vec::new();
    for (index, trouble) in symbolizer.troubles() {
        if let Some(module) = report.modules.get(index)
            && !troubles.iter().any(|(path, _)| *path == module.path)
        {
            troubles.push((&module.path, trouble));
        }
    }
    if troubles.is_empty() {
        return Ok(());
    }
    let plain: Vec<_> =
        troubles.iter().filter(|(_, trouble)| *trouble == Trouble::NoDebugInfo).map(|(path, _)| *path).collect();
    let packages = if symbolizer.is_local() { packages(&plain) } else { BTreeMap::new() };
    writeln!(out, "\n{}", paint.with(BOLD, "without file and line:"))?;
    for (path, trouble) in troubles {
        let hint = match packages.get(path) {
            Some(package) => format!("; try: apt install {}", debug_package(package)),
            None => String::new(),
        };
        writeln!(out, "  {}: {}{hint}", printable(path), printable(&trouble.to_string()))?;
    }
    Ok(())
}

/// Debian's debug packages are named after the package, but for the few that are older than that rule.
fn debug_package(package: &str) -> String {
    match package {
        "libc6" | "libc-bin" => "libc6-dbg".into(),
        package => format!("{package}-dbgsym"),
    }
}

/// The package of each path, where dpkg is there and knows it.
fn packages(paths: &[&str]) -> BTreeMap<String, String> {
    let mut asked = Vec::new();
    for &path in paths {
        asked.push(path.to_owned());
        // On merged systems dpkg may know /lib/... under either name.
        asked.extend(path.strip_prefix("/usr").map(str::to_owned));
    }
    if asked.is_empty() {
        return BTreeMap::new();
    }
    let output =
        Command::new("dpkg").arg("-S").arg("--").args(&asked).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let Ok(output) = output else { return BTreeMap::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let owner = |path: &str| {
        text.lines().find_map(|line| {
            let (package, file) = line.rsplit_once(": ")?;
            let same = file == path || path.strip_prefix("/usr") == Some(file);
            same.then(|| package.split([':', ',']).next().unwrap_or(package).to_owned())
        })
    };
    paths.iter().filter_map(|path| Some(((*path).to_owned(), owner(path)?))).collect()
}
