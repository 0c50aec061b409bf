//! The two files under test, built once per test process: exactly those that a user gets from `cargo build --release`.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the built files are.
#[derive(Debug)]
pub struct Artifacts {
    /// `libleakscan.so`.
    pub library: PathBuf,
    /// `leakscan`.
    pub leakscan: PathBuf,
    /// Kept from run to run: compiled programs.
    pub cache: PathBuf,
}

/// Builds them, the first time.
///
/// # Panics
/// If the build fails.
pub fn artifacts() -> &'static Artifacts {
    static ARTIFACTS: OnceLock<Artifacts> = OnceLock::new();
    ARTIFACTS.get_or_init(build)
}

/// The repository.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is a folder of the workspace")
}

fn build() -> Artifacts {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "-p", "leakscan-preload", "-p", "leakscan"]);
    cargo.arg("--message-format=json-render-diagnostics").current_dir(workspace());
    // Set for the tests, not for what they test.
    cargo.env_remove("LD_PRELOAD").env_remove("LEAKSCAN_OPTIONS").env_remove("LEAKSCAN_RUN");
    let messages = crate::must(&mut cargo);
    // Cargo itself says where it has put them, whatever CARGO_TARGET_DIR or a configuration file say.
    let files: Vec<PathBuf> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|file| file.as_str().map(PathBuf::from))
        .collect();
    let find = |name: &str| {
        let found = files.iter().find(|file| file.file_name().is_some_and(|last| last == name));
        found.unwrap_or_else(|| panic!("{cargo:?} gave no {name}, but {files:?}")).clone()
    };
    let library = find("libleakscan.so");
    let target = library.parent().and_then(Path::parent).expect("TARGET/release/FILE").to_owned();
    Artifacts { library, leakscan: find("leakscan"), cache: target.join("preload-tests") }
}
